"""Hyperparameters of other methods as those of QHM, and back.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801: QHM contains the
methods below. ``qhm_from_X`` makes QHM take the steps of X and ``qhm_to_X`` gives the parameters with which X takes the
steps of QHM, both from rest: every buffer 0, and no earlier iterate but the first. "The steps" are the points where the
gradients are taken. Each function returns a dict, to be splatted:

    xopt.qhm_step(state, grad, **xopt.qhm_from_nesterov(lr=0.1, beta=0.9))

The methods are equal in exact arithmetic while their hyperparameters are constant. A weight decay that is scaled by lr
is not converted: multiply it by the old lr over the new one.

What is out of a conversion's domain, NaN or infinite raises ValueError; what is no number raises TypeError.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, get_type_hints

from xopt.checks import DOUBLE, Beta, Epsilon, Interval, Rate, Real, SignedBeta, as_number, check_hyper

P = ParamSpec("P")

Hyper = dict[str, float]
Positive = Annotated[Any, Interval("(0, inf)")]
"""A positive, finite number."""
Condition = Annotated[Any, Interval("(1, inf)")]
"""The condition number of a function that is not a perfect bowl: for kappa = 1, take sgd with lr = 1/L."""
Inner = Annotated[Any, Interval("(0, 1)")]
"""A number between 0 and 1, both excluded."""
LeftOpen = Annotated[Any, Interval("(0, 1]")]
RightOpen = Annotated[Any, Interval("[0, 1)")]
Rho = Annotated[Any, Interval("[0, 1)", optional=True)]


def _conversion(function: Callable[P, Hyper]) -> Callable[P, Hyper]:
    """Makes floats of the arguments and checks their ranges, then the result. Errors say which function was given what."""
    signature = inspect.signature(function)
    ranges = {
        name: hint.__metadata__[0] for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"
    }

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Hyper:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        call = f"{function.__name__}({', '.join(f'{name}={value!r}' for name, value in bound.arguments.items())})"
        for name, value in bound.arguments.items():
            if value is None and ranges[name].optional:
                continue
            number = as_number(value)
            if number is None:
                msg = f"{call}: {name} must be a number"
                raise TypeError(msg)
            if number not in ranges[name]:
                msg = f"{call}: {name} must be in {ranges[name].text}"
                raise ValueError(msg)
            bound.arguments[name] = number
        try:
            result = function(*bound.args, **bound.kwargs)
            held = all(map(math.isfinite, result.values())) and abs(result.get("beta", 0.0)) < 1.0
        except ValueError as error:
            msg = f"{call}: {error}"
            raise ValueError(msg) from None
        except ZeroDivisionError:
            held = False
        if not held:
            msg = f"{call}: float64 cannot hold the result; take arguments that are farther from the edge of the domain"
            raise ValueError(msg)
        return result

    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]  # help() shows names and defaults
    checked.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
    return checked


def _need(condition: bool, domain: str, way_out: str) -> None:
    if not condition:
        msg = f"must have {domain}; {way_out}"
        raise ValueError(msg)


@_conversion
def qhm_from_heavy_ball(lr: Rate, beta: SignedBeta) -> Hyper:
    """QHM that is heavy-ball momentum, ``v <- beta v + g``, ``theta <- theta - lr v``.

    ``lr / (1 - beta)``, ``beta``, ``nu = 1``.

    Parameters
    ----------
    lr, beta
        As in ``momentum``.

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.
    """
    return {"lr": lr / (1.0 - beta), "beta": beta, "nu": 1.0}


@_conversion
def qhm_to_heavy_ball(lr: Rate, beta: SignedBeta, nu: Real) -> Hyper:
    """Heavy-ball momentum that is this QHM: ``lr (1 - beta)``, ``beta``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``; nu = 1.

    Returns
    -------
    dict
        ``lr`` and ``beta`` of ``momentum``.
    """
    _need(nu == 1.0, "nu = 1", "any other QHM is a synthesized Nesterov method: see qhm_to_synthesized_nesterov")
    return {"lr": lr * (1.0 - beta), "beta": beta}


@_conversion
def qhm_from_nesterov(lr: Rate, beta: SignedBeta) -> Hyper:
    """QHM that is Nesterov's accelerated gradient, ``v <- beta v + g``, ``theta <- theta - lr (g + beta v)``.

    ``lr / (1 - beta)``, ``beta``, ``nu = beta``. Theta is the look-ahead point.

    Parameters
    ----------
    lr, beta
        As in ``nesterov`` and in torch's SGD(nesterov=True).

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.
    """
    return {"lr": lr / (1.0 - beta), "beta": beta, "nu": beta}


@_conversion
def qhm_to_nesterov(lr: Rate, beta: SignedBeta, nu: Real) -> Hyper:
    """Nesterov's accelerated gradient that is this QHM: ``lr (1 - beta)``, ``beta``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``; nu = beta.

    Returns
    -------
    dict
        ``lr`` and ``beta`` of ``nesterov``.
    """
    _need(nu == beta, "nu = beta", "any other QHM is a synthesized Nesterov method: see qhm_to_synthesized_nesterov")
    return {"lr": lr * (1.0 - beta), "beta": beta}


@_conversion
def qhm_from_pid(kp: Real, ki: Positive, kd: Real) -> Hyper:
    """QHM that is a PID controller with a smoothed derivative.

    With the error ``e = -g``, and ``v <- beta v + (1 - beta) (e - e_before)``, the controller sets
    ``theta = theta_0 + kp e + ki (sum of all e) + kd v``, where ``beta = kd / (kd - kp)``; no other beta makes it a QHM.

    ``lr = ki``, ``beta = kd / (kd - kp)``, ``nu = kp^2 / (ki kd)``.

    Parameters
    ----------
    kp, ki, kd
        Gains of the proportional, integral and derivative terms: kd != 0 and kp / kd < 0 or > 2, which is |beta| < 1.

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.

    References
    ----------
    Recht, "The best things in life are model free", argmin.net, 2018.
    """
    inside = kd != 0.0 and (kp / kd < 0.0 or kp / kd > 2.0)
    _need(inside, "kd != 0 and kp/kd < 0 or > 2", "kp = kd = 0 is sgd with lr = ki; no other controller is a stable QHM")
    return {"lr": ki, "beta": kd / (kd - kp), "nu": kp * kp / (ki * kd)}


@_conversion
def qhm_to_pid(lr: Rate, beta: SignedBeta, nu: Real) -> Hyper:
    """PID controller that is this QHM; for its form see ``qhm_from_pid``.

    ``kp = -lr nu beta / (1 - beta)``, ``ki = lr``, ``kd = lr nu (beta / (1 - beta))^2``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``. Where one of them is 0 the controller loses terms, and there is no way back.

    Returns
    -------
    dict
        ``kp``, ``ki`` and ``kd``.
    """
    odds = beta / (1.0 - beta)
    return {"kp": -lr * nu * odds, "ki": lr, "kd": lr * nu * odds * odds}


@_conversion
def qhm_from_synthesized_nesterov(lr: Rate, beta1: SignedBeta, beta2: Real) -> Hyper:
    """QHM that is a synthesized Nesterov method.

    ``x_next = x - lr g(theta) + beta1 (x - x_before)``, ``theta = x + beta2 (x - x_before)``.

    ``lr / (1 - beta1)``, ``beta = beta1``, ``nu = 1 - (1 - beta1) beta2 / beta1``.

    Parameters
    ----------
    lr
        Step size.
    beta1, beta2
        Momentum of the iterates, not 0, and of the point where the gradient is taken: 0 is heavy ball, beta1 is Nesterov.

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.

    References
    ----------
    Lessard, Recht and Packard, "Analysis and design of optimization algorithms via integral quadratic constraints", SIAM
    Journal on Optimization 26(1), 2016, arXiv:1408.3595, section 6.
    """
    _need(beta1 != 0.0, "beta1 != 0", "beta1 = beta2 = 0 is sgd with the same lr; with another beta2 the method is no QHM")
    return {"lr": lr / (1.0 - beta1), "beta": beta1, "nu": 1.0 - (1.0 - beta1) * beta2 / beta1}


@_conversion
def qhm_to_synthesized_nesterov(lr: Rate, beta: SignedBeta, nu: Real) -> Hyper:
    """Synthesized Nesterov method that is this QHM; for its form see ``qhm_from_synthesized_nesterov``.

    ``lr (1 - beta)``, ``beta1 = beta``, ``beta2 = (1 - nu) beta / (1 - beta)``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``. Where beta = 0 the method is plain gradient descent, and there is no way back.

    Returns
    -------
    dict
        ``lr``, ``beta1`` and ``beta2``.
    """
    return {"lr": lr * (1.0 - beta), "beta1": beta, "beta2": (1.0 - nu) * beta / (1.0 - beta)}


@_conversion
def qhm_from_robust_momentum(L: Positive, kappa: Condition, rho: Rho = None) -> Hyper:
    """QHM that is the robust momentum method.

    A synthesized Nesterov method with ``lr = kappa (1 - rho)^2 (1 + rho) / L``, ``beta1 = kappa rho^3 / (kappa - 1)`` and
    ``beta2 = rho^3 / ((kappa - 1) (1 - rho)^2 (1 + rho))``.

    Parameters
    ----------
    L
        Lipschitz constant of the gradient.
    kappa
        Condition number.
    rho
        Rate of convergence aimed at, with kappa rho^3 < kappa - 1. The authors' range goes from 1 - 1/sqrt(kappa), the default
        and the triple momentum method, to 1 - 1/kappa, gradient descent with lr = 1/L.

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.

    References
    ----------
    Cyrus, Hu, Van Scoy and Lessard, "A robust accelerated optimization algorithm for strongly convex functions", ACC 2018,
    arXiv:1710.04753.
    """
    if rho is None:
        rho = 1.0 - 1.0 / math.sqrt(kappa)
    beta = kappa * rho * rho * rho / (kappa - 1.0)
    _need(beta < 1.0, "kappa rho^3 < kappa - 1", "take rho between 1 - 1/sqrt(kappa) and 1 - 1/kappa")
    ratio = kappa * (1.0 - rho) * (1.0 - rho) * (1.0 + rho)  # beta1 / beta2
    return {"lr": ratio / (L * (1.0 - beta)), "beta": beta, "nu": 1.0 - (1.0 - beta) / ratio}


@_conversion
def qhm_to_robust_momentum(lr: Positive, beta: Inner, nu: RightOpen) -> Hyper:
    """Robust momentum method that is this QHM; for its form see ``qhm_from_robust_momentum``.

    ``L = 1 / (lr (1 - nu))``. With ``beta2 = (1 - nu) beta / (1 - beta)``, rho is the root of
    ``beta - rho^3 = beta2 (1 - rho)^2 (1 + rho)`` between sqrt(beta) and 1, and ``kappa = beta / (beta - rho^3)``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``. For nu = 0, plain gradient descent, beta does not matter to the steps but decides kappa.

    Returns
    -------
    dict
        ``L``, ``kappa`` and ``rho``.
    """
    beta2 = (1.0 - nu) * beta / (1.0 - beta)
    # The root, as s = 1 - rho, which keeps its digits where kappa is large. Left side less right side is negative at rho = 1, and
    # nu beta (1 - sqrt(beta)) at rho = sqrt(beta), so not negative there; as rho grows it rises, then falls: one root lies between.
    # A smaller rho may be a root too, but it lies outside the authors' range.
    below, s = 0.0, (1.0 - beta) / (1.0 + math.sqrt(beta))
    while (middle := (below + s) / 2) not in (below, s):
        if middle * (3.0 - 3.0 * middle + middle * middle) - (1.0 - beta) < beta2 * middle * middle * (2.0 - middle):
            below = middle
        else:
            s = middle
    return {"L": 1.0 / (lr * (1.0 - nu)), "kappa": (1.0 - beta) / ((1.0 - nu) * s * s * (2.0 - s)), "rho": 1.0 - s}


@_conversion
def qhm_from_triple_momentum(L: Positive, kappa: Condition) -> Hyper:
    """QHM that is the triple momentum method.

    A synthesized Nesterov method with ``rho = 1 - 1/sqrt(kappa)``, ``lr = (1 + rho) / L``, ``beta1 = rho^2 / (2 - rho)`` and
    ``beta2 = rho^2 / ((1 + rho) (2 - rho))``. It differs in what it returns at the end, a point beyond the last iterate.

    Parameters
    ----------
    L
        Lipschitz constant of the gradient.
    kappa
        Condition number.

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.

    References
    ----------
    Van Scoy, Freeman and Lynch, "The fastest known globally convergent first-order method for minimizing strongly convex
    functions", IEEE Control Systems Letters 2(1), 2018.
    """
    rho = 1.0 - 1.0 / math.sqrt(kappa)
    beta = rho * rho / (2.0 - rho)
    return {"lr": (1.0 + rho) / (L * (1.0 - beta)), "beta": beta, "nu": _triple_nu(rho, beta)}


@_conversion
def qhm_to_triple_momentum(lr: Positive, beta: Inner, nu: Real) -> Hyper:
    """Triple momentum method that is this QHM; for its form see ``qhm_from_triple_momentum``.

    rho is the positive root of ``rho^2 + beta rho - 2 beta``, ``kappa = 1 / (1 - rho)^2`` and
    ``L = (1 + rho) / (lr (1 - beta))``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``; nu = (rho + beta) / (1 + rho), but for the rounding of ``qhm_from_triple_momentum``.

    Returns
    -------
    dict
        ``L`` and ``kappa``.
    """
    root = math.sqrt(beta * (beta + 8.0))
    rho = 4.0 * beta / (beta + root)
    expected = _triple_nu(rho, beta)
    # Relative errors, in units of 2^-53: beta is 3 off what its rho gave; from it rho is found within 1.5, half of that, and 4
    # of its own operations, and nu within 11.25 by three more; the nu received had 3 of its own. Together below 16.
    way_out = f"for this beta it has nu = {expected!r}; another nu is a robust momentum method: see qhm_to_robust_momentum"
    _need(abs(nu - expected) <= 2.0**-49 * expected, "the nu of the triple momentum method", way_out)
    gap = 8.0 * beta * (1.0 - beta) / ((beta + root) * (3.0 * beta + root))  # 1 - rho, without cancellation
    return {"L": (1.0 + rho) / (lr * (1.0 - beta)), "kappa": 1.0 / (gap * gap)}


def _triple_nu(rho: float, beta: float) -> float:
    return (rho + beta) / (1.0 + rho)


@_conversion
def qhm_from_accsgd(delta: Rate, kappa: Positive, xi: Positive, eps: LeftOpen = 0.7) -> Hyper:
    """QHM that is AccSGD.

    ``lr = delta eps (1 + xi) / (1 + eps)``, ``beta = (kappa - eps^2 xi) / (kappa + eps xi)``,
    ``nu = (eps xi - 1) / (eps (1 + xi))``.

    Parameters
    ----------
    delta
        Short step.
    kappa
        Ratio of the long step to the short one.
    xi
        Statistical advantage. The authors take 1 <= xi <= sqrt(kappa), where AccSGD never is Nesterov's method.
    eps
        The authors' "small constant".

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.

    References
    ----------
    Kidambi, Netrapalli, Jain and Kakade, "On the insufficiency of existing momentum schemes for stochastic optimization", ICLR
    2018, arXiv:1803.05591.
    """
    return {
        "lr": delta * eps * (1.0 + xi) / (1.0 + eps),
        "beta": (kappa - eps * eps * xi) / (kappa + eps * xi),
        "nu": (eps * xi - 1.0) / (eps * (1.0 + xi)),
    }


@_conversion
def qhm_to_accsgd(lr: Rate, beta: SignedBeta, nu: Real, eps: LeftOpen = 0.7) -> Hyper:
    """AccSGD that is this QHM; for its form see ``qhm_from_accsgd``.

    ``xi = (1 + nu eps) / (eps (1 - nu))``, ``kappa = eps xi (eps + beta) / (1 - beta)``, ``delta = lr (1 + eps) / (eps (1 + xi))``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``; beta > -eps and -1/eps < nu < 1. The xi may lie beyond the authors' range, up to sqrt(kappa).
    eps
        AccSGD's "small constant": any gives the same steps.

    Returns
    -------
    dict
        ``delta``, ``kappa``, ``xi`` and ``eps``.
    """
    _need(nu * eps > -1.0 and nu < 1.0, "-1/eps < nu < 1", "nu = 1 is heavy ball: see qhm_to_heavy_ball")
    _need(beta > -eps, "beta > -eps", "take a larger eps, up to 1")
    xi = (1.0 + nu * eps) / (eps * (1.0 - nu))
    kappa = eps * xi * (eps + beta) / (1.0 - beta)
    return {"delta": lr * (1.0 + eps) / (eps * (1.0 + xi)), "kappa": kappa, "xi": xi, "eps": eps}


@_conversion
def qhm_from_two_state(h: Real, k: Real, l: Real, m: Real, q: Real, z: Real) -> Hyper:
    """QHM that is a linear method with one array of state beside theta.

    ``a <- h a + k theta + l g`` and, from the old values, ``theta <- m a + q theta + z g``. It is a QHM if it stays at rest
    where g is 0, ``(1 - h) (1 - q) = k m``, and starts at rest, with ``(1 - h) a = k theta``.

    ``beta = h + q - 1``, ``lr = -(l m + z (1 - h)) / (1 - beta)``, ``nu = (l m - z (1 - q)) / (beta (l m + z (1 - h)))``: what
    matches the response of theta to one gradient. The authors' formulas come to the same lr and beta, but to the same nu only
    where q = 1.

    Parameters
    ----------
    h, k, l, m, q, z
        With (1 - h) (1 - q) = k m, but for the rounding of the numbers given; |beta| < 1, beta != 0 and lr > 0.

    Returns
    -------
    dict
        ``lr``, ``beta`` and ``nu`` of ``qhm``.
    """
    rest, coupling = (1.0 - h) * (1.0 - q), k * m
    # With each number given within 2^-53 of what was meant, and each operation here too; doubled, which covers second orders.
    rounding = 2.0**-52 * (abs(h * (1.0 - q)) + abs(q * (1.0 - h)) + 3 * abs(rest) + 3 * abs(coupling))
    _need(abs(rest - coupling) <= rounding, "(1 - h) (1 - q) = k m", "any other method moves where the gradient is 0; no QHM does")
    beta = h - (1.0 - q)  # all of h's digits where q = 1
    _need(-1.0 < beta < 1.0, "h + q between 0 and 2", "any other method is unstable; no QHM with beta in (-1, 1) is")
    _need(beta != 0.0, "h + q != 1", "such a method remembers one gradient at most; sgd is the only QHM that does")
    total = l * m + z * (1.0 - h)
    _need(total < 0.0, "l m + z (1 - h) < 0", "it is -lr (1 - beta), and lr is positive")
    return {"lr": total / (beta - 1.0), "beta": beta, "nu": (l * m - z * (1.0 - q)) / (beta * total)}


@_conversion
def qhm_to_two_state(lr: Rate, beta: SignedBeta, nu: Real) -> Hyper:
    """Two-state method that is this QHM; for its form see ``qhm_from_two_state``. Its ``a`` is QHM's average.

    ``h = beta``, ``k = 0``, ``l = 1 - beta``, ``m = -lr beta nu``, ``q = 1``, ``z = -lr (1 - nu beta)``.

    Parameters
    ----------
    lr, beta, nu
        As in ``qhm``. Where lr or beta is 0 there is no way back.

    Returns
    -------
    dict
        ``h``, ``k``, ``l``, ``m``, ``q`` and ``z``.
    """
    return {"h": beta, "k": 0.0, "l": 1.0 - beta, "m": -lr * beta * nu, "q": 1.0, "z": -lr * (1.0 - nu * beta)}


@_conversion
def qhadam_from_nadam(lr: Rate, beta1: Beta, beta2: Beta, eps: Epsilon) -> Hyper:
    """QHAdam that is NAdam with constant momentum, but for bias correction: ``nu1 = beta1``, ``nu2 = 1``.

    Of NAdam's ``beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t)`` QHAdam takes ``beta1 m / (1 - beta1^t) +
    (1 - beta1) g``; the two meet as t grows.

    Parameters
    ----------
    lr, beta1, beta2, eps
        As in NAdam.

    Returns
    -------
    dict
        ``lr``, ``beta1``, ``beta2``, ``nu1``, ``nu2`` and ``eps`` of ``qhadam``.
    """
    return {"lr": lr, "beta1": beta1, "beta2": beta2, "nu1": beta1, "nu2": 1.0, "eps": eps}


def aggmo_betas(a: float = 0.1, k: int = 3) -> tuple[float, ...]:
    """The paper's exponential form of the decays, ``1 - a**i`` for i = 0 ... k - 1.

    Parameters
    ----------
    a
        In (0, 1): each decay is that much nearer to 1 than the one before.
    k
        How many, 1 or more.

    Returns
    -------
    tuple of float
        For ``aggmo_init`` and ``aggmo_step``. The default is (0.0, 0.9, 0.99).

    Raises
    ------
    TypeError, ValueError
        ``a`` or ``k`` is no number, or out of its range; a decay that is 1 once rounded.
    """
    if not isinstance(k, int) or isinstance(k, bool):
        msg = f"aggmo_betas: k must be an int, got {k!r}"
        raise TypeError(msg)
    check_hyper("aggmo_betas", "a", a, Interval("(0, 1)"), DOUBLE)
    if k < 1:
        msg = f"aggmo_betas: k must be 1 or more, got {k!r}"
        raise ValueError(msg)
    betas = tuple(1.0 - math.prod([a] * i) for i in range(k))
    check_hyper("aggmo_betas", "the result", betas, Interval("[0, 1)", sequence=True), DOUBLE)
    return betas

"""The table of the experiments: what each reproduces, where that was published, and which command does it."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from xopt.conformance.reproductions.outcome import Outcome
from xopt.conformance.workers import cores

ADEMAMIX = "Pagliardini, Ablin and Grangier 2024, arXiv:2409.03137"
AGGMO = "Lucas, Sun, Zemel and Grosse 2018, arXiv:1804.00325"
QHM = "Ma and Yarats 2018, arXiv:1810.06801"
THEORY = "Polyak 1964; Lessard, Recht and Packard 2016, arXiv:1408.3595; Van Scoy, Freeman and Lynch 2018"
PACKAGES = ("numpy", "torch", "scikit-learn", "mpmath")
"""Whose versions an outcome names, where the experiment uses them."""


@dataclass(frozen=True)
class Experiment:
    name: str  # of the command
    module: str  # in this folder; its ``run(seeds, steps=...)`` gives the outcome
    title: str
    paper: str
    place: str  # in it
    published: str  # in a sentence
    seconds: int  # on two cores, x86_64, with the default of seeds
    packages: tuple[str, ...] = ("numpy",)
    seeds: int = 3

    @property
    def command(self) -> str:
        return f"xopt reproduce {self.name}"


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "rosenbrock",
            "rosenbrock",
            "Adam and AdEMAMix on Rosenbrock's function",
            ADEMAMIX,
            "Fig. 2",
            "a long memory makes Adam oscillate; AdEMAMix is fast, does not oscillate, and reaches better solutions",
            15,
        ),
        Experiment(
            "ademamix-toys",
            "toys",
            "How old gradients are, AdEMAMix's warm-up, and optax's notebook",
            ADEMAMIX,
            "section 3, Fig. 3a, Fig. 31; optax's notebook rosenbrock_ademamix",
            "half of the weight is on 6 gradients for beta = 0.9 and on 6,930 for 0.9999; the values that the notebook prints",
            10,
        ),
        Experiment(
            "damping",
            "damping",
            "AggMo's passive damping on quadratics",
            AGGMO,
            "Fig. 1, Fig. 3",
            "AggMo damps oscillations at every curvature, and its rate is between those of momentum 0.9 and 0.99",
            3,
        ),
        Experiment(
            "autoencoder",
            "autoencoder",
            "AggMo's autoencoder, and QHM's",
            f"{AGGMO}; {QHM}",
            "Table 1, section 7.1; QHM's appendix H",
            "training loss 1.39 with AggMo, 1.44 Adam, 1.52 Nesterov, 2.51 momentum; QHM converted from AggMo is better still",
            180,
            ("numpy", "scikit-learn"),
        ),
        Experiment(
            "quasi-hyperbolic",
            "quasi_hyperbolic",
            "The settings of QHM and QHAdam",
            QHM,
            "section 4, appendices A, F and H",
            "28 for AggMo's effective step, 1/19 of the variance, and the tight bound of QHAdam's and Adam's steps",
            3,
        ),
        Experiment(
            "logistic",
            "logistic",
            "QHM's sweep on a logistic regression",
            QHM,
            "section 5, parameter sweep of Logistic-EMNIST",
            "nu = 0.7, beta = 0.999 is better than Nesterov's momentum with 0.9",
            60,
            ("numpy", "scikit-learn"),
        ),
        Experiment(
            "theory",
            "theory",
            "Rates of convergence that theory states",
            THEORY,
            "Lessard's table 1",
            "the rates of gradient descent, momentum, Nesterov's and triple momentum at their best settings",
            2,
        ),
        Experiment(
            "forgetting",
            "forgetting",
            "How fast a batch is forgotten",
            ADEMAMIX,
            "Fig. 4, section 4.1",
            "AdamW forgets a batch faster than AdEMAMix",
            230,
            ("numpy", "torch", "mpmath"),
        ),
        Experiment(
            "switch",
            "switch",
            "From AdamW to AdEMAMix in mid-run",
            ADEMAMIX,
            "Fig. 5b, section 4.1",
            "the switch improves upon AdamW, the more the earlier",
            220,
            ("numpy", "torch", "mpmath"),
        ),
        Experiment(
            "language",
            "language",
            "All rules on a small language model",
            ADEMAMIX,
            "section 4.1, appendices C.1.5 and C.1.6",
            "AdEMAMix is better than AdamW; no beta1 above 0.9 is better than 0.9; a shorter slow average is better for short runs",
            160,  # each rule
            ("numpy", "torch", "mpmath"),
        ),
    )
}


def reproduce(
    experiment: Experiment, seeds: int, steps: int | None, rules: Sequence[str] = (), joined: Sequence[Outcome] = ()
) -> Outcome:
    """Runs an experiment; says what ran, when and where.

    Parameters
    ----------
    seeds
        How many.
    steps
        Of each run, instead of those that the experiment has; None for those.
    rules
        Of the experiment ``language``: the settings to measure.
    joined
        Of the same one: outcomes whose settings are taken over.

    Raises
    ------
    ModuleNotFoundError, ValueError
        For a package that is missing or has another text, and rules that cannot be set so.
    """
    since = time.perf_counter()
    module = import_module(f"xopt.conformance.reproductions.{experiment.module}")
    more = {} if steps is None else {"steps": steps}
    if experiment.name == "language":
        more |= {"rules": rules, "joined": joined}  # type: ignore[dict-item]
    outcome: Outcome = module.run(seeds, **more)
    outcome.about = {
        "date": datetime.now().date().isoformat(),
        "machine": f"{platform.machine()}, {cores()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {name: found for name in experiment.packages if (found := _version(name))},
        "seeds": seeds,
        "steps": steps,
        "seconds": round(time.perf_counter() - since + sum(one.about["seconds"] for one in joined), 1),
    } | outcome.about
    return outcome


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

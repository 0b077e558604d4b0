"""Argument checks. A range is one object: the same Interval tests a value and writes itself into the message."""

import difflib
import math
import numbers
import reprlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any

from xopt.operations import has_dtype, is_array, is_subclass
from xopt.untraced import untraced


@dataclass(frozen=True)
class Interval:
    """A range of real numbers such as ``Interval("[0, 1)")``; its text is what error messages show."""

    text: str
    sequence: bool = False
    optional: bool = False
    divisor: bool = False
    """A positive value must stay a normal number when it is rounded: it keeps a division away from zero."""

    @property
    def words(self) -> str:
        """What a value may be."""
        return f"{'numbers ' if self.sequence else ''}in {self.text}{' or None' if self.optional else ''}"

    @property
    def low(self) -> float:
        return float(self.text[1:-1].split(",")[0])

    @property
    def high(self) -> float:
        return float(self.text[1:-1].split(",")[1])

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.text[0] == "[" else value > self.low
        below = value <= self.high if self.text[-1] == "]" else value < self.high
        return above and below

    @lru_cache(maxsize=256)  # noqa: B019 - intervals are module constants, a handful in all
    def usable(self, precision: "Precision") -> tuple[float, float]:
        """The smallest and the largest float64 that still lie in the range once rounded to ``precision``."""
        low, high = self.low, self.high
        if self.text[0] == "(":
            low = -precision.largest if low == -math.inf else math.nextafter(low * (1 - precision.eps / 4), math.inf)
        if self.text[-1] == ")":
            high = precision.largest if high == math.inf else math.nextafter(high * (1 - precision.eps / 4), -math.inf)
        return low, high


@dataclass(frozen=True)
class Precision:
    """What a check must know of a floating-point dtype."""

    name: str
    eps: float
    largest: float
    smallest_normal: float


DOUBLE = Precision("float64", sys.float_info.epsilon, sys.float_info.max, sys.float_info.min)

Rate = Annotated[Any, Interval("[0, inf)")]
"""A non-negative, finite number."""
Real = Annotated[Any, Interval("(-inf, inf)")]
"""A finite number."""
Beta = Annotated[Any, Interval("[0, 1)")]
"""The decay of an average: 0 forgets at once, near 1 remembers for about 1/(1 - beta) steps."""
SignedBeta = Annotated[Any, Interval("(-1, 1)")]
"""The decay of an average whose memory may alternate in sign."""
Share = Annotated[Any, Interval("[0, 1]")]
"""A share between 0 and 1, both included."""
Epsilon = Annotated[Any, Interval("[0, inf)", divisor=True)]
"""Added to a denominator. 0 asks for no guard: 0/0 is then NaN, by IEEE rules."""
Steps = Annotated[Any, Interval("[0, inf)", optional=True)]
"""A number of steps; None or 0 is off."""
Betas = Annotated[Any, Interval("[0, 1)", sequence=True)]
"""A sequence of one or more decays."""


ALSO_CALLED = {"betas": ("beta1", "beta2"), "momentum": ("beta",), "nus": ("nu1", "nu2"), "step_size": ("lr",)}
"""Hyperparameters as other libraries call them."""


def nearest_names(name: str, known: Sequence[str]) -> list[str]:
    """The hyperparameters that may be meant by an unknown name."""
    other = ALSO_CALLED.get(name, ())
    if other and all(one in known for one in other):
        return list(other)
    nearest = [k for k in known if _initials(k) == name or k == _initials(name)]
    return nearest or ([] if other else difflib.get_close_matches(name, known, n=1, cutoff=0.5))


def _initials(name: str) -> str:
    """learning_rate is lr, and wd is weight_decay."""
    return "".join(word[:1] for word in name.split("_"))


class Later:
    """Words that are made where an error says them: the path of a leaf takes as long as its tree is large."""

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __str__(self) -> str:
        return self._make()


def check_hyper(function: str, name: str | Later, value: Any, interval: Interval, precision: Precision) -> None:
    """Checks one hyperparameter: a real number in ``interval``, also after rounding to ``precision``.

    Raises TypeError for what is not a number (bool included) and ValueError for NaN and for what is out of range.
    A 0-d array is checked by its value, unless a compiler traces it and it has none yet.
    """
    if interval.sequence:
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) == 0:
            msg = f"{function}: {name} must be a sequence of one or more numbers in {interval.text}, got {shown(value)}"
            raise TypeError(msg)
        for position, item in enumerate(value):
            _check_number(function, Later(partial("{}[{}]".format, name, position)), item, interval, precision)
    elif not (interval.optional and value is None):
        _check_number(function, name, value, interval, precision)


def _check_number(function: str, name: str | Later, value: Any, interval: Interval, precision: Precision) -> None:
    number = as_number(value)
    if number is None:
        if _is_real_scalar(value):
            return  # traced: its value is not known
        msg = f"{function}: {name} must be a number or a 0-d array, got {shown(value)}"
        raise TypeError(msg)
    if is_subclass(value):
        msg = f"{function}: {name} is a {type(value).__name__}, of which only the number would be used; pass float({name})"
        raise TypeError(msg)
    if number not in interval:
        msg = f"{function}: {name} must be in {interval.text}, got {shown(value)}"
        raise ValueError(msg)
    low, high = interval.usable(precision)
    if not low <= number <= high:
        usable = low if number < low else high
        lost = f"rounds out of {interval.text} in {precision.name}"
        msg = f"{function}: {name}={shown(value)} {lost}; the nearest usable value is {usable!r}"
        raise ValueError(msg)
    if interval.divisor and 0 < number < precision.smallest_normal:
        msg = (
            f"{function}: {name}={shown(value)} is lost in {precision.name}, where it rounds or is flushed to 0; "
            f"the smallest usable value is {precision.smallest_normal!r}, or 0 for none"
        )
        raise ValueError(msg)


def as_number(value: Any) -> float | None:
    """The float that ``value`` holds, or None where it holds none (not a real number, bool, a time, or traced).

    What is too large for a float is infinite; -0.0 is 0.0, as 0 is.
    """
    if is_no_number(value):
        return None
    if isinstance(value, numbers.Real) or _is_real_scalar(value):
        try:
            if hasattr(value, "detach"):  # torch warns of what requires a gradient
                value = value.detach()
            return float(value) + 0.0
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        except Exception:  # noqa: BLE001 - each tracer refuses with an exception of its own
            return None
    return None


def is_no_number(value: Any) -> bool:
    """Whether ``value`` is a bool, or a time of NumPy's, which is an integer to Python as well."""
    return type(value).__name__ in ("bool", "timedelta64")


@untraced
def shown(value: Any) -> str:
    """A value as an error message shows it, in few words."""
    if is_array(value) and value.ndim:
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    try:
        return _SHORT.repr(value)
    except ValueError:  # an int of more digits than Python prints
        return f"an int of {value.bit_length()} bits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlong = 60


def _is_real_scalar(value: Any) -> bool:
    return is_array(value) and value.ndim == 0 and has_dtype(value, ("real floating", "integral"))

"""What a target answers, read with care: it may be a program that answers anything."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.thirdparty.sandbox import GarbageError, printable

Leaves = list[Any]
Answer = Mapping[str, Any]


class About(NamedTuple):
    """What a target says of itself."""

    name: str = ""
    library: str = ""
    version: str = ""
    arguments: Mapping[str, Any] = MappingProxyType({})  # what it can be given, and the defaults
    dtypes: tuple[str, ...] = ("float64",)
    leaves: bool = False  # several at once
    instances: bool = False  # several optimizers beside each other
    groups: bool = False  # with other hyperparameters for some leaves
    changes: bool = False  # a learning rate that changes from step to step
    resumes: bool = False  # is saved and loaded
    state: bool = False  # can be read
    idles: bool = False  # takes many steps of nothing at once


class State(NamedTuple):
    """What can be read of a target's memory, by name."""

    arrays: dict[str, Leaves]  # one for each leaf, None where a leaf has none
    dtypes: dict[str, str]


def about_of(answer: Answer) -> About:
    """Raises GarbageError where the answer to ``describe`` has something of another type."""
    arguments, dtypes = answer.get("arguments", {}), answer.get("dtypes", ["float64"])
    if not isinstance(arguments, dict):
        msg = "the answer to 'describe' has arguments that are no object: names with their defaults"
        raise GarbageError(msg)
    if not isinstance(dtypes, list) or not all(isinstance(one, str) for one in dtypes):
        msg = "the answer to 'describe' has dtypes that are no list of names, as [\"float64\"]"
        raise GarbageError(msg)
    name, library, version = (printable(str(answer.get(field) or "")) for field in ("name", "library", "version"))
    claims = {field: bool(answer.get(field)) for field in About._fields[5:]}
    return About(name, library, version, arguments, tuple(map(printable, dtypes)), **claims)


def leaves_of(answer: Answer, shapes: Sequence[Sequence[int]], steps: int) -> Leaves:
    """The parameters. Raises GarbageError where they are none, or of other shapes."""
    params, now = answer.get("params"), answer.get("shapes", shapes)
    if not isinstance(params, list) or not all(isinstance(leaf, list) for leaf in params):
        msg = "the answer to 'step' has no params: a list of numbers for each leaf"
        raise GarbageError(msg)
    if now != shapes:
        msg = f"after step {steps} the parameters have shapes {now} in place of {shapes}"
        raise GarbageError(msg)
    try:
        return [_array(leaf).reshape(shape) for leaf, shape in zip(params, shapes, strict=True)]
    except (ValueError, TypeError, OverflowError):
        sizes = [len(leaf) for leaf in params]
        msg = f"after step {steps} the leaves have {sizes} numbers, or what is none, where their shapes are {shapes}"
        raise GarbageError(msg) from None


def wrote_of(answer: Answer) -> list[str]:
    """The inputs that a step wrote to."""
    wrote = answer.get("wrote") or []
    if not isinstance(wrote, list):
        msg = "the answer to 'step' has a 'wrote' that is no list of names"
        raise GarbageError(msg)
    return [printable(str(one)) for one in wrote]


def state_of(answer: Answer) -> State:
    """Raises GarbageError where there is none."""
    state, dtypes = answer.get("state"), answer.get("dtypes") or {}
    try:
        arrays = {printable(name): [None if x is None else _array(x) for x in leaves] for name, leaves in state.items()}  # type: ignore[union-attr]
        return State(arrays, {printable(name): printable(str(dtype)) for name, dtype in dtypes.items()})
    except (AttributeError, TypeError, ValueError, OverflowError):
        msg = "the answer to 'state' has no state: by name, a list of numbers for each leaf, and the dtypes by name"
        raise GarbageError(msg) from None


def _array(numbers: Any) -> Any:
    """One axis of numbers; null is NaN, as JavaScript writes it."""
    if not isinstance(numbers, list) or not {type(x) for x in numbers} <= {int, float, type(None)}:
        raise TypeError
    return np.array(numbers, np.float64)

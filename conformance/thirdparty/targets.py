"""What a target's name means: ``torch:torch.optim.AdamW``, ``cmd:./program``."""

import importlib
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from xopt.backends.names import nearest, unknown

KINDS = {
    "torch": "a class of torch's form, as torch:torch.optim.AdamW",
    "optax": "a function that makes a gradient transformation, as optax:optax.adamw",
    "keras": "a class of Keras's form, as keras:keras.optimizers.Lion",
    "py": "anything in Python, as py:package.module:factory",
    "cmd": "a program that speaks JSON lines, as cmd:./program",
}
"""What stands before the colon, and what may stand behind it."""


class TargetError(ValueError):
    """There is no such target, or it is no optimizer; the message says what is meant."""


class Target(NamedTuple):
    """Where an optimizer is found."""

    kind: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.path}"

    @property
    def command(self) -> list[str]:
        """Of a program: the words of its command line."""
        return shlex.split(self.path)


def name_of(target: str | Callable[..., Any]) -> str:
    """What a target is called: its name, or that of a callable."""
    return target if isinstance(target, str) else getattr(target, "__qualname__", repr(target))


def parsed(text: str) -> Target:
    """Reads a target's name.

    Raises
    ------
    TargetError
        For a name without a kind, or of a kind that there is not.
    """
    kind, colon, path = text.partition(":")
    if not colon or not path.strip():
        ways = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
        msg = f"{text!r} names no target: put what kind it is before a colon ({ways})"
        raise TargetError(msg)
    if kind not in KINDS:
        raise TargetError(unknown("kind of target", kind, KINDS))
    return Target(kind, path.strip())


def found(target: Target) -> Any:
    """The object that a target of Python names.

    Raises
    ------
    TargetError
        Where a module cannot be imported, or has no such name.
    """
    if ":" in target.path:
        module, _, names = target.path.partition(":")
    else:
        module, _, names = target.path.rpartition(".")
        module, names = _split(module or names, names if module else "")
    try:
        thing: Any = importlib.import_module(module)
    except ImportError as error:
        msg = f"{target.name}: {module} cannot be imported here ({error}); install it, or run from the folder that has it"
        raise TargetError(msg) from error
    for name in names.split(".") if names else ():
        if not hasattr(thing, name):
            near = nearest(name, [x for x in dir(thing) if not x.startswith("_")])
            msg = f"{target.name}: {thing.__name__} has no {name!r}{f'; did you mean {near}?' if near else ''}"
            raise TargetError(msg)
        thing = getattr(thing, name)
    if not callable(thing):
        msg = f"{target.name} is {type(thing).__name__}, which cannot be called: name a class or a function"
        raise TargetError(msg)
    return thing


def _split(module: str, names: str) -> tuple[str, str]:
    """``torch.optim.sgd.SGD`` as the longest module that there is, and the names in it."""
    while "." in module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module + ".").startswith(error.name + "."):
                break  # it is there, and lacks something else
            module, _, last = module.rpartition(".")
            names = f"{last}.{names}"
        else:
            break
    return module, names

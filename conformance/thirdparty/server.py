"""Answers questions about one optimizer: in this process, or at the end of a pipe, a JSON object a line.

The questions are those that a program behind ``cmd:`` answers too. Each has a ``do``:

- ``describe``: what it is and can do, as ``About`` has it.
- ``start`` with ``params`` (a list of numbers for each leaf), ``shapes``, ``dtype`` and ``given`` (the arguments; a list of them
  where leaves differ): a new optimizer in place of the old one. ``of`` names one of several optimizers that live side by side.
- ``step`` with ``grads`` and, where an argument changes, ``changed``: the answer has the new ``params``.
- ``idle`` with ``steps`` and ``seconds``: so many steps of ``grads``, or as many as there is time for: the answer says how many.
- ``state``: its memory, by name, a list of numbers for each leaf, and the dtypes.
- ``resume``: a new optimizer, which goes on from what the old one has saved.

An answer with an ``error`` says why there is no other.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

import numpy as np

from xopt.conformance.thirdparty.adapters import Adapter, takes_any
from xopt.conformance.thirdparty.names import ARGUMENTS
from xopt.conformance.thirdparty.targets import Target, TargetError, found, parsed

Message = dict[str, Any]


class Server:
    """Holds the optimizers that a callable makes."""

    def __init__(self, make: Callable[..., Any], kind: type[Adapter]) -> None:
        self._kind, self._make = kind, make
        self._running: dict[str, Adapter] = {}
        self.arguments: dict[str, Any] | None = None

    def _adapter(self) -> Adapter:
        return self._kind(self._make)

    def answer(self, question: Message) -> Message:
        """Never raises: what goes wrong is the answer."""
        try:
            with np.errstate(all="ignore"):
                return getattr(self, f"_{question['do']}")(question)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - whatever a target raises
            return {"error": one_line(error)}

    def _describe(self, _: Message) -> Message:
        adapter = self._adapter()
        unsaid = takes_any(self._make) and not ARGUMENTS.keys() & adapter.arguments.keys()
        if unsaid and self.arguments is None:
            adapter.arguments |= dict.fromkeys(name for name in _accepted(adapter) if name not in adapter.arguments)
        self.arguments = self.arguments or adapter.arguments
        return {
            "name": getattr(self._make, "__qualname__", str(self._make)),
            "library": adapter.library,
            "version": _version(self._make),
            "arguments": self.arguments,
            "dtypes": list(adapter.dtypes),
            "leaves": adapter.leaves,
            "instances": True,
            "groups": adapter.groups,
            "changes": adapter.changes,
            "resumes": adapter.resumes,
            "idles": True,
            "state": type(adapter).state is not Adapter.state,
        }

    def _start(self, question: Message) -> Message:
        adapter = self._running[question.get("of", "")] = self._adapter()
        given = question["given"]
        adapter.start(_arrays(question), question["dtype"], given if isinstance(given, list) else [given])
        return {"params": _numbers(adapter.params())}

    def _step(self, question: Message) -> Message:
        adapter = self._running[question.get("of", "")]
        grads = _arrays(question, "grads")
        before = [None if g is None else np.array(g) for g in grads]
        adapter.step(grads, question.get("changed", {}))
        wrote = [name for name, now, then in adapter.inputs if _differ(now, then)]
        kept = [None if g is None else _kept(adapter, g) for g in adapter.grads]
        rounded = question["dtype"] if question.get("dtype") in ("float32", "float64") else None
        if rounded and any(g is not None and _differ(k, g.astype(rounded)) for k, g in zip(kept, before, strict=True)):
            wrote.append("gradients")
        params = adapter.params()
        shapes = [list(x.shape) for x in params]
        return {"params": _numbers(params), "shapes": shapes, "dtypes": adapter.param_dtypes(), "wrote": wrote}

    def _idle(self, question: Message) -> Message:
        adapter = self._running[question.get("of", "")]
        return {"steps": adapter.idle(_arrays(question, "grads"), question["steps"], question["seconds"])}

    def _state(self, question: Message) -> Message:
        adapter = self._running[question.get("of", "")]
        state = adapter.state()
        arrays = {}
        for name, leaves in state.items():
            with contextlib.suppress(TypeError, ValueError):  # it is no array, but what a library calls its state
                arrays[name] = _numbers([_array(adapter, x) for x in leaves])
        dtypes = {name: next((adapter.dtype_of(x) for x in state[name] if hasattr(x, "dtype")), "number") for name in arrays}
        return {"state": arrays, "dtypes": dtypes}

    def _resume(self, question: Message) -> Message:
        self._running[question.get("of", "")].resume()
        return {}


def _accepted(adapter: Adapter) -> list[str]:
    """The names that a callable takes which does not say: those that it does not refuse."""
    accepted = []
    for name in ARGUMENTS:
        value = {"betas": [0.5, 0.75], "nus": [0.5, 0.75]}.get(name, 0.5)
        try:
            adapter.start([np.ones(2)], "float64", [{name: value}])
        except TypeError:
            continue
        except Exception:  # noqa: BLE001 - it knows the name
            pass
        accepted.append(name)
    return accepted


def _arrays(question: Message, name: str = "params") -> list[Any]:
    shapes = question["shapes"]
    return [None if x is None else np.array(x, np.float64).reshape(shape) for x, shape in zip(question[name], shapes, strict=True)]


def _array(adapter: Adapter, x: Any) -> Any:
    return None if x is None else adapter.numpy(x) if hasattr(x, "dtype") else np.asarray(x)


def _kept(adapter: Adapter, x: Any) -> Any:
    """What an input holds after a step; nothing where it is deleted, as what is donated to a compiled step is."""
    try:
        return adapter.numpy(x)
    except RuntimeError:
        return np.zeros(0)


def _numbers(arrays: list[Any]) -> list[Any]:
    if any(np.iscomplexobj(x) for x in arrays):
        msg = "its numbers are complex"
        raise TypeError(msg)
    return [None if x is None else np.ravel(x).astype(np.float64).tolist() for x in arrays]


def _differ(now: Any, then: Any) -> bool:
    if isinstance(now, dict):
        return any(_differ(x, then.get(name)) for name, x in now.items())
    if isinstance(now, tuple | list):
        return any(_differ(x, y) for x, y in zip(now, then, strict=True))
    return isinstance(now, np.ndarray) and not np.array_equal(now, then, equal_nan=True)


def _version(make: Any) -> str:
    """Of the distribution that a callable is from, as ``torch 2.13.0``."""
    top = (getattr(make, "__module__", "") or "").partition(".")[0]
    for name in packages_distributions().get(top, ()):
        with contextlib.suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return ""


def one_line(error: BaseException) -> str:
    """An exception in one line of at most 300 columns."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def server_of(target: Target | Callable[..., Any]) -> Server:
    """Imports a target of Python.

    Raises
    ------
    TargetError
        Where there is none, or where it is no optimizer.
    """
    make = found(target) if isinstance(target, Target) else target
    try:
        return Server(make, _adapter(target.kind if isinstance(target, Target) else "py", make))
    except ImportError as error:
        msg = f"{one_line(error)}: install what the target needs beside xopt"
        raise TargetError(msg) from error
    except Exception as error:
        msg = f"this is no optimizer that can be stepped: {one_line(error)}"
        raise TargetError(msg) from error


def _adapter(kind: str, make: Callable[..., Any]) -> type[Adapter]:
    if kind == "torch":
        from xopt.conformance.thirdparty.adapters.torch import Torch

        return Torch
    if kind == "optax":
        from xopt.conformance.thirdparty.adapters.optax import Optax

        return Optax
    if kind == "keras":
        from xopt.conformance.thirdparty.adapters.keras import Keras

        return Keras
    from xopt.conformance.thirdparty.adapters.python import adapter_for

    return adapter_for(make)


def main(name: str) -> None:
    """Serves a target on standard input and output. What the target prints goes to standard error."""
    answers, own = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.getpid()
    os.dup2(2, 1)
    sys.path.insert(0, "")
    try:
        server: Server | None = server_of(parsed(name))
        first: Message = {}
    except TargetError as error:
        server, first = None, {"error": str(error), "target": True}
    except BaseException as error:  # noqa: BLE001 - even a target that exits while it is imported
        server, first = None, {"error": f"its import ends with {one_line(error)}"}
    for line in sys.stdin:
        answer = server.answer(json.loads(line)) if server else first
        if os.getpid() != own:
            answer = {"error": "it forks, and both processes go on", "garbage": True}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if os.getpid() != own:
            os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])

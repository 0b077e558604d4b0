"""What commands have in common: options, the files that they write, and a progress bar."""

import contextlib
import errno
import functools
import math
import os
import stat
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, NamedTuple, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xopt.backends.names import unknown
from xopt.conformance.workers import cores
from xopt.rules import RULES

T = TypeVar("T")

SEVERAL = "May be repeated, or take several with commas."

Jobs = Annotated[int, typer.Option(help="Processes. Default: one a core, at most 4.", min=0, show_default=False)]
Rules = Annotated[
    list[str] | None, typer.Option("--rule", help=f"A rule, such as lion. {SEVERAL} Default: all.", show_default=False)
]
Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", help=f"A backend, such as torch or torch:cuda:0. {SEVERAL} Default: all.", show_default=False),
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", help=f"A dtype of the parameters, such as float32. {SEVERAL} Default: all.", show_default=False),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write all that was found here, as JSON. - is standard output.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page to look at here. - is standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what runs, and why anything does not.")]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def names_of(given: Sequence[str] | None, option: str) -> list[str] | None:
    """The names in an option that is repeated or has commas; None where it asks for all, which stands alone."""
    names = list(dict.fromkeys(name.strip() for text in given or () for name in text.split(",")))
    if names in ([], ["all"]):
        return None
    if "all" in names:
        others = ", ".join(name for name in names if name != "all")
        msg = f"all stands beside {others}; give either"
        raise typer.BadParameter(msg, param_hint=option)
    return names


def rules_of(given: Sequence[str] | None, option: str = "--rule") -> list[str] | None:
    """As ``names_of``, of rules; an unknown one is refused."""
    names = names_of(given, option)
    refuse_unknown("rule", names or (), RULES, option)
    return names


def refuse_unknown(what: str, names: Sequence[str], known: Collection[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise typer.BadParameter(unknown(what, name, known), param_hint=option)


def understood(read: Callable[..., T], *given: Any, option: str) -> T:
    """What a reader of words makes of them; what it refuses is bad usage of an option."""
    try:
        return read(*given)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def folder(text: str) -> Path:
    """Of an argument, as its parser: an empty name, as of a variable that is not set, is not where one stands."""
    if not text:
        msg = "'' is no name of a folder; . is the current one"
        raise typer.BadParameter(msg)
    return Path(text)


def finite(param: typer.CallbackParam, value: float) -> float:
    """Of an option, as its callback: seconds without end, of which no clock can tell."""
    if not math.isfinite(value):
        msg = f"{value} must be finite"
        raise typer.BadParameter(msg, param_hint=f"--{param.name}")
    return value


def processes(jobs: int) -> int:
    """How many: those that were asked for, or the default."""
    return jobs or min(4, cores())


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """A command that ends quietly at Ctrl-C."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            sys.stderr.write("\nxopt: interrupted\n")
            raise typer.Exit(INTERRUPTED) from None

    return run


STANDARD_OUTPUT = Path("-")


class _Open(NamedTuple):
    path: Path
    file: IO[str]
    new: bool  # whether there was no such file before


class Outputs:
    """The files that a command is to write, by the options that name them: opened before the work, filled after it.

    A file keeps what it has until it is filled, and one that was made for nothing is taken away again.
    """

    def __init__(self, paths: dict[str, Path | None]) -> None:
        """Raises typer.BadParameter for a file that cannot be written."""
        self._open: dict[str, _Open] = {}
        self._unread = False
        self.failed = False
        for option, path in paths.items():
            if path is None:
                continue
            for other, known in self._open.items():
                if known.path == path or (path.exists() and known.path.exists() and path.samefile(known.path)):
                    self._close()
                    msg = f"{_shown(path)} is what {other} writes already; name another file"
                    raise typer.BadParameter(msg, param_hint=option)
            try:
                self._open[option] = _Open(path, sys.stdout, False) if path == STANDARD_OUTPUT else _opened(path)
            except OSError as error:
                self._close()
                msg = f"{path} cannot be written: {error.strerror}; name a file in a folder that is there, or - for standard output"
                raise typer.BadParameter(msg, param_hint=option) from None

    def console(self) -> Console:
        """For all else that is to be said: beside standard output where that is a file's place."""
        return Console(stderr=any(one.path == STANDARD_OUTPUT for one in self._open.values()))

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raises BrokenPipeError where nobody reads standard output any more: that is no file that could not be written."""
        self._close()
        if self._unread and error is None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def fill(self, option: str, content: Callable[[], str | bytes]) -> None:
        """Writes a file, where it was asked for. What goes wrong is said, and keeps no other file from being written."""
        one = self._open.pop(option, None)
        if one is None:
            return
        try:
            if one.path != STANDARD_OUTPUT and one.file.seekable():
                one.file.truncate(0)
            found = content()
            one.file.flush()
            one.file.buffer.write(found.encode() if isinstance(found, str) else found)  # type: ignore[attr-defined]
            one.file.flush()
        except OSError as error:
            if one.path == STANDARD_OUTPUT and isinstance(error, BrokenPipeError):
                self._unread = True
                return
            self.failed = True
            sys.stderr.write(f"xopt: {option}: {_shown(one.path)} could not be written: {error.strerror}\n")
        finally:
            if one.path != STANDARD_OUTPUT:
                with contextlib.suppress(OSError):  # what is left in its buffer does not fit either
                    one.file.close()

    def _close(self) -> None:
        for one in self._open.values():
            if one.path != STANDARD_OUTPUT:
                one.file.close()
                if one.new:
                    one.path.unlink(missing_ok=True)
        self._open.clear()


def _opened(path: Path) -> _Open:
    """Opened to be written at its end, and found to have room: a full device takes no byte."""
    new = not path.exists()
    file = path.open("a", encoding="utf-8")
    try:
        kind = os.fstat(file.fileno()).st_mode
        size = file.tell() if stat.S_ISREG(kind) else 0
        if stat.S_ISREG(kind) or (stat.S_ISCHR(kind) and not file.isatty()):
            file.write("\n")
            file.flush()
        if stat.S_ISREG(kind):
            file.truncate(size)
    except OSError:
        file.close()
        if new:
            path.unlink(missing_ok=True)
        raise
    return _Open(path, file, new)


def _shown(path: Path) -> str:
    return "standard output" if path == STANDARD_OUTPUT else str(path)


def must_be_a_folder(path: Path | None, option: str) -> None:
    """Makes a folder to write into; refuses one that cannot be."""
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            _opened(path / ".xopt").file.close()
            (path / ".xopt").unlink()
        except OSError as error:
            msg = f"{path} is no folder that can be written to: {error.strerror}"
            raise typer.BadParameter(msg, param_hint=option) from None


def must_have_markers(path: Path | None, marks: Sequence[str], option: str) -> None:
    """Refuses a file into which nothing can be put between markers. Standard output needs none."""
    if path is None or path == STANDARD_OUTPUT:
        return
    if not path.is_file() or any(mark not in path.read_text() for mark in marks):
        msg = f"{path} must be a file with a line {' and a line '.join(marks)}; - is standard output"
        raise typer.BadParameter(msg, param_hint=option)
    if not os.access(path, os.W_OK):
        msg = f"{path} cannot be written"
        raise typer.BadParameter(msg, param_hint=option)


def progress_bar(console: Console) -> Progress:
    columns = TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)

"""A target in a process of its own, with a time limit: whatever it does, there is an answer or a word for what went wrong."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from xopt.conformance.reading import from_json
from xopt.conformance.thirdparty.server import Message, server_of
from xopt.conformance.thirdparty.targets import Target, TargetError, parsed

Failure = Literal["crashed", "hung", "garbage", "raised", "late"]


LONGEST = 1 << 27
"""Bytes that a line of a target's may have."""
LAST = 1 << 12
"""Bytes of its last words that are kept."""


def printable(text: str) -> str:
    """A target's words as a terminal and XML take them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class TargetFailedError(Exception):
    """A target did not answer a question."""

    what: Failure

    def __init__(self, words: str) -> None:
        super().__init__(printable(words))


class CrashedError(TargetFailedError):
    """Its process ended."""

    what = "crashed"


class HungError(TargetFailedError):
    """No answer came in time."""

    what = "hung"


class GarbageError(TargetFailedError):
    """What came is no answer."""

    what = "garbage"


class RaisedError(TargetFailedError):
    """It says that it has none."""

    what = "raised"


class LateError(TargetFailedError):
    """It cannot be brought to where what shows only late can be seen."""

    what = "late"


class Inside:
    """Asks a callable of this process."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._server = server_of(make)

    def ask(self, question: Message, limit: float = 0.0) -> Message:  # noqa: ARG002 - nothing can end what runs here
        try:
            answer = self._server.answer(question)
        except SystemExit as error:
            msg = f"it exits, with {error.code!r}"
            raise CrashedError(msg) from None
        if "error" in answer:
            raise RaisedError(answer["error"])
        return answer

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class Process:
    """Asks a process, a line at a time. All that waits for it is in threads, so that nothing it does can hold us up."""

    def __init__(self, target: Target) -> None:
        self._program = target.kind == "cmd"
        command = target.command if self._program else [sys.executable, "-m", __package__ + ".server", target.name]
        environment = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "numpy", "TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)
        pipe = subprocess.PIPE
        try:  # in a session of its own, so that what it starts ends with it
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True)
        except OSError as error:
            msg = f"{target.path} cannot be started: {error.strerror}"
            raise TargetError(msg) from None
        self._questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lines: queue.Queue[bytes] = queue.Queue(2)  # what it says unasked waits in its pipe
        self._said, self._ended = b"", False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._write, self._read, self._listen)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdin as stream:
            while question := self._questions.get():
                stream.write(question)
                stream.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while line := stream.readline(LONGEST):
                if line.strip():
                    self._lines.put(line)
        self._lines.put(b"")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while words := stream.read1(1 << 16):  # type: ignore[attr-defined]
                self._said = (self._said + words)[-LAST:]

    def ask(self, question: Message, limit: float = 30.0) -> Message:
        """The answer to a question, within ``limit`` seconds.

        Raises
        ------
        TargetFailedError
            Where none comes in time, or none that can be read, or one that says that there is none.
        """
        unasked = not self._lines.empty()
        self._questions.put(json.dumps(question).encode() + b"\n")  # it may have ended, and have said something before
        try:
            line = self._line(limit)
        except queue.Empty:
            self._end()
            hint = "; does it flush its output after each line?" if self._program else ""
            msg = f"no answer to {question['do']!r} within {limit:g} s{hint}"
            raise HungError(msg) from None
        if not line:
            raise CrashedError(self._how_it_ended())
        return self._answer(question["do"], line, unasked)

    def _line(self, limit: float) -> bytes:
        """The next; nothing where its process ended, even if one that it started holds its output."""
        until = time.monotonic() + limit
        while (left := until - time.monotonic()) > 0:
            ended = self._process.poll() is not None
            with contextlib.suppress(queue.Empty):
                return self._lines.get(timeout=min(0.3, left))
            if ended:
                return b""
        raise queue.Empty

    def _answer(self, to: str, line: bytes, unasked: bool) -> Message:
        try:
            answer = from_json(line)
        except ValueError:  # of what is no text, too
            answer = None
        if not isinstance(answer, dict):
            msg = f"the answer to {to!r} is no JSON object: {line[:320].decode(errors='replace').strip()[:80]!r}"
            raise GarbageError(msg)
        words = str(answer.get("error", ""))
        if answer.get("garbage"):
            raise GarbageError(words)
        if answer.get("target"):
            raise TargetError(printable(words))
        if "error" in answer:
            raise RaisedError(words)
        if unasked:
            msg = f"it said something before {to!r} was asked: one line must come for each question"
            raise GarbageError(msg)
        return answer

    def _how_it_ended(self) -> str:
        """With the last line that it said."""
        try:
            status = self._process.wait(2)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        self._end()
        self._threads[2].join(1)
        lines = self._said.decode(errors="replace").strip().splitlines()
        last = f"; its last words: {lines[-1].strip()[:200]}" if lines else ""
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"its process ended with {how}{last}"

    def _end(self) -> None:
        """Kills its process, and those that it started."""
        if os.name == "posix" and not self._ended:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._ended = True
        self._process.kill()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._process.wait()
        self._questions.put(b"")
        until = time.monotonic() + 1
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                self._lines.get(timeout=0.01)


def asked(target: str | Callable[..., Any]) -> Inside | Process:
    """Where the questions to a target go."""
    return Process(parsed(target)) if isinstance(target, str) else Inside(target)

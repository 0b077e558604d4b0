"""A target in a process of its own, with a time limit: whatever it does, there is an answer or a word for what went wrong."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from xopt.conformance.thirdparty.server import Message, server_of
from xopt.conformance.thirdparty.targets import Target, TargetError, parsed

Failure = Literal["crashed", "hung", "garbage", "raised", "late"]


class TargetFailedError(Exception):
    """A target did not answer a question."""

    what: Failure


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
        answer = self._server.answer(question)
        if "error" in answer:
            raise RaisedError(answer["error"])
        return answer

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class Process:
    """Asks a process, a line at a time."""

    def __init__(self, target: Target) -> None:
        command = target.command if target.kind == "cmd" else [sys.executable, "-m", __package__ + ".server", target.name]
        environment = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "numpy", "TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=environment
            )
        except OSError as error:
            self._said.close()
            msg = f"{target.path} cannot be started: {error.strerror}"
            raise TargetError(msg) from None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._lines.put(line)
        except (OSError, ValueError):  # it is closed, or what comes is no text
            pass
        self._lines.put("")

    def ask(self, question: Message, limit: float = 30.0) -> Message:
        """The answer to a question, within ``limit`` seconds.

        Raises
        ------
        TargetFailedError
            Where none comes in time, or none that can be read, or one that says that there is none.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it may have ended, and have said something before
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self._process.kill()
            msg = f"no answer to {question['do']!r} within {limit:g} s"
            raise HungError(msg) from None
        if not line:
            raise CrashedError(self._end())
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            msg = f"the answer to {question['do']!r} is no JSON object: {line.strip()[:80]!r}"
            raise GarbageError(msg)
        if "error" in answer:
            if answer.get("target"):
                raise TargetError(answer["error"])
            raise RaisedError(str(answer["error"]))
        return answer

    def _end(self) -> str:
        """How the process ended, with the last line that it said."""
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        last = f"; its last words: {lines[-1].strip()[:200]}" if lines else ""
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"its process ended with {how}{last}"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def asked(target: str | Callable[..., Any]) -> Inside | Process:
    """Where the questions to a target go."""
    return Process(parsed(target)) if isinstance(target, str) else Inside(target)

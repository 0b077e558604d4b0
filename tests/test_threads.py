"""A shared step has ended when it returns: seen each time, as the helper is held back until nothing else is left to do."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.arrays import GIVEN_AWAY
from xopt.backends import fuse
from xopt.backends.compilers import threads
from xopt.backends.fused import donation

HELD_BACK = 0.2
"""Seconds that the helper works on after the stepping thread has ended."""


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A step of two shares, one of them the helper's, who is late. Returns what it has written when it returns."""
    monkeypatch.setattr(threads, "threads", lambda: 2)
    monkeypatch.setattr(threads, "_helpers", {})
    total = threads.PARALLEL

    def run() -> Any:
        numbers, helper_has_begun = np.zeros(total), threading.Event()

        def kernel(numbers: Any, progress: Any, looks: int) -> None:
            if threading.current_thread().name == "xopt":
                helper_has_begun.set()
                time.sleep(HELD_BACK)
                numbers[total // 2 :] = 1.0
            else:
                assert helper_has_begun.wait(60)
                numbers[: total // 2] = 1.0
            progress[1] += total // 2

        threads.run(kernel, (numbers,), total)
        return numbers.copy()

    return run


def test_a_step_returns_when_its_helper_has_ended(step: Callable[[], Any]) -> None:
    for _ in range(3):
        assert np.all(step() == 1.0)


def test_a_step_that_does_not_wait_is_seen_each_time(step: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_wait", lambda *_: None)
    for _ in range(3):
        numbers = step()
        assert np.all(numbers[: threads.PARALLEL // 2] == 1.0)
        assert np.all(numbers[threads.PARALLEL // 2 :] == 0.0)
        time.sleep(2 * HELD_BACK)


# The mark of a state that is given away.


def test_of_two_threads_that_meet_the_mark_of_an_array_that_is_gone_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may give the identity of an array that is gone to another one before its mark is forgotten."""
    step, state, grad = fuse(xopt.sgd, donate=True), xopt.sgd_init(np.ones(4)), np.ones(4)
    monkeypatch.setitem(GIVEN_AWAY, id(state.params), donation._mark(np.ones(4), lambda _: None))
    find, both = donation._find, threading.Barrier(2)

    def found(x: Any, marks: Any) -> Any:
        mark = find(x, marks)
        if sys._getframe(1).f_code.co_name == "__enter__":
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.5)  # for the other thread, if it comes here as well
        return mark

    monkeypatch.setattr(donation, "_find", found)
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(step(state, grad, lr=0.5).params.tolist())
        except ValueError as error:
            ended.append(str(error))

    runs = [threading.Thread(target=run) for _ in range(2)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    refused = [end for end in ended if isinstance(end, str)]
    assert len(ended) == 2
    assert len(refused) == 1, ended
    assert "was donated to" in refused[0]
    assert state.params.tolist() == [0.5] * 4

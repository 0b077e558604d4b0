"""A shared step has ended when it returns: seen each time, as the helper is held back until nothing else is left to do."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xopt.backends import threads

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

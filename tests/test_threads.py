"""A shared step has ended when it returns: seen each time, as the helper is held back until nothing else is left to do.

And steps of torch tensors on the threads of torch's OpenMP: in processes of their own where these could hang, or flush.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.arrays import GIVEN_AWAY
from xopt.backends import fuse
from xopt.backends.base import say_once
from xopt.backends.compilers import numba_kernels, threads
from xopt.backends.fused import donation
from xopt.backends.fused.fallback import CompileError

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
                progress[0] += total // 2
                helper_has_begun.set()
                time.sleep(HELD_BACK)
                numbers[total // 2 :] = 1.0
            else:
                assert helper_has_begun.wait(60)
                progress[0] += total // 2
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


# The threads of torch's OpenMP.

NUMBERS = 3 * threads.SHARE + 7
MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """With two threads, which share steps of few numbers too, and no helpers yet."""
    pytest.importorskip("numba", reason="numba is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not threads._openmp():
        pytest.skip("torch has no GOMP_parallel here")
    monkeypatch.setattr(threads, "PARALLEL", 1)
    monkeypatch.setattr(threads, "threads", lambda: 2)
    monkeypatch.setattr(threads, "_helpers", {})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch
    torch.set_num_threads(before)


def assert_stepped(torch: Any, rule: Any = xopt.adamw, dtype: str = "float32") -> None:
    """As NumPy's plain step does."""
    params, grad = np.random.default_rng(0).normal(size=(2, NUMBERS)).astype(dtype)
    state, expected = rule.init(torch.tensor(params)), rule.init(params)
    for donate in (False, True):
        fused = fuse(rule, donate=donate)
        state, expected = fused(state, torch.tensor(grad), lr=0.1), rule.step(expected, grad, lr=0.1)
        for x, y in zip(state[:-1], expected[:-1], strict=True):
            assert np.array_equal(x.numpy(), y)


def openmp(monkeypatch: pytest.MonkeyPatch, run: Callable[[Callable[[], None], int], None]) -> Any:
    """``run`` in the place of ``GOMP_parallel``: given what each member does, and how many members are asked for."""

    def parallel(function: Any, data: Any, members: int, flags: int) -> None:
        assert flags == 0
        run(lambda: MEMBER(function)(data), members)

    kept = PARALLEL(parallel)
    monkeypatch.setattr(threads, "_openmp", lambda: ctypes.cast(kept, ctypes.c_void_p).value)
    return kept


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_steps_of_torch_start_no_helpers(torch: Any, dtype: str) -> None:
    assert_stepped(torch, dtype=dtype)
    assert threads._helpers == {}


@pytest.mark.parametrize("lacks", ["a symbol", "a system"])
def test_without_openmp_there_are_helpers(torch: Any, lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_parallel", {})
    if lacks == "a symbol":
        monkeypatch.setattr(threads.ctypes, "CDLL", lambda _: object())
    else:
        monkeypatch.setattr(threads.sys, "platform", "darwin")
    assert_stepped(torch)
    assert [there.count for there in threads._helpers.values()] == [1]


def test_a_team_that_cannot_be_compiled_is_said(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = numba_kernels.compiled

    def compiled(text: str, name: str, arguments: Any) -> Any:
        if name.startswith("team"):
            msg = "LLVM is gone"
            raise CompileError(msg)
        return made(text, name, arguments)

    say_once.cache_clear()
    xopt.adamw.compiled.clear()
    monkeypatch.setattr(numba_kernels, "compiled", compiled)
    with pytest.warns(UserWarning, match="are not shared by torch's own threads, as LLVM is gone") as said:
        assert_stepped(torch)
    assert len(said) == 1
    assert [there.count for there in threads._helpers.values()] == [1]
    xopt.adamw.compiled.clear()


@pytest.mark.parametrize("came", [0, 1, 2, 5])
def test_it_does_not_matter_how_many_members_come(torch: Any, came: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the one that steps: at once, and after it."""
    asked: list[int] = []

    def run(take_part: Callable[[], None], members: int) -> None:
        asked.append(members)
        others = [threading.Thread(target=take_part) for _ in range(came)]
        for thread in others:
            thread.start()
        take_part()
        for thread in others:
            thread.join()
        take_part()

    kept = openmp(monkeypatch, run)
    assert_stepped(torch)
    torch.set_num_threads(7)
    assert_stepped(torch)
    assert asked == [2, 2, 7, 7]
    del kept


def test_no_member_is_seen(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = openmp(monkeypatch, lambda *_: None)
    with pytest.raises(AssertionError):
        assert_stepped(torch)
    del kept


def test_a_single_thread_steps_alone(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the workers of a DataLoader."""
    asked: list[int] = []
    kept = openmp(monkeypatch, lambda take_part, members: asked.append(members))
    torch.set_num_threads(1)
    assert_stepped(torch)
    assert asked == []
    assert threads._helpers == {}
    del kept


def test_a_thread_that_flushes_asks_for_no_team(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    kept = openmp(monkeypatch, lambda take_part, members: asked.append(members))
    params = torch.full((NUMBERS,), 1e-40)
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor flushes nothing")
    try:
        found = fuse(xopt.sgd)(xopt.sgd_init(params), torch.zeros(NUMBERS)).params
    finally:
        torch.set_flush_denormal(False)
    assert not found.view(torch.int32).any()
    assert asked == []
    del kept


def test_kernels_are_given_no_arrays_with_gaps(torch: Any) -> None:
    kernel = numba_kernels.Kernel(xopt.sgd.program, numba_kernels.FORMATS[0], lambda: 2)
    run, words = kernel._pool.team(), np.zeros((2, 4), np.int64)
    with pytest.raises(TypeError, match="No matching definition"):
        run(0, 0, (0.0, 0.0, 0.0), (words[:, ::2], *kernel._nothing[1:]))


def test_python_threads_have_teams_of_their_own(torch: Any) -> None:
    ended: list[int] = []

    def work() -> None:
        for rule in (xopt.adamw, xopt.lion):
            assert_stepped(torch, rule)
        ended.append(1)

    runs = [threading.Thread(target=work) for _ in range(4)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert len(ended) == 4
    assert threads._helpers == {}


def test_an_interrupt_comes_after_the_team(torch: Any) -> None:
    """Each number is stepped once, whenever it comes: the arrays outlive the step."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    fused, grad, came = fuse(xopt.sgd, donate=True), torch.ones(1 << 22), 0
    fused(xopt.sgd_init(torch.zeros(1 << 22)), grad, lr=0.5)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in np.linspace(1e-4, 4e-3, 30):
            params = torch.zeros(1 << 22)
            state = xopt.sgd_init(params)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                fused(state, grad, lr=0.5)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                came += 1
            except TypeError as error:
                if "Cannot compare structured arrays" not in str(error):  # which NumPy makes of an interrupt in its comparison
                    raise
                came += 1
            assert (params == params[0]).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came


# Processes.

BEGIN = """
import ctypes, multiprocessing, os, sys, threading
import numpy as np, torch, xopt
from xopt.backends import fuse
from xopt.backends.compilers import threads
N = 1_000_000
torch.set_num_threads(2)
def step(value=1.0, grad=1.0):
    return fuse(xopt.sgd)(xopt.sgd_init(torch.full((N,), value)), torch.full((N,), grad), lr=0.5).params
def check():
    assert (step().numpy() == 0.5).all()
def names():
    return {thread.name for thread in threading.enumerate()}
"""

FORK = """
import signal
ALARM = 60
ones = torch.ones(N)  # torch's own operations would not end in a fork
def helped():
    state = fuse(xopt.sgd)(xopt.sgd_init(ones), ones, lr=0.5)
    assert (state.params.numpy() == 0.5).all() and (ones.numpy() == 1.0).all()
    assert "xopt" in names()
def fork():
    child = os.fork()
    if not child:
        signal.alarm(ALARM)  # which ends a child that hangs
        helped()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

USED = """
check()
assert threads._openmp() and "xopt" not in names()
"""


def process(code: str, **environment: str) -> None:
    """Runs code in a process of its own, which must end, and well."""
    subprocess.run([sys.executable, "-c", BEGIN + code], check=True, timeout=120, env=os.environ | environment)


@pytest.mark.parametrize("before", ["", "threads._is_fork = lambda: False"], ids=["two looks", "one look"])
def test_a_fork_has_helpers(torch: Any, before: str) -> None:
    process(f"{before}{USED}{FORK}fork()")


def test_a_fork_that_waits_for_threads_that_are_gone_is_seen(torch: Any) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        process(f"{USED}{FORK}ALARM, kept = 3, threads._openmp(); threads._openmp = lambda: kept; fork()")


def test_a_fork_that_steps_for_the_first_time_has_helpers(torch: Any) -> None:
    """Where torch alone has used its threads before, and nobody here was told of the fork."""
    process(f"{FORK}os.register_at_fork(after_in_child=threads._parallel.clear); fork()")


def test_a_process_of_multiprocessing_has_helpers(torch: Any) -> None:
    code = """
one = multiprocessing.get_context("fork").Process(target=helped)
one.start()
one.join()
sys.exit(one.exitcode)
"""
    process(USED + FORK + code)


def test_the_workers_of_a_data_loader_step_alone(torch: Any) -> None:
    code = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        check()
        assert torch.get_num_threads() == 1 and "xopt" not in names()
        return i
found = torch.utils.data.DataLoader(Data(), num_workers=2, timeout=60, multiprocessing_context="fork")
assert [int(x) for x in found] == [0, 1, 2, 3]
"""
    process(USED + code)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_what_openmp_is_told(torch: Any, name: str) -> None:
    process("torch.set_num_threads(4); check(); assert 'xopt' not in names()", **{name: "1"})


def test_a_step_from_within_a_team(torch: Any) -> None:
    code = """
done = []
member = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: (check(), done.append(1)))
ctypes.CDLL(None).GOMP_parallel(member, None, 2, 0)
assert done == [1, 1]
"""
    process(code)


def test_no_more_threads_than_torch_has(torch: Any) -> None:
    code = """
fuse(xopt.sgd)(xopt.sgd_init(torch.ones(10)), torch.ones(10))  # imports what starts threads
torch.ones(N).add(1)
there = len(os.listdir("/proc/self/task"))
check()
assert len(os.listdir("/proc/self/task")) == there
"""
    process(code)


FLUSHING = """
if not torch.set_flush_denormal(True):
    sys.exit(0 if {kept} else 1)
torch.ones(N).add(1)  # starts threads, which flush as this one does
torch.set_flush_denormal(False)
N = 1 << 20
params, grad = torch.from_numpy(np.full(N, 1e-40, np.float32)), torch.zeros(N)
found = [fuse(xopt.sgd)(xopt.sgd_init(params), grad).params.numpy() for _ in range(20)]
assert all((x.view(np.int32) != 0).all() for x in found) == {kept}
"""


@pytest.mark.parametrize("before", ["", "threads.SUBNORMAL = 1.0"], ids=["as it is", "a look that sees nothing"])
def test_members_that_flush_take_no_share(torch: Any, before: str) -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("the processor flushes nothing")
    process(before + FLUSHING.format(kept=not before))


def test_the_end_of_a_process_in_which_a_team_works(torch: Any) -> None:
    """On arrays of NumPy: torch's own operations do not survive it."""
    code = """
from xopt.backends.compilers import numba_kernels
kernel, x = numba_kernels.Kernel(xopt.sgd.program, numba_kernels.FORMATS[0], lambda: 2), np.ones(N, np.float32)
def forever():
    while True:
        kernel.step([x, x], [0.0] * len(xopt.sgd.program.coefficients))
        stepped.set()
stepped = threading.Event()
threading.Thread(target=forever, daemon=True).start()
assert stepped.wait(60)
assert "xopt" not in names()
"""
    process(code)


def test_a_team_is_kept_on_disk(torch: Any, tmp_path: Path) -> None:
    code = """
from xopt.backends.compilers import numba_kernels
made, seen = numba_kernels._made, {}
def keeping(text, name, arguments):
    seen[name] = made(text, name, arguments)
    return seen[name]
numba_kernels._made = keeping
check()
hits = {name: sum(function.stats.cache_hits.values()) for name, function in seen.items()}
assert hits == dict.fromkeys(("sgd_float32", "team_float32", "inspect"), int(os.environ["HITS"])), hits
"""
    for hits in "01":
        process(code, XOPT_CACHE_DIR=str(tmp_path), HITS=hits)


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

"""A cache, a compiler or a stream that fails costs speed, is said once, and changes no number."""

import os
import pwd
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.backends import _numpy, _torch, fuse
from xopt.backends.base import say_once
from xopt.backends.compilers import numba_kernels
from xopt.backends.compilers import threads as sharing
from xopt.backends.compilers.numba_kernels import cache_folder, source
from xopt.backends.fused.fallback import CompileError
from xopt.program import record

pytest.importorskip("numba", reason="numba is not installed")

TEXT = """import numba


@numba.njit(cache=True)
def kernel(x):
    return x + 1
"""


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Nothing has been said, and no folder was looked at."""
    cache_folder.cache_clear()
    say_once.cache_clear()
    yield
    cache_folder.cache_clear()
    say_once.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are kept."""
    monkeypatch.setenv("XOPT_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def make() -> Any:
    """A kernel, as a new process makes it."""
    function = numba_kernels._made(TEXT, "plus_one", (1,))
    assert function(1) == 2
    return function


def make_twice() -> None:
    make()
    make()


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


# The cache.


def test_a_kernel_is_kept(folder: Path) -> None:
    assert hits(make()) == 0
    assert hits(make()) == 1


@pytest.mark.parametrize("broken", ["*.py", "*.nbi", "*.nbc"])
@pytest.mark.parametrize("left", [0, 0.5, b"\0", b"no kernel"], ids=["empty", "half", "zeros", "other"])
def test_a_broken_file_is_made_again(broken: str, left: Any, folder: Path) -> None:
    make()
    (path,) = folder.rglob(broken)
    whole = path.read_bytes()
    path.write_bytes((left * len(whole))[: len(whole)] if isinstance(left, bytes) else whole[: int(left * len(whole))])
    make()
    assert hits(make()) == 1, "it is whole again"


@pytest.mark.parametrize("broken", ["*.py", "*.nbi", "*.nbc"])
def test_a_folder_in_the_place_of_a_file(broken: str, folder: Path) -> None:
    make()
    (path,) = folder.rglob(broken)
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    with pytest.warns(UserWarning, match="kernels cannot be kept in .*Error.*XOPT_CACHE_DIR names another folder"):
        make()


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As on a full disk: what is written beyond raises OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, len(TEXT), 4000])
def test_a_full_disk(size: int, folder: Path) -> None:
    """At each of the three writes: of the text, of numba's index, of numba's data."""
    with no_file_beyond(size), pytest.warns(UserWarning, match="OSError: .*each process compiles them anew") as said:
        make_twice()
    assert len(said) == 1
    found = [path.suffix for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert (".py" in found, ".nbc" in found) == (size > 0, False), "nothing is left half written"
    make()
    assert hits(make()) == 1, "and nothing in the way when there is room again"


def test_a_folder_that_goes(folder: Path) -> None:
    make()
    shutil.rmtree(folder)
    make()
    assert hits(make()) == 1


def test_a_file_for_a_folder(folder: Path) -> None:
    folder.touch()
    with pytest.warns(UserWarning, match=f"kernels cannot be kept in {folder} ") as said:
        make_twice()
    assert len(said) == 1


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.warns(UserWarning, match=f"kernels cannot be kept in {folder} .*Permission denied"):
        make()


def test_nobody_has_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose user has no name: no folder called ~ is made."""

    def nobody(number: int) -> Any:
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    for name in ("XOPT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.warns(UserWarning, match="kernels cannot be kept in (~|the user's cache)"):
        make()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["~/here", "$HOME/here", "${HOME}/here"])
def test_home_in_the_variable(named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XOPT_CACHE_DIR", named)
    assert cache_folder() == tmp_path / "here"


def test_a_folder_named_from_here_stays_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XOPT_CACHE_DIR", "here")
    assert cache_folder() == tmp_path / "here"


def test_the_look_at_arrays_is_kept_where_kernels_are(folder: Path) -> None:
    """Not in the package's own folder, which may be read-only."""
    from xopt.backends.compilers import numba_runtime

    assert isinstance(numba_runtime.inspect._cache, sys.modules["numba"].core.caching.NullCache)


# Processes.

STEP = """
import numpy as np, xopt
from xopt.backends import fuse
state, fused = xopt.sgd_init(np.ones(5)), fuse(xopt.sgd)
for _ in range(3):
    new, expected = fused(state, np.ones(5)), xopt.sgd_step(state, np.ones(5))
    assert np.array_equal(new.params, expected.params)
fuse(xopt.momentum)(xopt.momentum_init(np.ones(5)), np.ones(5))
"""


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    given = os.environ | environment
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", code], env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said_by(process: subprocess.Popen[str]) -> str:
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert not out
    return said


def test_two_processes_at_once(folder: Path) -> None:
    code = f"from xopt.backends.compilers import numba_kernels as k; assert k._made({TEXT!r}, 'plus_one', (1,))(1) == 2"
    said = list(map(said_by, [start(code) for _ in range(2)]))
    assert "cannot" not in "".join(said)
    assert [path.suffix for path in folder.iterdir() if path.is_file()] == [".py"]
    make()


def test_numba_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('needs another NumPy')")
    before = os.environ.get("PYTHONPATH", "")
    said = said_by(start(STEP, PYTHONPATH=f"{tmp_path}{os.pathsep}{before}"))
    reason = "fused steps of NumPy arrays run in blocks, as numba is installed, but import fails (ImportError: needs another NumPy)"
    assert said.count(reason) == 1


def test_numba_that_is_told_not_to_compile() -> None:
    said = said_by(start(STEP, NUMBA_DISABLE_JIT="1"))
    assert said.count("fused steps of NumPy arrays run in blocks, as NUMBA_DISABLE_JIT is set") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_process_that_forks_while_threads_start() -> None:
    code = """
import os, sys
from xopt.backends.compilers import threads
threads.PARALLEL, threads.threads = 1, lambda: 3
threads._starting.acquire()  # by another thread, which the child has not
child = os.fork()
if not child:
    import numpy as np
    def kernel(progress, looks):
        progress[1] = 200_000
    threads.run(kernel, (), 200_000)
    os._exit(threads._helpers[os.getpid()].count)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
"""
    said_by(start(code))


# Compilers that fail.


def broken(*_: Any) -> Any:
    msg = "numba cannot compile it (OSError: LLVM is gone)"
    raise CompileError(msg)


def fresh(rule: Any) -> Any:
    """The same rule, of which nothing is compiled: what is for one is kept with it."""
    return xopt.Rule(rule.name, rule.state, rule.coefficients, rule.elementwise, memory=rule.memory, carried=rule.carried)


@pytest.fixture
def nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_kernels, "_made", broken)
    monkeypatch.setattr(numba_kernels, "_compiled", {})


def test_what_numba_cannot_compile_runs_in_blocks(nothing_compiles: None) -> None:
    rule, grad = fresh(xopt.adam), np.ones(5)
    state, fused = rule.init(np.ones(5)), fuse(rule)
    with pytest.warns(UserWarning, match=r"run in blocks, as numba cannot compile it \(OSError: LLVM is gone\)") as said:
        new = [fused(state, grad), fused(state, grad), fuse(fresh(xopt.adam))(xopt.adam_init(np.ones(5)), grad)]
    assert len(said) == 1
    for found in new:
        assert np.array_equal(found.params, xopt.adam_step(xopt.adam_init(np.ones(5)), grad).params)
    with pytest.raises(CompileError, match="LLVM is gone"):
        fuse(rule, compiler="numba")(state, grad)


def test_nothing_is_written_before_all_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of a strided leaf fails, the others' not."""
    made = numba_kernels.compiled
    monkeypatch.setattr(
        numba_kernels, "compiled", lambda text, name, *rest: broken() if "float32" in name else made(text, name, *rest)
    )
    rule, params = fresh(xopt.sgd), {"a": np.ones(5), "b": np.ones((5, 2), np.float32)[:, 0]}
    grad = {"a": np.ones(5), "b": np.ones(5, np.float32)}
    with pytest.raises(CompileError):
        fuse(rule, donate=True, compiler="numba")(rule.init(params), grad)
    assert (params["a"] == 1).all()
    expected = rule.step(rule.init(params), grad).params
    with pytest.warns(UserWarning, match="run in blocks"):
        fuse(rule, donate=True)(rule.init(params), grad)
    assert (params["a"] == expected["a"]).all(), "donated all the same"
    assert (params["b"] == expected["b"]).all()


def test_torch_goes_through_its_own_compiler(nothing_compiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    x, taken = torch.ones(3), []
    monkeypatch.setattr(
        "xopt.backends.compilers.torch_compile.TorchCompileFuser.__call__",
        lambda self, work: taken.append(self.rule.name) or [work.params],
    )
    rule = fresh(xopt.sgd)
    fused = fuse(rule)
    with pytest.warns(UserWarning, match="through torch.compile, as numba cannot compile it") as said:
        fused(rule.init(x), x), fused(rule.init(x), x)
    assert len(said) == 1
    assert taken == ["sgd", "sgd"]
    monkeypatch.setattr(_torch, "numba_or_reason", lambda: "it is hidden")
    rule = fresh(xopt.sgd)
    with pytest.warns(UserWarning, match="through torch.compile, as it is hidden"):
        fuse(rule)(rule.init(x), x)
    with pytest.raises(ImportError, match="it is hidden"):
        fuse(rule, compiler="numba")(rule.init(x), x)


def test_torch_without_a_compiler_takes_plain_steps(nothing_compiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def compile_(*_: Any, **__: Any) -> Any:
        def step(*_: Any) -> Any:
            msg = "no g++\nand more"
            raise RuntimeError(msg)

        return step

    monkeypatch.setattr(torch, "compile", compile_)
    rule, x = fresh(xopt.sgd), torch.ones(3)
    state = rule.init(x)
    with pytest.raises(CompileError, match=r"torch.compile fails \(RuntimeError: no g\+\+\)"):
        fuse(rule, compiler="torch.compile", donate=True)(state, x)
    with (
        pytest.warns(UserWarning, match=r"are plain steps, as torch.compile fails \(RuntimeError: no g\+\+\)") as said,
        pytest.warns(UserWarning, match="go through torch.compile, as numba cannot compile it"),
    ):
        found = fuse(rule)(state, x), fuse(rule)(state, x)
    assert len(said) == 1
    for new in found:
        assert torch.equal(new.params, rule.step(state, x).params)
    with pytest.raises(TypeError, match=r"nothing compiles a step.*it cannot be donated"):
        fuse(rule, donate=True)(state, x)
    assert (x == 1).all()
    assert torch.equal(fuse(rule)(state, x).params, found[0].params), "it was not given away"


def test_a_rule_may_have_any_name(folder: Path) -> None:
    """In the text and in the file's name."""
    program = record(xopt.sgd, [], xopt.sgd.coefficients(1))._replace(rule='class """\\ ../2nd\n')
    numba_kernels.Kernel(program, numba_kernels.FORMATS[0])
    assert len(list(folder.glob("class_*_2nd__float32_*.py"))) == 1
    assert "import numba" in source(program, numba_kernels.FORMATS[0]).splitlines()[1]


# Streams.


@pytest.mark.parametrize("stream", ["None", "open('/dev/full', 'w', buffering=1)", "closed"])
def test_nobody_listens(stream: str) -> None:
    said_by(
        start(f"""
import io, sys
from xopt.backends.base import say, say_once
real, closed = sys.stderr, io.StringIO()
closed.close()
sys.stderr = {stream}
say("xopt: compiled it in 2 s")
say_once("it runs in blocks")
sys.stderr = real
""")
    )


def test_a_step_in_a_process_without_standard_error() -> None:
    imports = "import array_api_compat.numpy, sys"  # NumPy 2.0 itself cannot be imported whole without it
    assert said_by(start(f"{imports}; sys.stderr = None\n{STEP}", NUMBA_DISABLE_JIT="1")) == ""


# Threads.


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[np.ndarray]:
    """Numbers whose step is shared by three threads, which are to be started."""
    monkeypatch.setattr(sharing, "PARALLEL", 1)
    monkeypatch.setattr(sharing, "threads", lambda: 3)
    monkeypatch.setattr(sharing, "_helpers", {})
    return np.ones(3 * sharing.SHARE, np.float32)


@pytest.mark.parametrize("there", [0, 1])
def test_no_more_threads(there: int, shared: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def start_or_not(thread: threading.Thread) -> None:
        if len(started) == there:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    state = xopt.lion_init(shared)
    fused = fuse(xopt.lion)
    with pytest.warns(UserWarning, match=f"shared by {1 + there} of 3 threads, as no more could be started") as said:
        new = [fused(state, shared) for _ in range(3)]
    assert len(said) == 1
    for found in new:
        assert np.array_equal(found.params, xopt.lion_step(state, shared).params)
    if not there:
        assert sharing._helpers[os.getpid()].calls.empty(), "nothing is kept for those that do not come"


@contextmanager
def flushing() -> Iterator[None]:
    """A block in which this thread flushes subnormal numbers."""
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor flushes nothing")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def took_part(wait: float) -> set[str]:
    """The names of the threads that take a share of a step."""
    names: set[str] = set()
    came = threading.Event()

    def kernel(progress: np.ndarray, looks: int) -> None:
        names.add(threading.current_thread().name)
        if looks:  # this is the thread that steps
            came.wait(wait)
            progress[1] = 3 * sharing.SHARE
        else:
            came.set()
            progress[1] = 3 * sharing.SHARE

    sharing.run(kernel, (), 3 * sharing.SHARE)
    return names


def test_threads_help_those_that_round_as_they_do(shared: np.ndarray) -> None:
    me = threading.current_thread().name
    assert took_part(wait=10) == {me, "xopt"}
    with flushing():
        assert took_part(wait=0.1) == {me}
    assert took_part(wait=10) == {me, "xopt"}


def test_threads_that_flush_do_not_help(shared: np.ndarray) -> None:
    with flushing():
        sharing._started()
    assert took_part(wait=0.1) == {threading.current_thread().name}


def test_a_flushing_thread_starts_none(shared: np.ndarray) -> None:
    with flushing():
        took_part(wait=0)
    assert sharing._helpers == {}


def test_a_step_of_a_thread_that_flushes_flushes_as_a_whole(shared: np.ndarray) -> None:
    """Whoever takes a share of it: subnormal numbers, which helpers that keep them would keep."""
    fused, params = fuse(xopt.sgd), np.full(64 * sharing.SHARE, 1e-40, np.float32)
    state, grad = xopt.sgd_init(params), np.zeros_like(params)
    assert (fused(state, grad).params == params).all()
    with flushing():
        found = fused(state, grad).params
    assert not found.view(np.uint32).any()


@pytest.mark.parametrize(("change", "there"), [(0.0, True), (0.5, False)])
def test_what_is_the_rounding_of_python(change: float, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what is between 1 and the next number is rounded away, three of them are not."""
    monkeypatch.setattr(sharing, "QUARTER", 2.0**-54 + change)
    assert sharing.rounds_as_python_does() is there


def test_messages_have_one_place() -> None:
    assert _numpy.say_once is _torch.say_once is say_once

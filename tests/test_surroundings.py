"""What surrounds a step: what the process has set since, signals, trees that no library takes, states that others have changed."""

import signal
import threading
import time
from collections import ChainMap, UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.backends import fuse
from xopt.backends.compilers import threads

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

# Signals.


class LateError(Exception):
    """Raised by the handler of an alarm, as those raise that limit the time of a call."""


@pytest.fixture
def alarm() -> Any:
    def raises(*_: Any) -> None:
        raise LateError

    before = signal.signal(signal.SIGALRM, raises)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def taking(total: int, helper: Callable[[], None], stepper: Callable[[], None]) -> Callable[..., None]:
    """A kernel of two shares, each of which whoever comes first takes."""
    taken = threading.Lock()

    def kernel(numbers: Any, progress: Any, looks: int) -> None:
        (helper if threading.current_thread().name == "xopt" else stepper)()
        while True:
            with taken:
                begin = int(progress[0])
                progress[0] += total // 2
            if begin >= total:
                return
            if threading.current_thread().name == "xopt":
                time.sleep(0.15)
            numbers[begin : begin + total // 2] += 1.0
            progress[1] += total // 2

    return kernel


def test_a_signal_that_raises_comes_after_the_helpers(alarm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They write to memory by its address: a step that left before them would let it go."""
    monkeypatch.setattr(threads, "threads", lambda: 2)
    monkeypatch.setattr(threads, "_helpers", {})
    begun = threading.Event()
    total = threads.PARALLEL
    numbers = np.zeros(total)
    alarm(0.05)
    with pytest.raises(LateError):
        threads.run(taking(total, begun.set, lambda: begun.wait(60) and None), (numbers,), total)
    assert (numbers == 1.0).all()


def test_an_interrupt_before_the_first_share_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may have been asked to help by then: who waited for that would wait for ever."""
    monkeypatch.setattr(threads, "threads", lambda: 2)
    there = threads.Helpers()
    there.count = 1
    monkeypatch.setattr(threads, "_started", lambda: there)
    monkeypatch.setattr(threads, "_helpers", {})
    total, calls = threads.PARALLEL, []

    def interrupted() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    numbers = np.zeros(total)
    with pytest.raises(KeyboardInterrupt):
        threads.run(taking(total, int, interrupted), (numbers,), total)
    assert (numbers == 1.0).all()


# What the process has set.


@pytest.mark.parametrize("way", ["plain", "fused", "donated"])
def test_float64_of_jax_does_not_become_float32(way: str) -> None:
    """Where JAX was told to do without float64 in mid-run, the new state was float32, without a word."""
    step = xopt.adamw_step if way == "plain" else fuse(xopt.adamw, donate=way == "donated")
    with jax.enable_x64(True):
        params = {"a": jax.numpy.asarray([1.0, 2.0], "float64")}
        state, grad = xopt.adamw_init(params), {"a": jax.numpy.asarray([0.5, -1.0], "float64")}
        expected = np.asarray(xopt.adamw_step(state, grad).params["a"])
        state = step(state, grad)
        assert np.array_equal(np.asarray(state.params["a"]), expected)
    said = r"params\['a'\] is float64, but jax_enable_x64 is off"
    with jax.enable_x64(False):
        with pytest.raises(TypeError, match=f"adamw_step: {said}"):
            step(state, grad)
        with pytest.raises(TypeError, match=f"adamw_init: {said}"):
            xopt.adamw_init(params)
    with jax.enable_x64(True):
        assert step(state, grad).params["a"].dtype == "float64"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_tensors_are_recognised_whatever_the_default_device_is(device: str) -> None:
    from xopt.backends._torch import Plain

    expected = Plain(torch)
    with torch.device(device):
        found = Plain(torch)
    assert found.words == expected.words
    assert found._keys == expected._keys


# Trees.


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


@pytest.mark.parametrize("depth", [40, 60, 400, 900])
def test_deep_trees_are_fused_as_they_are_stepped(depth: int) -> None:
    ones = np.ones(2, np.float32)
    state, step = xopt.lion_init(nested(depth, ones)), fuse(xopt.lion, compiler="blocks")
    for _ in range(2):
        state = step(state, nested(depth, ones))
    leaf = state.params
    for _ in range(depth):
        (leaf,) = leaf
    expected = xopt.lion_step(xopt.lion_step(xopt.lion_init(ones), ones), ones).params
    assert np.array_equal(leaf, expected)


def test_a_tree_that_holds_itself_is_refused() -> None:
    ones = np.ones(1, np.float32)
    loop: list[Any] = [ones]
    loop.append(loop)
    state = xopt.adam_init([ones, ones])
    for call in (
        lambda: xopt.adam_init(loop),
        lambda: xopt.adam_step(state, [ones, ones, loop]),
        lambda: fuse(xopt.adam)(state, [ones, ones, loop]),
        lambda: xopt.adam_step(state, [ones, ones], lr=loop),
        lambda: xopt.tree.clip_by_global_norm(loop, 1.0),
        lambda: xopt.adam_init(nested(2000, ones)),
    ):
        with pytest.raises(ValueError, match=r"must not be nested deeper than \d+ containers, nor hold itself"):
            call()


class Named(dict[str, Any]):
    def __init__(self, name: str, **items: Any) -> None:
        super().__init__(**items)
        self.name = name


@pytest.mark.parametrize(
    ("tree", "kind", "plain"),
    [
        (Named("x", w=np.ones(1)), "Named", "dict"),
        (UserDict(w=np.ones(1)), "UserDict", "dict"),
        (ChainMap({"w": np.ones(1)}), "ChainMap", "dict"),
        ({"w": np.ones(1)}.values(), "dict_values", "list"),
        (type("Layers", (list,), {})([np.ones(1)]), "Layers", "list"),
    ],
)
def test_containers_that_nobody_has_registered_are_named(tree: Any, kind: str, plain: str) -> None:
    with pytest.raises(TypeError, match=rf"got a {kind}, a container that is not registered .* pass a {plain} of its items"):
        xopt.adam_init(tree)


# Other libraries' arrays.


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("ones", [np.ones(2, np.float32), torch.ones(2)], ids=["numpy", "torch"])
def test_what_another_library_traces_is_named(ones: Any, fused: bool) -> None:
    state, step = xopt.nadam_init(ones), fuse(xopt.nadam) if fused else xopt.nadam_step
    with pytest.raises(TypeError, match=r"nadam_step: lr is a jax \w+Tracer, which is traced, but params are of (numpy|torch)"):
        jax.jit(lambda lr: step(state, ones, lr=lr).params)(0.1)
    with pytest.raises(TypeError, match=r"nadam_step: state.step is a jax \w+Tracer, which is traced"):
        jax.jit(lambda t: step(state._replace(step=t), ones).params)(3)
    with pytest.raises(TypeError, match=r"lr is a jax"):
        jax.grad(lambda lr: step(state, ones, lr=lr).params.sum())(0.1)


@pytest.mark.parametrize("which", ["params", "m", "grad"])
@pytest.mark.parametrize("donate", [False, True])
def test_an_array_that_jax_has_deleted_is_named(which: str, donate: bool) -> None:
    def tree() -> dict[str, Any]:
        return {"a": jax.numpy.ones(2), "b": jax.numpy.ones(3)}

    state, grad = xopt.adam_init(tree()), tree()
    (grad if which == "grad" else getattr(state, which))["b"].delete()
    with pytest.raises(ValueError, match=r"adam_step, fused: params\['b'\], a slot of it or its gradient was given away before"):
        fuse(xopt.adam, donate=donate)(state, grad)


def test_a_sparse_gradient_is_left_to_the_step_to_refuse() -> None:
    step = xopt.skip_nonfinite(xopt.sgd_step)
    with pytest.raises(TypeError, match=r"sgd_step: grad is a sparse or nested tensor"):
        step(xopt.sgd_init(torch.ones(2)), torch.ones(2).to_sparse())


def test_schedules_at_counts_beyond_every_float() -> None:
    schedules = xopt.schedules
    inner = schedules.cosine(1.0, 0.25, 10)
    for schedule in (inner, schedules.warmup(inner, 5), schedules.chained([1.0, inner], [3])):
        assert schedule(10**400) == 0.25
    assert schedules.half_life(1.0, 1e308)(10**400) == 0.0
    assert schedules.linear(1.0, 0.5, 3)(2**1023) == 0.5


# Optimizers of torch.


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("count", [-1, -3, 2.5, float("nan"), float("inf"), None, "5"])
def test_a_count_that_is_none_is_refused_by_optimizers(count: Any, fused: bool) -> None:
    """A negative one made the step go on for ever."""
    from xopt.backends import torch_optim

    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = torch_optim.AdamW([p], fused=fused)
    optimizer.step()
    before, saved = p.detach().clone(), optimizer.state_dict()
    saved["state"][0]["step"] = count
    with pytest.raises((TypeError, ValueError), match=r"AdamW: state of parameter 0: step must be"):
        optimizer.load_state_dict(saved)
    optimizer.state[p]["step"] = count
    with pytest.raises((TypeError, ValueError), match=r"AdamW: state\[...\]\['step'\] of params\[0\] must be"):
        optimizer.step()
    assert torch.equal(p.detach(), before)


@pytest.mark.parametrize("fused", [False, True])
def test_parameters_of_one_name_are_two(fused: bool) -> None:
    """A plain step wrote the new numbers of one over the other."""
    from xopt.backends import torch_optim

    pair = [torch.nn.Parameter(torch.full((2,), x)) for x in (1.0, 3.0)]
    for p, g in zip(pair, (1.0, -1.0), strict=True):
        p.grad = torch.full((2,), g)
    torch_optim.SGD([("w", p) for p in pair], lr=0.5, fused=fused).step()
    assert [p.tolist() for p in pair] == [[0.5, 0.5], [3.5, 3.5]]

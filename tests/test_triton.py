"""Triton's kernels: their text in Triton's interpreter on a CPU, and what they tell a GPU to do. None of this is a GPU's result."""

import inspect
import os
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from libraries import busy
from ptx import doubts

import xopt
from xopt import backends
from xopt.backends import _torch, base, fuse
from xopt.backends._torch import INTERPRETED
from xopt.backends.compilers import launches as device
from xopt.backends.compilers.launches import Batch, Chosen
from xopt.backends.fused.fallback import CompileError, OrElse
from xopt.backends.fused.fuser import addresses
from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS
from xopt.conformance.compare.check import check_rule
from xopt.conformance.report.program import script
from xopt.conformance.results import IDENTICAL, WITHIN, WRONG
from xopt.conformance.structures import check_structures
from xopt.conformance.target import Effort, Target
from xopt.program import Operation, Program, record

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton", reason="Triton is not installed, or has nothing for this system")
from xopt.backends.compilers import triton_kernel  # noqa: E402 - it imports torch
from xopt.backends.compilers.triton_kernel import BLOCK, OPTIONS, KernelText, TritonFuser, TritonKernels, jitted  # noqa: E402

DTYPES = list(base.COMPUTE)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    backends._availability.cache_clear()
    yield
    forget()
    backends._availability.cache_clear()


def forget() -> None:
    """What was compiled before something was planted."""
    for rule in xopt.RULES.values():
        rule.compiled.clear()


def tensor(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    rng = np.random.default_rng(seed)
    values = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 3, shape))
    return torch.from_numpy(values).to(getattr(torch, dtype))


def tree(seed: int, dtype: str) -> dict[str, Any]:
    """Leaves of all layouts, and of the sizes at which a program of a launch ends."""
    return {
        "few": [tensor(seed, (7,), dtype), tensor(seed + 1, (2, 3, 4), dtype)],
        "ends": [tensor(seed + i, (BLOCK * n + extra,), dtype) for i, (n, extra) in enumerate([(1, -1), (1, 0), (1, 1), (3, 0)])],
        "strided": tensor(seed + 2, (12, 9), dtype)[::2, 1::3],
        "strided alike": tensor(seed + 7, (12, 9), dtype)[::2, 1::3],
        "transposed": tensor(seed + 3, (5, 6), dtype).T,
        "odd address": tensor(seed + 4, (10,), dtype)[1:],
        "scalar": tensor(seed + 5, (), dtype),
        "empty": tensor(seed + 6, (0, 4), dtype),
    }


def grads(seed: int, dtype: str) -> dict[str, Any]:
    """Gradients in other layouts than the params'."""
    return tree(seed, dtype) | {
        "strided": tensor(seed + 2, (6, 1), dtype).expand(6, 3),
        "transposed": torch._neg_view(tensor(seed + 3, (5, 6), dtype).T),
        "odd address": tensor(seed + 4, (9,), dtype),
    }


def numpys(tree: Any) -> Any:
    return optree.tree_map(lambda x: x.resolve_neg().numpy().copy(), tree)


def assert_numpys(found: Any, wanted: Any) -> None:
    for path, x, y in zip(optree.tree_paths(found), optree.tree_leaves(found), optree.tree_leaves(wanted), strict=True):
        if isinstance(x, torch.Tensor):
            assert x.shape == y.shape
            assert np.array_equal(x.numpy(), y, equal_nan=True), path
        else:
            assert x == y


def checked(rule: str, dtype: str = "float32", examples: int = 6) -> Any:
    (cell,) = check_rule(rule, dtype, [Target("torch", INTERPRETED, "fused")], Effort(examples, pool=4, shrink=False))
    return cell


# The numbers.


@pytest.mark.parametrize("donate", [False, True], ids=["new", "donated"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", xopt.RULES)
def test_bits_are_numpys(name: str, dtype: str, donate: bool) -> None:
    rule = xopt.RULES[name]
    hyper = busy(rule) | {"lr": dict(zip(params := tree(0, dtype), (0.5**i for i in range(9)), strict=False))}
    step = fuse(rule, compiler="triton", donate=donate)
    state, plain = rule.init(params), rule.init(numpys(params))
    given = optree.tree_leaves(state.params)
    before = [x.clone() for x in given]
    for i in range(3):
        grad = grads(10 * i + 1, dtype)
        state = step(state, grad, **hyper)
        with np.errstate(all="ignore"):
            plain = rule.step(plain, numpys(grad), **hyper)
        assert_numpys(state, plain)
    same = [torch.equal(x, y) for x, y in zip(given, before, strict=True)]
    assert all(same) is not donate


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_conformance_suite_finds_its_bits(dtype: str) -> None:
    """Of each rule a run of its own asks."""
    assert checked("adamw", dtype).verdict == IDENTICAL


def test_states_without_slots_and_of_tuples() -> None:
    for rule, hyper in ((xopt.adam, {"beta1": 0.0}), (xopt.aggmo, {"betas": (0.5, 0.0, 0.9, 0.99)}), (xopt.sgd, {})):
        params, step = tree(0, "float32"), fuse(rule, compiler="triton")
        state, plain = rule.bind(**hyper).init(params), rule.bind(**hyper).init(numpys(params))
        for i in range(2):
            grad = grads(i, "float32")
            state, plain = step(state, grad, **hyper), rule.step(plain, numpys(grad), **hyper)
            assert_numpys(state, plain)


def test_nan_and_the_sign_of_nothing() -> None:
    params, grad = torch.zeros(5), torch.tensor([float("nan"), 0.0, -0.0, float("inf"), -1e-45])
    new = fuse(xopt.lion, compiler="triton")(xopt.lion_init(params), grad, lr=0.5)
    assert_numpys(new, xopt.lion_step(xopt.lion_init(params.numpy()), grad.numpy(), lr=0.5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operations_that_no_rule_uses(dtype: str) -> None:
    """Also numbers that float32 does not hold."""
    operations = (
        Operation("t0", "maximum", ("grad", "params")),
        Operation("t1", "minimum", ("t0", 0.1)),
        Operation("t2", "less_equal", ("t1", "params")),
        Operation("t3", "not_equal", ("params", "params")),
        Operation("t4", "where", ("t2", "t1", "c_lr")),
        Operation("t5", "where", ("t3", 2.0, "t4")),
    )
    program = Program("example", ("params", "grad"), ("c_lr",), operations, {"params": "t5"}, {})
    nan = float("nan")
    x, g = (torch.tensor(x, dtype=getattr(torch, dtype)) for x in ([1.0, nan, -3.0, nan], [2.0, 1.0, nan, nan]))
    new = torch.zeros_like(x)
    memory, one = _torch.TorchMemory(), np.zeros(1, np.int64)
    sources, targets = addresses(memory, [[x], [g]]), addresses(memory, [[new]])
    chosen = Chosen([0], one, one + x.numel(), strided=False, present=[0, 1], sources=None, targets=None)
    batch = Batch(chosen, [[x], [g]], [[new]], sources, targets, [[0.3]])
    for launch in TritonKernels(program, dtype).prepared(batch):
        launch()
    real = np.dtype(dtype).type
    assert new.tolist() == [float(real(0.1)), 2.0, float(real(0.3)), 2.0]


def test_leaves_of_more_than_2_31_numbers() -> None:
    """One program of a launch of such a leaf: its last numbers, of which the memory is there."""
    beyond = 2**31
    x, new = torch.arange(5.0), torch.zeros(5)
    program = record(xopt.sgd, [], xopt.sgd.coefficients(1, lr=0.5))
    kernels = TritonKernels(program, "float32")
    layout = KernelText(program, "float32", None)
    words = dict.fromkeys(layout.words, 0)
    (bits,) = {*kernels._bits([0.5] * len(program.coefficients)).tolist()}
    words |= {"begin": -(beyond // BLOCK), "size": beyond + 5, **dict.fromkeys(layout.coefficients, bits)}
    words |= {name: (new if name.startswith("new") else x).data_ptr() - 4 * beyond for name in layout.arrays}
    table = torch.tensor([words[name] for name in layout.words])
    jitted(layout.text(), "sgd float32", True)[(1,)](table, 1, ALIGNED=False, BLOCK=BLOCK)
    (expected,) = optree.tree_leaves(xopt.sgd_step(xopt.sgd_init(x), x, lr=0.5, weight_decay=0.5).params)
    assert new.tolist() == (x - 0.5 * (x + 0.5 * x)).tolist() == expected.tolist()


def test_several_threads_step_at_once() -> None:
    step, params = fuse(xopt.adam, compiler="triton"), [tensor(i, (50,)) for i in range(4)]
    found: dict[int, Any] = {}

    def run(i: int) -> None:
        found[i] = step(xopt.adam_init(params[i]), params[i]).params

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(params):
        assert np.array_equal(found[i].numpy(), xopt.adam_step(xopt.adam_init(x.numpy()), x.numpy()).params)


def drawn(name: str, examples: int) -> Any:
    """What situations of drawn structures show. Some take the plain step, in which torch's root on a CPU is off by an ulp."""
    plain = {dtype: replace(FLOAT_FORMATS[dtype], ulps={"sqrt": 1.0}) for dtype in ARITHMETICS}
    target = Target("torch", INTERPRETED, "fused", fallback=plain)
    (result,) = check_structures(name, "float32", [target], Effort(examples, shrink=False))
    return result


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_drawn_structures_keep_the_law(name: str) -> None:
    result = drawn(name, 20)
    assert result.broken is None
    assert result.examples >= 10


# What the device is asked.


@pytest.mark.parametrize("name", xopt.RULES)
def test_a_tree_is_one_launch_for_all_that_is_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[Any] = []
    monkeypatch.setattr(triton_kernel, "_launch", lambda *arguments: launches.append(arguments))
    whole, rule = torch.ones(4001), xopt.RULES[name]
    step = fuse(rule, compiler="triton")
    for params, wanted in (
        (torch.ones(2 * BLOCK), 1),
        ([torch.ones(3 + i) for i in range(44)], 1),
        ([torch.ones(2) for _ in range(1000)], 1),
        ([whole[4 * i + i % 2 :][:2] for i in range(1000)], 2),  # half of them are not at multiples of 16 bytes
        ({"a": torch.ones(3), "b": torch.ones(3, dtype=torch.float64), "c": torch.ones(4, 6)[:, ::2]}, 3),
    ):
        launches.clear()
        step(rule.init(params), params)
        assert len(launches) == wanted


def test_other_numbers_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    text = KernelText.text
    monkeypatch.setattr(KernelText, "text", lambda self: made.append(self.dtype) or text(self))
    jitted.cache_clear()
    step, state = fuse(xopt.adamw, compiler="triton"), xopt.adamw_init(torch.ones(4))
    for i in range(4):
        state = step(state, torch.ones(4), lr=0.1 / (i + 1), weight_decay=0.1 * i)
    assert jitted.cache_info().misses == 1


# What is refused, and what takes its place.


def test_without_the_interpreter_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ImportError, match="where TRITON_INTERPRET=1 is set alone"):
        fuse(xopt.sgd, compiler="triton")(xopt.sgd_init(torch.ones(3)), torch.ones(3))
    assert _torch.TorchBackend.devices() == ("cpu",)


def test_a_step_that_was_made_with_the_interpreter_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    step = fuse(xopt.sgd, compiler="triton")
    step(xopt.sgd_init(torch.ones(3)), torch.ones(3))
    monkeypatch.delenv("TRITON_INTERPRET")
    state = xopt.sgd_init(torch.ones(3, dtype=torch.float64))
    with pytest.raises(CompileError, match="TRITON_INTERPRET must be 1, as when the step was made"):
        step(state, torch.ones(3, dtype=torch.float64))


def on_gpu() -> Any:
    """What stands for a tensor there, where nothing but its device is asked for."""
    return type("Tensor", (), {"device": torch.device("cuda:0")})()


def test_a_gpus_memory_is_not_interpreted() -> None:
    with pytest.raises(ImportError, match="cannot read a GPU's memory"):
        backends.BACKENDS["torch"].fuser(xopt.sgd, "triton", on_gpu())


def test_on_a_gpu_it_is_the_default_and_torch_compile_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    fuser = backends.BACKENDS["torch"].fuser(xopt.sgd, None, on_gpu())
    assert isinstance(fuser, OrElse)
    assert isinstance(fuser.first, TritonFuser)
    assert isinstance(backends.BACKENDS["torch"].fuser(xopt.sgd, "triton", on_gpu()), TritonFuser)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(UserWarning, match="on a GPU go through torch.compile, as Triton cannot be used"):
        assert not isinstance(backends.BACKENDS["torch"].fuser(xopt.sgd, None, on_gpu()), TritonFuser)
    _torch.say_once.cache_clear()


@pytest.mark.parametrize("donate", [False, True])
def test_where_triton_does_not_compile_nothing_is_written(donate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str, name: str, interpreted: bool) -> Any:
        kernel = type("Kernel", (), {"__getitem__": lambda self, grid: None})()

        def warmup(*arguments: Any, **how: Any) -> None:
            msg = "no such instruction"
            raise RuntimeError(msg)

        kernel.warmup = warmup
        return kernel

    monkeypatch.setattr(triton_kernel, "jitted", fails)
    x = torch.ones(3)
    state = xopt.momentum_init(x)
    with pytest.raises(CompileError, match=r"Triton fails \(RuntimeError: no such instruction\)"):
        fuse(xopt.momentum, compiler="triton", donate=donate)(state, x.clone())
    assert x.tolist() == [1.0] * 3
    monkeypatch.undo()
    os.environ["TRITON_INTERPRET"] = "1"
    xopt.momentum_step(state, x.clone())  # it was not given away


def test_what_a_donating_step_writes_over_is_told_to_autograd_and_refused_afterwards() -> None:
    state = xopt.momentum_init(torch.ones(3))
    before = state.params._version
    new = fuse(xopt.momentum, compiler="triton", donate=True)(state, torch.ones(3))
    assert new.params.data_ptr() == state.params.data_ptr()
    assert state.params._version > before
    with pytest.raises(ValueError, match="was donated"):
        fuse(xopt.momentum, compiler="triton", donate=True)(state, torch.ones(3))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (lambda: torch.ones(1).expand(4), "is broadcast"),
        (lambda: torch._neg_view(torch.ones(4)), "negated view"),
        (lambda: (lambda x: [x[:3], x[1:]])(torch.ones(4)), "shares memory"),
    ],
)
def test_what_cannot_be_written_over_is_refused(params: Callable[[], Any], says: str) -> None:
    given = params()
    with pytest.raises(ValueError, match=says):
        fuse(xopt.sgd, compiler="triton", donate=True)(xopt.sgd_init(given), optree.tree_map(torch.ones_like, given))


def test_no_graph_is_recorded() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(TypeError, match="no graph is recorded of a fused step"):
        fuse(xopt.sgd, compiler="triton")(xopt.sgd_init(x), torch.ones(3))


def test_within_torch_compile_it_is_the_same_step() -> None:
    step = fuse(xopt.adamw, compiler="triton")

    def doubled(state: Any, grad: Any) -> Any:
        return step(state, {name: 2 * g for name, g in grad.items()}, lr=0.125)

    state = xopt.adamw_init({"a": torch.ones(5), "b": torch.zeros(3, 2)})
    grad = {"a": torch.full((5,), 0.5), "b": torch.ones(3, 2)}
    compiled = torch.compile(doubled, backend="eager")
    want, got = doubled(doubled(state, grad), grad), compiled(compiled(state, grad), grad)
    assert got.step == want.step == 2
    assert all(torch.equal(want.params[name], got.params[name]) for name in grad)


def test_a_program_to_paste_asks_for_the_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plant(monkeypatch, Fault("ascends", "params - ", "params + "))
    cell = checked("sgd")
    assert "compiler=backend.asked_compiler" in script(cell.to_dict())
    exec(script(cell.to_dict()), {})
    assert "SGDState" in capsys.readouterr().out

    # Faults that are planted in the kernels.


class Fault(NamedTuple):
    name: str
    old: str  # of a kernel's text
    new: str
    rule: str = "sgd"
    dtype: str = "float32"
    verdict: str = WRONG  # the right kernel's is IDENTICAL


IN_TEXT = (
    Fault("ascends", "params - ", "params + "),
    Fault("leaves out the last number of a leaf", "at < size)", "at < size - 1)"),
    Fault("the first numbers of a leaf go to the one before", "<= block", "< block"),
    Fault("the coefficients of the first leaf", "c_lr = tl.load(row", "c_lr = tl.load(table"),
    Fault("another word of the table", "c_lr = tl.load(row + 2)", "c_lr = tl.load(row + 1)"),
    Fault("a slot is not written", "tl.store(new_v + _at", "tl.store(old_v + _at", "momentum"),
    Fault("bfloat16 is cut off", " + 0x7FFF + ", " + 0 * ", "sgd", "bfloat16"),
    Fault("eps within the root", "t10 = tl.sqrt_rn(t9)", "t10 = tl.sqrt_rn(t9 + c_eps)", "adam"),
    Fault(
        "the product by a reciprocal", "tl.div_rn(t7, t11)", "t7 * (1.0 / t11)", "adam", verdict=WITHIN
    ),  # whose bits are NumPy's
    Fault("float64 by way of float32", "bitcast=True)", "bitcast=True).to(tl.float32)", "sgd", "float64"),
    Fault("a sign of what is not 0", "tl.where(t2 < 0, -1.0, t2)", "tl.where(t2 < 0, -1.0, 1.0)", "lion"),
)


def plant(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    text = KernelText.text

    def edited(self: KernelText) -> str:
        right = text(self)
        assert fault.old in right, right
        return right.replace(fault.old, fault.new)

    monkeypatch.setattr(KernelText, "text", edited)
    forget()


@pytest.mark.parametrize("fault", IN_TEXT, ids=lambda fault: fault.name)
def test_a_fault_in_a_kernel_is_seen(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, fault)
    assert checked(fault.rule, fault.dtype, 20).verdict == fault.verdict  # few have several groups


class CodeFault(NamedTuple):
    name: str
    where: Any  # a class or a module
    function: str
    old: str
    new: str
    donate: bool = False


IN_CODE = (
    CodeFault("arrays are swapped", TritonKernels, "prepared", "sources[:, self._reads]", "sources[:, self._reads[::-1]]"),
    CodeFault("the coefficients of the first row", TritonKernels, "prepared", "[chosen.rows]", "[0 * chosen.rows]"),
    CodeFault("a dimension is left out", TritonKernels, "_strides", "stride in x.stride()", "stride in (*x.stride()[:-1], 0)"),
    CodeFault("what is strided is taken as dense", device, "_dense", "n != 1 and stride != expected", "False", donate=True),
    CodeFault("arrays of other layouts are taken as alike", device, "_one_layout", "for x in arrays}", "for x in arrays[:1]}"),
    CodeFault(
        "the last block of a leaf is another one's",
        TritonKernels,
        "prepared",
        "-(-chosen.sizes[leaves] // BLOCK)",
        "np.maximum(chosen.sizes[leaves] // BLOCK, 1)",
    ),
    CodeFault(
        "the last block of all is not launched", TritonKernels, "_prepared", "kernel[(programs,)]", "kernel[(programs - 1,)]"
    ),
)


@pytest.mark.parametrize("fault", IN_CODE, ids=lambda fault: fault.name)
def test_a_fault_in_what_is_launched_is_seen(fault: CodeFault, monkeypatch: pytest.MonkeyPatch) -> None:
    source = textwrap.dedent(inspect.getsource(getattr(fault.where, fault.function)))
    assert source.count(fault.old) == 1, source
    names = dict((device if fault.where is device else triton_kernel).__dict__)
    exec(source.replace(fault.old, fault.new), names)
    monkeypatch.setattr(fault.where, fault.function, names[fault.function])
    with pytest.raises(AssertionError):
        test_bits_are_numpys("sgd", "float32", fault.donate)


def test_drawn_structures_see_faults_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_one_layout", lambda *_: True)
    assert drawn("sgd", 40).broken is not None


# What the kernels tell a GPU. They are compiled for it, and read.

TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32)}


def program_of(name: str) -> Program:
    return xopt.RULES[name].program


def listing(program: Program, dtype: str, dims: int | None, target: str, **options: Any) -> str:
    kernel = jitted(KernelText(program, dtype, dims).text(), f"{program.rule} {dtype}", False)
    signature = {"table": "*i64", "leaves": "i32", "ALIGNED": "constexpr", "BLOCK": "constexpr"}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs={(2,): True, (3,): BLOCK})
    gpu = triton.backends.compiler.GPUTarget(*TARGETS[target])
    return str(triton.compile(source, target=gpu, options=OPTIONS | options).asm["ptx"])


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", xopt.RULES)
def test_each_operation_rounds_to_nearest(name: str, dtype: str) -> None:
    """For both targets, each with one of the layouts, the rules in turn: what a kernel computes depends on neither."""
    program = program_of(name)
    turn = (list(xopt.RULES).index(name) + list(DTYPES).index(dtype)) % 2
    every = [(dims, target) for dims in (None, 2) for target in TARGETS]
    for dims, target in every if NIGHTLY else (every[turn], every[3 - turn]):
        ptx = listing(program, dtype, dims, target)
        assert doubts(ptx) == []
        assert ".ftz" not in ptx
        real = "f64" if dtype == "float64" else "f32"
        asked = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "sqrt": "sqrt"}
        kinds = {f"{asked[x.name]}.rn.{real}" for x in program.operations if x.name in asked}
        assert all(f"{kind} " in ptx for kind in kinds)
        if dims is None:
            assert re.search(r"ld\.global\.v[24]\.b(32|64)", ptx), "numbers are read one by one"


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize(
    ("old", "new", "options", "found"),
    [
        ("", "", {"enable_fp_fusion": True}, {"fma.rn.f32", "mul.f32"}),
        ("tl.sqrt_rn(", "tl.sqrt(", {}, {"sqrt.approx.ftz.f32"}),
        ("tl.div_rn(t7, t11)", "t7 / t11", {}, {"div.full.f32"}),
    ],
    ids=["fused", "root", "division"],
)
def test_a_listing_that_rounds_otherwise_is_seen(
    old: str, new: str, options: dict[str, Any], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        plant(monkeypatch, Fault("", old, new))
    assert set(doubts(listing(program_of("adam"), "float32", None, "sm_80", **options))) >= found

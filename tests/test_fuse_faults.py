"""The conformance suite sees faults that are planted in the compilers of fused steps, while the rules' own text stays right."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

import xopt
from xopt.backends import get
from xopt.backends.compilers import host, jax_jit, numba_kernels
from xopt.backends.compilers.tables import TableFuser
from xopt.backends.fused.work import Work
from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS
from xopt.conformance.compare.check import check_rule
from xopt.conformance.laws import check_laws, lab
from xopt.conformance.results import HELD, IDENTICAL, SUBNORMALS, WITHIN, WRONG
from xopt.conformance.target import Effort, Target
from xopt.slots import Schema


class Fault(NamedTuple):
    name: str
    old: str  # of a kernel's text
    new: str
    verdict: str
    rule: str = "ademamix"
    dtype: str = "float32"


IN_KERNELS = (
    Fault("multiplies by a reciprocal", "t22 / t24", "t22 * (real(1.0) / t24)", WRONG),  # of a subnormal number it is infinite
    Fault("contracts to fma", 'error_model="numpy"', 'error_model="numpy", fastmath={"contract"}', WITHIN),
    Fault("takes the root of a reciprocal", "sqrt(", "real(1.0) / sqrt(real(1.0) / ", WITHIN, "adam", "float64"),
    Fault("leaves out the last number of a leaf", "range(_m)", "range(_m - 1)", WRONG, "sgd"),
    Fault("forgets a slot", "_v_[_i] = ", "v_ = ", WRONG, "momentum"),
    Fault("ascends", "params - ", "params + ", WRONG, "sgd"),
    Fault("has the sign of 0 wrong", "(zero if t2 == zero else t2)", "real(-1.0)", WRONG, "lion"),
    Fault("truncates what it stores", "float_to_half(t2)", "float_to_half(t2 * real(0.9995))", WRONG, "sgd", "float16"),
    Fault("uses the coefficients of the first leaf", "rows[_leaf]", "rows[0]", WRONG),
)


def checked(rule: str, dtype: str, backend: str = "numpy", examples: int = 8) -> Any:
    formats = {name: replace(FLOAT_FORMATS[name], flushes=backend == "jax") for name in ARITHMETICS}
    (cell,) = check_rule(rule, dtype, [Target(backend, "cpu", "fused", formats)], Effort(examples, pool=4, shrink=False))
    return cell


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Edits the text of all kernels, which are not kept on disk then."""
    monkeypatch.setattr(numba_kernels, "cache_folder", lambda: None)
    source = numba_kernels.source

    def plant(old: str, new: str) -> None:
        def edited(*args: Any) -> str:
            text = source(*args)
            assert old in text, text
            return text.replace(old, new)

        monkeypatch.setattr(numba_kernels, "source", edited)
        forget()

    return plant


def forget() -> None:
    """What was compiled before something was planted."""
    for rule in xopt.RULES.values():
        rule.compiled.clear()


@pytest.mark.parametrize("fault", IN_KERNELS, ids=lambda fault: fault.name)
def test_a_fault_in_a_kernel_is_seen(fault: Fault, edit: Callable[[str, str], None]) -> None:
    edit(fault.old, fault.new)
    assert checked(fault.rule, fault.dtype, examples=20).verdict == fault.verdict  # few have several groups


def test_without_a_fault_the_same_checks_pass() -> None:
    for rule, dtype in {("nadam", "float32"), *((fault.rule, fault.dtype) for fault in IN_KERNELS)}:
        assert checked(rule, dtype).verdict == IDENTICAL


def test_coefficients_of_another_leaf_break_a_law(edit: Callable[[str, str], None]) -> None:
    def broken() -> set[str]:
        lab._compiled.cache_clear()
        results = check_laws("sgd", "float32", [Target("numpy", "cpu", "fused")], Effort(2, shrink=False))
        return {result.law for result in results if result.reason is None and result.verdict != HELD}

    assert broken() == set()
    edit("rows[_leaf]", "rows[0]")
    try:
        assert broken() == {"a tree of hyperparameters makes groups"}
    finally:
        lab._compiled.cache_clear()


def test_coefficients_that_stay_those_of_the_first_step_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run, first = host._run, {}

    def stale(kernel: Any, groups: Any, *rest: Any, **options: Any) -> None:
        run(
            kernel,
            [group._replace(numbers=first.setdefault((kernel, i), group.numbers)) for i, group in enumerate(groups)],
            *rest,
            **options,
        )

    monkeypatch.setattr(host, "_run", stale)
    assert checked("ademamix", "float32").verdict == WRONG


class CacheFault(NamedTuple):
    name: str
    where: type
    method: str
    old: str
    new: str


IN_CACHES = (
    CacheFault(
        "the coefficients forget what leaves carry",
        Work,
        "coefficients",
        "*(x if type(x) is float else id(x) for x in carried)",
        "",
    ),
    CacheFault("the coefficients forget the group", Work, "coefficients", "id(self.hyper[i]), ", ""),
    CacheFault(
        "the groups forget what leaves carry", TableFuser, "groups", "for at, *_ in self.rule.carried_at:", "for at, *_ in ():"
    ),
    CacheFault("the groups forget the group", TableFuser, "groups", "shared.append(list(map(id, work.hyper)))", "pass"),
    CacheFault(
        "the carried numbers of the first leaf go on",
        TableFuser,
        "carry",
        "getattr(group.c, name)",
        "getattr(groups[0].c, name)",
    ),
)


@pytest.mark.parametrize("fault", IN_CACHES, ids=lambda fault: fault.name)
def test_a_fault_in_what_leaves_share_is_seen(fault: CacheFault, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the comparison with the golden, whose examples have groups and leaves that carry different numbers."""
    source = textwrap.dedent(inspect.getsource(getattr(fault.where, fault.method)))
    assert source.count(fault.old) == 1, source
    names = dict(sys.modules[fault.where.__module__].__dict__)
    exec(source.replace(fault.old, fault.new), names)
    monkeypatch.setattr(fault.where, fault.method, names[fault.method])
    assert checked("nadam", "float32", examples=40).verdict == WRONG  # as many as the profile of continuous integration has


def test_a_fault_in_blocks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They forget what they computed of a slot."""
    monkeypatch.setattr(type(get("numpy")), "compiler", "blocks")
    monkeypatch.setattr("xopt.backends._numpy.numba_or_reason", lambda: "numba is hidden")
    monkeypatch.setattr("xopt.backends._numpy.say_once", lambda _: None)
    assert checked("momentum", "float32").verdict == IDENTICAL
    arrays = Schema.arrays

    def forgetful(schema: Schema, row: Any, like: Any = None) -> list[Any]:
        params, *slots = arrays(schema, row, like)
        return [params, *(slots if like is None else map(np.zeros_like, slots))]  # what is computed has the form of what was

    monkeypatch.setattr(Schema, "arrays", forgetful)
    assert checked("momentum", "float32").verdict == WRONG


def test_contraction_in_jax_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    assert checked("adam", "float32", "jax").verdict == SUBNORMALS
    update = jax_jit.JaxJitFuser._update
    monkeypatch.setattr(jax_jit.JaxJitFuser, "_update", lambda self, program: plain(update(self, program)))
    forget()
    assert checked("adam", "float32", "jax").verdict == WITHIN


def plain(update: Callable[..., Any]) -> Callable[..., Any]:
    """With a 1 that XLA knows."""
    return lambda old, grad, row: update(old, grad, [*row[:-1], 1.0])

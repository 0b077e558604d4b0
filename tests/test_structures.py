"""Drawn structures: what they find, what they print, and that each part of what they are judged by can fail."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xopt
from xopt import backends
from xopt.conformance.results import HELD, BrokenError
from xopt.conformance.structures import check_structures, paths
from xopt.conformance.structures.check import modes_of
from xopt.conformance.structures.draw import CHOICES, COPIES, LAYOUTS, MAKERS, Draft, situations
from xopt.conformance.structures.law import Play, Product
from xopt.conformance.structures.memory import Snapshot, cannot_be_given, region_of
from xopt.conformance.structures.parts import Layer, OrderedDict, Pair, as_strided, defaultdict, numbers, read_only
from xopt.conformance.structures.situation import Mode, Situation
from xopt.conformance.target import Effort, Target

NUMPY = [Target("numpy", "cpu", "eager")]
SETUP = ("params = {'b': numbers((3,), 0), 'a': numbers((2, 3), 1)}", "hyper = dict(lr=0.5)")


def situation(*stage: str, rule: str = "lion", **more: Any) -> Situation:
    setup = (*SETUP, f"state = xopt.{rule}.bind(**hyper).init(params)")
    lines = stage or ("grad = {'b': numbers((3,), 7), 'a': numbers((2, 3), 8)}",)
    return Situation("numpy", rule, setup, (), (), (lines,), ())._replace(**more)


def play(drawn: Situation, mode: Mode | None = None, product: Product | None = None) -> None:
    mode = mode or Mode("eager")
    Play(product or Product(), backends.get("numpy"), Target("numpy", "cpu", mode.mode)).run(drawn, mode)


def test_nothing_that_a_graph_leads_to_is_copied() -> None:
    """The second step may bring what autograd follows, after the copy was drawn: torch copies the leaves of a graph alone."""
    draw, found = random.Random(0), 0
    for _ in range(3000):
        drawn = Draft(draw.randbytes(CHOICES), xopt.adam, "torch", "float32", ["float16", "float32"], "cpu", 1, False).situation()
        copies = [line for stage in drawn.stages for line in stage if line in COPIES.values()]
        found += bool(copies)
        assert not (drawn.graph and copies)
        assert bool(copies) == any(feature in COPIES for feature in drawn.features)
    assert found > 100


@pytest.mark.parametrize("name", ["sgd", "nadam", "aggmo", "lion"])
def test_the_law_holds_of_numpy(name: str) -> None:
    results = check_structures(name, "float32", [*NUMPY, Target("numpy", "cpu", "fused")], Effort(15))
    assert [(r.mode, r.verdict, r.broken) for r in results] == [("eager", HELD, None), ("fused", HELD, None)]
    assert all(r.examples == 15 and r.numbers > 100 for r in results)


def test_what_does_not_fail_again_is_said_to_be_not_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, play = iter(range(10**6)), Play.run

    def fails_once(self: Play, situation: Situation, mode: Mode) -> None:
        if next(calls) == 5:
            msg = "a race"
            raise BrokenError(msg)
        play(self, situation, mode)

    monkeypatch.setattr(Play, "run", fails_once)
    targets = [*NUMPY, Target("array_api_strict", "cpu", "eager")]
    one, other = check_structures("sgd", "float32", targets, Effort(10))
    assert one.broken is not None
    assert one.broken["reason"] == "BrokenError: a race"
    assert "not reproducible" in one.broken["again"]
    assert other.verdict == HELD


def test_a_dtype_that_a_library_lacks_is_not_run() -> None:
    (result,) = check_structures("sgd", "bfloat16", NUMPY, Effort(2))
    assert result.reason == "numpy has no bfloat16"


def test_the_same_seed_draws_the_same() -> None:
    def run(seed: int) -> Any:
        return [r.to_dict() for r in check_structures("adam", "float64", NUMPY, Effort(6, seed))]

    assert run(0) == run(0)
    assert run(0) != run(1)


@settings(max_examples=25)
@given(st.data())
def test_a_program_runs_as_it_is_printed(data: st.DataObject) -> None:
    """But for what it does to constants of the package, and for what it must refuse."""
    drawn = data.draw(situations(xopt.nadam, "numpy", "float32", ["float32", "float64"]))
    if not drawn.troubles:
        text = drawn._replace(constants="").program(Mode("eager")).replace("print(new)", "")
        names: dict[str, Any] = {}
        with np.errstate(all="ignore"):
            exec(text, names)
        assert isinstance(names["new"], xopt.RULES["nadam"].state)


def test_the_smallest_counterexample_is_a_program() -> None:
    """Of a law that allows no OrderedDict."""
    rule = xopt.RULES["lion"]

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(xopt, name)

        @staticmethod
        def lion_step(state: Any, grad: Any, **hyper: Any) -> Any:
            if type(state.params) is OrderedDict:
                msg = "lion_step: an OrderedDict"
                raise ValueError(msg)
            return rule.step(state, grad, **hyper)

    product = Product(Refusing(), backends)  # type: ignore[arg-type]
    (result,) = check_structures("lion", "float32", NUMPY, Effort(60), product)
    assert result.broken is not None
    lines = result.broken["program"].splitlines()
    assert "params = OrderedDict({'b': w0})" in " ".join(lines) or len(lines) <= 14, result.broken["program"]
    found = subprocess.run([sys.executable, "-c", result.broken["program"]], capture_output=True, text=True, check=True)
    assert "OrderedDict" in found.stdout


# That each part of the law can fail.


def broken(drawn: Situation, mode: Mode | None = None, product: Product | None = None) -> str:
    with pytest.raises(BrokenError) as error:
        play(drawn, mode, product)
    return str(error.value)


class Altered:
    """xopt with another step of one rule."""

    def __init__(self, alter: Any) -> None:
        self.alter = alter

    def __getattr__(self, name: str) -> Any:
        return getattr(xopt, name)

    def lion_step(self, state: Any, grad: Any, **hyper: Any) -> Any:
        return self.alter(state, grad, xopt.lion_step(state, grad, **hyper))


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda state, grad, new: new._replace(params=dict(sorted(new.params.items()))), "has the keys"),
        (lambda state, grad, new: new._replace(m=OrderedDict(new.m)), "state.m: the tree is a OrderedDict"),
        (lambda state, grad, new: new._replace(params={k: x + 1 for k, x in new.params.items()}), "must be"),
        (lambda state, grad, new: new._replace(params={k: x * np.float32(np.nan) for k, x in new.params.items()}), "must be"),
        (lambda state, grad, new: new._replace(m={k: x.astype("f8") for k, x in new.m.items()}), "float64"),
        (lambda state, grad, new: new._replace(params={k: x.astype(">f4") for k, x in new.params.items()}), "dtype"),
        (lambda state, grad, new: new._replace(step=7), "state.step is 7"),
        (lambda state, grad, new: state.params["b"].fill(0) or new, "wrote to memory"),
        (lambda state, grad, new: grad["a"].fill(0) or new, "wrote to memory"),
    ],
)
def test_what_is_not_right_is_seen(alter: Any, says: str) -> None:
    play(situation())
    assert says in broken(situation(), product=Product(Altered(alter), backends))  # type: ignore[arg-type]


def test_what_is_not_refused_is_seen() -> None:
    assert "is not refused" in broken(situation(troubles=(("nothing at all", "pass"),)))


def test_an_error_that_does_not_name_the_step_is_seen() -> None:
    def alter(state: Any, grad: Any, new: Any) -> Any:
        msg = "no"
        raise ValueError(msg)

    product = Product(Altered(alter), backends)  # type: ignore[arg-type]
    assert "does not name lion_step" in broken(situation(troubles=(("everything", "pass"),)), product=product)


@pytest.mark.parametrize("compiler", ["numba", "blocks"])
def test_an_interruption_is_played(compiler: str) -> None:
    if compiler == "numba":
        pytest.importorskip("numba", reason="numba is not installed")
    for part in (0.01, 0.5, 0.9, 0.99):
        play(situation(interrupt=part), Mode("fused", compiler, donate=True))
        play(situation(interrupt=part), Mode("fused", compiler))


# What stands at which path, and what is in memory.


def test_paths_pair_by_key() -> None:
    tree = OrderedDict({"b": [1, Pair(2, 3)], "a": Layer(4, None)})
    found = dict(paths.leaves(tree))
    assert found == {("b", 0): 1, ("b", 1, "weight"): 2, ("b", 1, "bias"): 3, ("a", "weight"): 4}
    assert all(paths.at(tree, path) == x for path, x in found.items())
    assert paths.prefix_at({"a": 0.5, "b": None}, ("b", 1, "weight")) is None
    assert paths.prefix_at({"a": 0.5, "b": [0.25, 0.125]}, ("b", 1, "weight")) == 0.125
    assert paths.code(("b", 0)) == "['b'][0]"


@pytest.mark.parametrize(
    "other",
    [
        {"a": [1, 2], "b": 3},
        OrderedDict({"b": 3, "a": [1, 2]}),
        {"b": 3, "a": (1, 2)},
        {"b": 3, "a": [1]},
        defaultdict(list, {"b": 3, "a": [1, 2]}),
    ],
)
def test_another_form_is_seen(other: Any) -> None:
    given: Any = {"b": 3, "a": [1, 2]}
    assert paths.same_form(given, {"b": None, "a": [None, (1, 2)]}) is None  # what is at a leaf does not matter
    assert paths.same_form(given, other)


def test_only_what_was_given_away_may_change() -> None:
    base = numbers((6,))
    view, snapshot = base[::2], Snapshot([base])
    view += 1
    assert snapshot.changed()
    assert not snapshot.changed([view])
    base[1] += 1
    assert snapshot.changed([view])


@pytest.mark.parametrize(
    ("written", "grad", "answer"),
    [
        (numbers((4,)), numbers((4,)), None),
        (numbers((2, 3)).T, numbers((3, 2)), None),
        (read_only(numbers((3,))), numbers((3,)), "must"),
        (as_strided(numbers((1,)), (4,), (0,)), numbers((4,)), "must"),
        (as_strided(numbers((4,)), (3, 2), (4, 4)), numbers((3, 2)), "must"),
        (read_only(numbers((0,))), numbers((0,)), "may"),
    ],
)
def test_what_cannot_be_given_away(written: Any, grad: Any, answer: str | None) -> None:
    assert cannot_be_given([([written], grad)]) == answer


def test_what_overlaps_cannot_be_given_away() -> None:
    base = numbers((8,))
    assert cannot_be_given([([base[:4]], base[:4]), ([base[4:]], numbers((4,)))]) is None
    assert cannot_be_given([([base[:4]], numbers((4,))), ([base[3:7]], numbers((4,)))]) == "must"
    assert cannot_be_given([([base[::2]], numbers((4,))), ([base[1::2]], numbers((4,)))]) == "may"
    assert cannot_be_given([([base[:4]], base[1:5])]) == "must"
    assert cannot_be_given([([base[:4]], numbers((4,))), ([numbers((4,))], base[:4])]) == "must"
    region = region_of(base[::-2])
    assert region is not None
    assert region.bounds[1] - region.bounds[0] == 7 * 4


# What is drawn.


@pytest.mark.parametrize("library", MAKERS)
def test_every_option_is_drawn(library: str) -> None:
    """The strategy reaches each of its layouts, and each kind of tree."""
    seen: set[str] = set()
    draw = np.random.default_rng(0)
    strategy = situations(xopt.nadam, library, "float32", ["float32", "float64"])
    for _ in range(1500):
        seen.update(strategy.wrapped_strategy.pack(draw.bytes(CHOICES)).features)  # type: ignore[attr-defined]
    wanted = {f"{layout} leaf" for layout in LAYOUTS[library]} - {"plain leaf"}
    wanted |= {"dict", "OrderedDict", "defaultdict", "list", "tuple", "Pair", "Layer", "300 leaves", "one leaf alone"}
    assert wanted <= seen


def test_each_compiler_that_is_there_is_a_mode() -> None:
    found = modes_of(backends.get("numpy"), "fused")
    there = [name for name in ("numba", "blocks") if name == "blocks" or backends.get("numpy").compiler == "numba"]
    assert found == [Mode("fused", name, donate) for name in there for donate in (False, True)]


@pytest.mark.parametrize("gradient", ["w", "jax_array((0,), 1)"])
def test_jax_refuses_an_empty_array_that_is_given_twice_in_our_words(gradient: str) -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    setup = ("w = jax_array((0,))", "params = [w, w]", "hyper = dict(lr=0.5)", "state = xopt.lion.bind(**hyper).init(params)")
    drawn = Situation("jax", "lion", setup, (), (), ((f"grad = [{gradient}, jax_array((0,), 2)]",),), ())
    Play(Product(), backends.get("jax"), Target("jax", "cpu", "fused")).run(drawn, Mode("fused", "jax.jit", donate=True))

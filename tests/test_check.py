"""What a check says of other people's optimizers, the strange ones among them."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import strange_optimizers as strange
from typer.testing import CliRunner

import xopt
from xopt.conformance import agree, check
from xopt.conformance.cli.app import app
from xopt.conformance.conventions import CONVENTIONS
from xopt.conformance.faults.fault import Fault
from xopt.conformance.faults.planting import edited
from xopt.conformance.golden import golden_of
from xopt.conformance.thirdparty import measure, variants
from xopt.conformance.thirdparty.agree import read_gradients
from xopt.conformance.thirdparty.behaviour import FAILED, HELD, NOT_TRIED
from xopt.conformance.thirdparty.check import DEFAULTS, STATE
from xopt.conformance.thirdparty.diagnosis import diagnose
from xopt.conformance.thirdparty.names import ARGUMENTS, translated
from xopt.conformance.thirdparty.probe import runs
from xopt.conformance.thirdparty.report import junit_of
from xopt.conformance.thirdparty.separation import pairs, separation, singles, stepped
from xopt.conformance.thirdparty.subject import Subject
from xopt.conformance.thirdparty.targets import KINDS, TargetError, parsed
from xopt.conformance.thirdparty.variants import PLAIN, Variant, is_default, is_rounding, trajectory

TESTS = Path(__file__).parent
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@pytest.fixture(autouse=True)
def beside_the_tests(monkeypatch):
    monkeypatch.chdir(TESTS)


@pytest.mark.parametrize(
    ("target", "verdict", "says", "status"),
    [
        ("py:strange_optimizers:crashes", "crashed", "exit status 3", 1),
        ("py:strange_optimizers:aborts", "crashed", "signal 6", 1),
        ("py:strange_optimizers:hangs", "hung", "within 1 s", 1),
        ("py:strange_optimizers:forks", "garbage", "it forks, and both processes go on", 1),
        ("py:strange_optimizers:exits", "crashed", "exit status 0", 1),
        ("py:strange_optimizers:is_complex", "raised", "complex", 1),
        ("py:strange_optimizers:is_a_list", "raised", "an array of parameters first, not list", 1),
        ("py:strange_optimizers:raises", "raised", "RuntimeError: not today", 1),
        ("py:strange_optimizers:grows", "garbage", "shapes [[25]]", 1),
        ("py:strange_optimizers:broadcasts", "garbage", "shapes [[24, 24]]", 1),
        ("py:strange_optimizers:forgets_the_state", "raised", "must return (params, state)", 1),
        ("py:strange_optimizers:returns_text", "raised", "could not convert string", 1),
        ("py:strange_optimizers:is_nan", "no known formula", "infinitely many", 1),
        ("py:strange_optimizers:ignores_lr", "no known formula", "sgd with lr = 0.03, whatever it is given", 1),
        ("py:strange_optimizers:clips", "no known formula", "it is sgd: are larger ones clipped? First off", 1),
        ("py:strange_optimizers:no_optimizer", "no target", "it makes int", 2),
        ("py:strange_optimizers:number", "no target", "cannot be called", 2),
        ("py:strange_optimizers:nothing", "no target", "'nothing'", 2),
        ("py:no_such_module:sgd", "no target", "cannot be imported", 2),
        ("cmd:./no_such_program", "no target", "cannot be started", 2),
        ("cmd:echo hello", "garbage", "no JSON object: 'hello'", 1),
        ("cmd:true", "crashed", "exit status 0", 1),
        (f"cmd:{sys.executable} -c 'while True: pass'", "hung", "within", 1),
        ("sgd", "no target", "names no target", 2),
        ("pip:sgd", "no target", "'pip'", 2),
    ],
)
def test_a_bad_target_has_its_verdict(target, verdict, says, status, capfd):
    found = check(target, "sgd", limit=1.0 if "hang" in target or "while" in target else 10.0)
    assert (found.verdict, found.status) == (verdict, status)
    assert says in found.words
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("make", "broken"),
    [
        (strange.writes_to_its_inputs, {"inputs are not written to"}),
        (strange.spreads_nan, {"a NaN stays where it is"}),
        (strange.changes_the_dtype, {"the parameters keep their dtype"}),
    ],
)
def test_a_right_formula_may_behave_badly(make, broken):
    found = check(make, "sgd", dtypes=["float64"])
    assert found.verdict == "agrees"
    assert {one.check for one in found.findings if one.outcome == FAILED} == broken
    assert found.status == 1


@pytest.mark.parametrize(
    ("wrong", "verdict", "says"),
    [
        ("arguments are a list", "garbage", "arguments that are no object"),
        ("a dtype is no list", "garbage", "dtypes that are no list"),
        ("a default is text", "agrees", "error/bound"),
        ("the name is no text", "agrees", "error/bound"),
        ("the state has no names", "agrees", "error/bound"),
        ("lines end as on Windows", "agrees", "error/bound"),
        ("numbers are text", "garbage", "or what is none"),
        ("numbers are lists", "garbage", "or what is none"),
        ("a number is too large", "garbage", "or what is none"),
        ("numbers are null", "no known formula", "infinitely many"),
        ("shapes are null", "garbage", "shapes None"),
        ("wrote is a number", "garbage", "'wrote'"),
        ("there is nothing", "garbage", "no params"),
        ("it is a list", "garbage", "no JSON object"),
        ("it is no UTF-8", "garbage", "no JSON object"),
        ("an endless line", "garbage", "no JSON object"),
        ("an error that is not printable", "raised", "no \ufffd \ufffd[31m \ufffd"),
        ("it answers twice", "garbage", "one line must come for each question"),
        ("it floods", "garbage", "one line must come for each question"),
        ("what it started lives on", "crashed", "exit status 0"),
    ],
)
def test_a_program_that_answers_anything_has_its_verdict(wrong, verdict, says):
    found = check(f"cmd:{sys.executable} -S strange_program.py '{wrong}'", "sgd", dtypes=["float64"])
    assert found.verdict == verdict
    assert says in found.words
    assert found.status == (0 if verdict == "agrees" and not found.failed else 1)
    ElementTree.fromstring(junit_of(found))
    json.dumps(found.to_dict()).encode()
    str(found).encode()


def test_what_a_callable_exits_with_ends_nothing_of_ours():
    assert check(strange.exits, "sgd", dtypes=["float64"]).words == "It crashed: it exits, with 0"


@pytest.mark.parametrize("make", [strange.in_two_subtractions, strange.decays_first])
def test_a_decay_that_is_taken_off_alone_is_the_rule(make):
    assert check(make, "sgd", dtypes=["float32"])


def of(found, name):
    """The finding of a name."""
    return next(one for one in found.findings if one.check == name)


def test_what_shows_only_late_is_named():
    found = check(strange.decay_stops, "momentum", dtypes=["float64"])
    assert (found.verdict, found.conventions) == ("another formula", ["late: the decay stops at 12,345"])
    assert "idle=12345" in found.program


@pytest.mark.parametrize(
    ("make", "limit", "why"), [(strange.decay_stops, 0.03, "of 12,345 steps"), (strange.never_still, 10.0, "do not stay 0")]
)
def test_what_comes_late_and_cannot_be_reached_is_said(make, limit, why):
    found = check(make, "momentum", dtypes=["float64"], limit=limit)
    late = of(found, "run: from step 12,346 on, float64")
    assert late.outcome == NOT_TRIED
    assert why in late.words
    assert "late: the decay stops at 12,345" not in found.conventions


def test_the_count_of_a_library_is_set():
    torch = pytest.importorskip("torch")
    with Subject(torch.optim.AdamW, limit=1.0) as subject:
        states = []
        subject.trajectory([np.zeros(2)], [[np.ones(2)]], "float32", {}, idle=10**6, states=states)
    assert states[0]["step"] == 10**6 + 1


def test_each_step_is_compared_from_the_targets_own_state():
    found = check(strange.momentum, "momentum", dtypes=["float32"])
    assert found
    assert of(found, STATE).outcome == HELD
    assert "v is v: from its own state error/bound 0." in of(found, STATE).words
    assert of(check(strange.keeps_odd_things, "momentum", dtypes=["float32"]), STATE).outcome == HELD
    wrong = check(strange.shows_another_state, "momentum", dtypes=["float32"])
    assert wrong.verdict == "agrees"
    assert of(wrong, STATE).outcome == FAILED
    assert "from its own state, is" in of(wrong, STATE).words


def test_a_state_that_cannot_be_read_is_not_compared():
    found = check(strange.sgd, "sgd", dtypes=["float32"])
    assert of(found, STATE) == (STATE, NOT_TRIED, "sgd keeps none")


def test_what_keeps_a_value_may_be_a_list_and_is_no_default():
    found = check(strange.aggmo, "aggmo", given={"betas": [0.5, 0.75]}, dtypes=["float32"])
    assert found.conventions == ["weight decay: L2", "bits: one after another"]
    assert of(found, DEFAULTS) == (DEFAULTS, HELD, "those of aggmo")
    assert "v[1] is state[1]" in of(found, STATE).words


def test_a_default_beside_a_value_that_is_kept_is_its_own():
    """Of ``betas``, one is kept at 0.5, and the other is the default."""
    found = check(strange.lion, "lion", given={"beta1": 0.5}, dtypes=["float64"])
    assert found.verdict == "agrees"
    assert of(found, DEFAULTS).outcome == HELD


def test_shared_state_is_seen():
    found = check(strange.shares_state, "sgd", dtypes=["float64"])
    assert "optimizers do not share state" in {one.check for one in found.failed}


def test_what_a_target_prints_is_no_answer():
    found = check("py:strange_optimizers:prints", "sgd")
    assert found
    assert "error/bound" in found.words
    assert "ulps" in found.words


def test_a_factor_is_fitted_and_shown_by_a_program_that_fails(tmp_path):
    found = check("py:strange_optimizers:one_percent", "sgd")
    assert found.verdict == "no known formula"
    assert "lr x 1.07" in found.words
    (tmp_path / "shows.py").write_text(found.program)
    done = subprocess.run([sys.executable, "-P", tmp_path / "shows.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "AssertionError: expected" in done.stderr


@pytest.mark.parametrize("rule", [None, "adamw"] if NIGHTLY else ["adamw"])
def test_torch_adamw_agrees_with_decay_first(rule):
    pytest.importorskip("torch")
    found = check("torch:torch.optim.AdamW", rule)
    assert (found.rule, found.verdict, found.conventions) == ("adamw", "agrees", ["weight decay: before the step"])
    assert found
    assert all(one.ratio <= 1 for one in found.formulas)
    assert found.first_seconds < 60


def test_torch_sgd_is_momentum_with_another_decay():
    torch = pytest.importorskip("torch")
    found = check(torch.optim.SGD, "momentum", dtypes=["float32"])
    assert (found.verdict, found.status) == ("another convention", 1)
    assert check(torch.optim.SGD, "momentum", dtypes=["float32"], conventions=["weight decay: L2"])


def test_optax_ademamix_counts_from_0_and_has_powers_in_float32():
    optax = pytest.importorskip("optax")
    found = check(optax.contrib.ademamix, "ademamix", dtypes=["float32"])
    assert {"warm-up of alpha: from t - 1", "warm-up of beta3: from t - 1", "powers: in float32"} <= set(found.conventions)
    assert set(found.conventions) - {"coefficients: in float32"} == set(found.conventions[:3])
    assert found.verdict == "another convention"


@pytest.mark.skipif(not NIGHTLY, reason="Keras is imported in the nightly profile")
def test_keras_adamw_has_epsilon_hat():
    pytest.importorskip("keras")
    found = check("keras:keras.optimizers.AdamW", "adamw")
    assert "epsilon: epsilon hat" in found.conventions
    assert found.verdict == "another convention"


def adamw_of_xopt(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    return xopt.adamw.bind(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)


def test_our_own_agree():
    assert check(adamw_of_xopt, "adamw")


def test_keywords_of_any_name_are_tried():
    torch = pytest.importorskip("torch")
    found = check(lambda params, **hyper: torch.optim.AdamW(params, **hyper), "adamw", dtypes=["float64"])
    assert found.verdict == "agrees"
    assert {"lr", "betas", "eps", "weight_decay"} <= set(found.about["arguments"])


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(ValueError, match="rule 'adam2'"):
        check(strange.sgd, "adam2")
    with pytest.raises(ValueError, match="convention of sgd 'L3'"):
        check(strange.sgd, "sgd", conventions=["L3"])
    with pytest.raises(ValueError, match="dtype 'int8'"):
        check(strange.sgd, "sgd", dtypes=["int8"])
    with pytest.raises(TargetError, match="kind of target"):
        parsed("pip:x")
    assert set(KINDS) == {"torch", "optax", "keras", "py", "cmd"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_program_in_c(tmp_path):
    source = TESTS.parent / "docs" / "check" / "adamw.c"
    subprocess.run(["cc", "-O1", "-ffp-contract=off", "-o", tmp_path / "adamw", source, "-lm"], check=True)
    found = check(f"cmd:{tmp_path / 'adamw'}", "adamw")
    assert found, str(found)
    assert found.rule == "adamw"


def test_one_run_is_seen_however_short_the_time_is():
    def sgd(params, grad, state, *, lr=0.01):
        return params - lr * grad, state

    found = check(sgd, "sgd", dtypes=["float32"], seconds=0)
    assert (found.verdict, found.runs) == ("agrees", ["designed, float32"])
    assert any(one.words == "the time was up" for one in found.findings)


def test_the_command_writes_what_was_found(tmp_path):
    files = [str(tmp_path / name) for name in ("found.json", "found.html", "found.xml")]
    command = ["check", "py:strange_optimizers:sgd", "--rule", "sgd", "--json", files[0], "--html", files[1], "--junit", files[2]]
    done = CliRunner().invoke(app(), command)
    assert done.exit_code == 0, done.output
    assert "error/bound" in done.output
    found = json.loads(Path(files[0]).read_text())
    assert (found["verdict"], found["status"]) == ("agrees", 0)
    assert "<h1>py:strange_optimizers:sgd: agrees</h1>" in Path(files[1]).read_text()
    assert 'failures="0"' in Path(files[2]).read_text()
    assert CliRunner().invoke(app(), ["check", "sgd"]).exit_code == 2
    assert CliRunner().invoke(app(), ["check", "py:strange_optimizers:sgd", "--set", "lr"]).exit_code == 2


def test_what_is_remembered_has_an_end(monkeypatch):
    """A process that checks many keeps what the last ones need."""
    monkeypatch.setattr(measure, "MOST_FOLLOWED", 3)
    monkeypatch.setattr(measure, "_FOLLOWED", {})
    seen = [stepped(Variant("sgd"), run, "float32") for run in runs("sgd", xopt.sgd.defaults, random=4)]
    assert diagnose("sgd", [one for one in seen if one.run.kind != "defaults"]).variants
    assert len(measure._FOLLOWED) == 3
    values = variants._values.cache_info()
    diagnose("sgd", [one._replace(params=1.01 * one.params) for one in seen if one.run.kind != "defaults"])  # looks for a factor
    assert variants._values.cache_info().currsize < values.currsize + 100
    assert None not in (values.maxsize, variants._bounded.cache_info().maxsize, variants._golden.cache_info().maxsize)


def test_names_are_translated():
    adamw = xopt.adamw.defaults
    assert translated({"beta1": 0.5, "beta2": 0.75, "lr": 0.1}, ["lr", "betas", "eps"], adamw) == {"lr": 0.1, "betas": (0.5, 0.75)}
    assert translated({"betas": (0.5,)}, ["betas"], xopt.aggmo.defaults) == {"betas": (0.5,)}
    known = {name for rule in xopt.RULES.values() for name in rule.defaults}
    assert {name for options in ARGUMENTS.values() for names in options for name in names} <= known


# --- what the probe tells apart --------------------------------------------------------------------------------------------------

QUICK = ("sgd", "momentum")
DTYPES = ["float32", "float64"] if NIGHTLY else ["float32"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", xopt.RULES if NIGHTLY else QUICK)
def test_every_convention_is_named_by_its_own_diagnosis(name, dtype):
    found = separation(name, dtype, singles(name))
    print(found)
    assert not found.missed, found.missed


@pytest.mark.skipif(not NIGHTLY, reason="every pair is diagnosed in the nightly profile")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", xopt.RULES)
def test_pairs_are_named(name, dtype):
    found = separation(name, dtype, pairs(name))
    print(found)
    assert not found.missed, found.missed
    assert len(found.named) >= 0.9 * (len(found.named) + len(found.tied))


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("qhm", ["weight decay: L2", "bits: in two steps"]),
        ("aggmo", ["equal betas: one buffer", "weight decay: L2", "bits: one after another"]),
        ("momentum", ["v: starts at the parameters", "weight decay: before the step"]),
        ("momentum", ["weight decay: a constant"]),
        ("nadam", ["weight decay: L2, and off again", "epsilon: a floor"]),
        ("nesterov", ["lr: in the buffer alone"]),
        ("sgd", ["weight decay: after the step"]),
    ],
)
def test_what_libraries_compute_is_named_in_their_order_of_evaluation(rule, names):
    """As a bound of its own order has to have room for, no other need."""
    seen = [stepped(Variant.of(rule, names), run, "float32") for run in runs(rule, xopt.RULES[rule].defaults, random=1)]
    found = diagnose(rule, [one for one in seen if one is not None and one.run.kind != "defaults"])
    (named,) = found.variants
    assert {row.what for row in named.conventions if not is_rounding(row)} == {
        row.what for row in Variant.of(rule, names).conventions if not is_rounding(row)
    }
    assert found.measure.ratio <= 1


def test_what_fits_to_the_last_digits_of_float64_is_no_coarse_number():
    found = separation("ademamix", "float64", [Variant.of("ademamix", ["warm-up of beta3: 1e-8 inside the logarithm"])])
    assert found.named
    assert not found.tied


@pytest.mark.parametrize("rule", xopt.RULES if NIGHTLY else ("sgd", "momentum", "qhm", "aggmo"))
def test_the_order_of_two_edits_does_not_matter(rule):
    """Whatever order two conventions go together in, it is one formula."""
    own = [run for run in runs(rule, xopt.RULES[rule].defaults, random=0) if run.kind != "defaults"]
    rows = [row for row in CONVENTIONS if row.rule == rule and not is_default(row)]
    for pair in itertools.combinations(rows, 2):
        texts = set()
        for order in (pair, pair[::-1]):
            with contextlib.suppress(ValueError):
                texts |= set(edited(Fault("", rule, tuple(edit for row in order for edit in row.in_golden), "")).values())
        if len(texts) == 2:
            one, other = (golden_of(module_of(f"xopt.conformance.golden.{rule}", text)) for text in texts)
            for run in own:
                values = [trajectory(golden, PLAIN, run, golden.defaults | dict(run.hyper)) for golden in (one, other)]
                np.testing.assert_allclose(*values, rtol=1e-9, atol=1e-12, err_msg=" and ".join(row.what for row in pair))


def module_of(name, text):
    module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def test_a_convention_that_is_the_same_is_a_rounding():
    same = [row for rule in xopt.RULES for row in Variant(rule).conventions if row.same]
    assert all(map(is_rounding, same))


# --- two beside each other -------------------------------------------------------------------------------------------------------


def test_the_same_target_twice_has_the_same_bits():
    found = agree(strange.sgd, strange.sgd, "sgd", training=3)
    assert found.same_bits
    assert found
    assert max(found.growth) == 0


def test_two_that_part_are_told_apart_by_convention():
    torch = pytest.importorskip("torch")
    found = agree(torch.optim.SGD, strange.sgd, "sgd", training=3)
    assert found, str(found)
    other = agree(strange.one_percent, strange.sgd, "sgd", training=3)
    assert not other
    assert other.parted["step"] == 1
    assert other.named == (False, True)
    assert other.ratio > 1000
    assert len(other.growth) == 3


def test_gradients_of_a_file(tmp_path):
    grads = np.random.default_rng(0).standard_normal((4, 2, 3))
    np.savez(tmp_path / "own.npz", params=np.ones((2, 3)), grads=grads)
    params, read = read_gradients(tmp_path / "own.npz")
    assert params.shape == (6,)
    assert read.shape == (4, 6)
    found = agree(strange.one_percent, strange.sgd, "sgd", gradients=tmp_path / "own.npz", training=0)
    assert found.parted["run"] == "the gradients of the file"
    (tmp_path / "bad.npz").write_text("no")
    with pytest.raises(ValueError, match=r"numpy\.savez"):
        agree(strange.sgd, strange.sgd, gradients=tmp_path / "bad.npz")

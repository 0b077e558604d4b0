"""A rule as a function in C and JavaScript. That those of xopt have its bits is shown by the golden vectors: `test_vectors.py`."""

import ctypes
import json
import math
import random
import subprocess
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

import xopt
from xopt import RULES, Rule
from xopt.checks import Beta, Rate, Steps
from xopt.conformance.cli.app import app
from xopt.conformance.vectors import programs
from xopt.export import ExportError, source
from xopt.operations import average, namespace, sqrt
from xopt.scalars import exp_complement, log, power_complement

# --- a rule of one's own, with what those of xopt have not -----------------------------------------------------------------------


class OwnState(NamedTuple):
    params: object  # theta
    m: object  # an average; None where beta = 0
    total: float  # a number that is carried
    step: int  # steps taken


class OwnCoefficients(NamedTuple):
    lr: float
    gain: float
    floor: float
    total: float


def damped(lr, t, register):
    """Shrinks as steps go by. */"""
    k = 0
    size = lr
    while size > register and k < 3:
        size = size / (1 + math.sqrt(t)) * (1 / (t + 1))
        k = k + 1
    return min(size, 0.5)


def coefficients(t, total, *, lr: Rate = 0.1, beta: Beta = 0.9, register: Rate = 0.001, hold: Steps = None):
    """lr: in [0, inf). Size. */ of a step.
    register: in [0, inf). A word of C.
    """
    if hold is not None and t > hold:
        lr = lr / 2
    elif not (t == 1 or beta <= 0):
        lr += power_complement(beta, t)
    else:
        lr = max(lr, 0.125) - abs(exp_complement(lr) - log(2.0))
    return OwnCoefficients(lr=damped(lr, t, register), total=total * 0.75 + lr, floor=1e-3, gain=1.0 - beta)


def update(params, m, total, grad, c):
    xp = namespace(grad)
    m = average(m, grad, c.gain)
    size = xp.maximum(abs(m), c.floor)
    step = xp.where(
        m * grad < 0, -xp.minimum(size, 2.0 * abs(grad)), xp.sign(m) * m / (sqrt(size) + c.floor) - 0.1 * (grad - (m - 1.0))
    )
    return params - c.lr * step, m, c.total


own = Rule("own", OwnState, coefficients, update, memory={"m": "beta"}, carried={"total": 0.5})


def compiled(folder, text):
    try:
        gcc = programs.compiler()
    except programs.MissingError as missing:
        pytest.skip(str(missing))
    (folder / "rule.c").write_text(text)
    command = [gcc, *programs.C_OPTIONS, "-shared", "-fPIC", "-o", folder / "rule.so", folder / "rule.c", "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(folder / "rule.so"))


def run_node(folder, text):
    try:
        node = programs.node()
    except programs.MissingError as missing:
        pytest.skip(str(missing))
    (folder / "main.mjs").write_text(text)
    return json.loads(subprocess.run([node, folder / "main.mjs"], capture_output=True, text=True, check=True).stdout)


def trajectory(dtype, hyper, steps=4):
    """Start, gradients and end on NumPy."""
    rng = np.random.default_rng(5)
    state = own.bind(**hyper).init(rng.standard_normal(40).astype(dtype))
    start = state
    grads = [(rng.standard_normal(40) * 10.0 ** rng.uniform(-3, 3, 40)).astype(dtype) for _ in range(steps)]
    for grad in grads:
        state = own.step(state, grad, **hyper)
    return start, grads, state


SETTINGS = [{}, {"beta": 0.0}, {"hold": 2.0, "register": 0.0}, {"beta": 5e-324}]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("hyper", SETTINGS, ids=str)
def test_c_of_a_rule_of_ones_own_has_the_bits_of_numpy(tmp_path, dtype, hyper):
    library = compiled(tmp_path, source(own, "c", dtype, **hyper))
    library.own_step.restype = ctypes.c_char_p
    start, grads, end = trajectory(dtype, hyper)
    arrays = [x.copy() for x in (start.params, start.m) if x is not None]
    words = (ctypes.c_void_p * len(arrays))(*[x.ctypes.data for x in arrays])

    class State(ctypes.Structure):
        _fields_ = [("arrays", type(words)), ("total", ctypes.c_double), ("step", ctypes.c_int64)]

    state, given = State(words, 0.5, 0), own.defaults | hyper
    numbers = (ctypes.c_double * len(given))(*[math.nan if x is None else x for x in given.values()])
    for grad in grads:
        assert library.own_step(ctypes.byref(state), ctypes.c_size_t(40), ctypes.c_void_p(grad.ctypes.data), numbers) is None
    for got, want in zip(arrays, [x for x in (end.params, end.m) if x is not None], strict=True):
        np.testing.assert_array_equal(got, want)
    assert (state.total, state.step) == (end.total, end.step)
    numbers[0] = -1.0
    assert library.own_step(ctypes.byref(state), ctypes.c_size_t(40), None, numbers) == b"own_step: lr must be in [0, inf)"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("hyper", SETTINGS, ids=str)
def test_javascript_of_a_rule_of_ones_own_has_the_bits_of_numpy(tmp_path, dtype, hyper):
    (tmp_path / "own.mjs").write_text(source(own, "javascript", dtype, **hyper))
    start, grads, end = trajectory(dtype, hyper)
    kind = {"float64": "Float64Array", "float32": "Float32Array"}[dtype]
    fields = {name: x.tolist() for name, x in start._asdict().items() if isinstance(x, np.ndarray)}
    text = f"""import {{ own_step }} from "./own.mjs";
    const state = {{ total: 0.5, step: 0 }};
    for (const [name, x] of Object.entries({json.dumps(fields)})) state[name] = {kind}.from(x);
    for (const grad of {json.dumps([x.tolist() for x in grads])}) own_step(state, {kind}.from(grad), {json.dumps(hyper)});
    const arrays = Object.entries(state).map(([name, x]) => [name, x.length === undefined ? x : Array.from(x)]);
    console.log(JSON.stringify(Object.fromEntries(arrays)));"""
    found = run_node(tmp_path, text)
    for name, want in end._asdict().items():
        if want is not None:
            np.testing.assert_array_equal(np.asarray(found[name]), want, err_msg=name)


def test_logarithms_are_correctly_rounded_in_both(tmp_path):
    draw = random.Random(3)
    given = [5e-324, 2.0**-1022, 0.5, 0.75, 1.0, 1.5, 2.0**1023, 1 - 2.0**-53, 1 + 2.0**-52, math.nextafter(0.75, 0), 0.9, 0.9999]
    given += [draw.random() ** draw.choice((1, 40)) for _ in range(1500)] + [1 - 10.0 ** draw.uniform(-15, 0) for _ in range(1500)]
    want = [log(x) for x in given]
    c = source("ademamix", "c").replace("static double rounded_log", "double rounded_log")
    library = compiled(tmp_path, c)
    library.rounded_log.restype, library.rounded_log.argtypes = ctypes.c_double, [ctypes.c_double]
    assert [library.rounded_log(x) for x in given] == want
    javascript = source("ademamix", "javascript")
    text = f"{javascript}\nconsole.log(JSON.stringify({json.dumps(given)}.map(rounded_log)))"
    assert run_node(tmp_path, text) == want


# --- what it says ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["c", "javascript"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sources_are_readable(rule, language, dtype):
    text = source(rule, language, dtype)
    assert rule.doc.split("\n")[0].split(":")[0] in text
    assert f"xopt export {rule.name} --language {language} --dtype {dtype}" in text
    assert max(map(len, text.splitlines())) < 240
    for name in rule.defaults:
        assert name in text


def test_a_decay_of_0_keeps_no_slot():
    assert "m_next" in source("adamw", "c")
    text = source("adamw", "c", beta1=0.0)
    assert "m_next" not in text
    assert "the state keeps no m, so that beta1 must be 0" in text


def uncommon(t, *, lr: Rate = 0.1):
    return OwnState(lr * math.sin(t), 0.0, 0.0, 0)


def early(t, *, lr: Rate = 0.1):
    if t > 1:
        return Only(lr)
    return Only(0.0)


def strange(t, *, lr: Rate = 0.1):
    with memoryview(b""):
        lr = lr * 2
    return Only(lr)


class Only(NamedTuple):
    params: object


class OnlyState(NamedTuple):
    params: object
    step: int


@pytest.mark.parametrize(
    ("written", "says"),
    [(uncommon, "line [0-9]+: uncommon calls sin"), (early, "early ends in another way"), (strange, "statement that is not read")],
)
def test_what_has_no_counterpart_is_refused_with_its_line(written, says):
    rule = Rule("odd", OnlyState, written, lambda params, grad, c: (params - c[0] * grad,))
    with pytest.raises(ExportError, match=says):
        source(rule, "c")


def test_wrong_arguments_are_refused_with_the_way_out():
    with pytest.raises(ExportError, match="language must be one of c, javascript"):
        source("lion", "fortran")
    with pytest.raises(ExportError, match="dtype must be one of float64, float32"):
        source("lion", "c", "float16")
    with pytest.raises(ExportError, match="rule must be a rule or one of sgd"):
        source("lino", "c")
    with pytest.raises(ValueError, match=r"lion_step: beta1 must be in \[0, 1\), got 1.5"):
        source("lion", "c", beta1=1.5)
    with pytest.raises(ValueError, match="rounds out of"):
        source("lion", "c", "float32", beta1=1 - 2.0**-40)
    with pytest.raises(TypeError, match="unknown hyperparameter 'beta'"):
        source("lion", "c", beta=0.5)
    assert source(xopt.lion_step, "c") == source(RULES["lion"], "c") == source("lion", "c")


def test_the_command(tmp_path, monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(app(), ["export", *map(str, arguments)])

    done = run("aggmo", "--language", "c", "--set", "betas=0.5,0.9", "--set", "lr=0.25", "--output", tmp_path / "aggmo.c")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "aggmo.c").read_text() == source("aggmo", "c", betas=(0.5, 0.9), lr=0.25)
    assert "xopt export aggmo --language c --dtype float64 --set betas=0.5,0.9 --set lr=0.25" in (tmp_path / "aggmo.c").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.py").write_text(
        textwrap.dedent("""
        from xopt import lion as one
        two = 2
        """)
    )
    assert run("ours:one", "--language", "javascript").output == source("lion", "javascript")
    for wrong in (
        ("lino", "--language", "c"),
        ("ours:two", "--language", "c"),
        ("ours:three", "--language", "c"),
        ("lion", "--language", "basic"),
        ("lion", "--language", "c", "--set", "beta1"),
        ("lion", "--language", "c", "--set", "beta1=x"),
        ("lion", "--language", "c", "--set", "beta1=2"),
    ):
        done = run(*wrong)
        assert done.exit_code == 2, wrong
        assert "Traceback" not in done.output

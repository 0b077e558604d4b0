"""The interactive page: its own script runs in node with the bits of NumPy, and its controls work in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from builders import playground
from builders.picture import BROWSERS

from xopt.conformance.vectors import programs

PAGE = playground.page()
STEPS = 300


def core():
    return re.search(r'<script id="core">(.*?)</script>', PAGE, re.DOTALL)[1]


def run_node(tmp_path, text):
    try:
        node = programs.node()
    except programs.MissingError as missing:
        pytest.skip(str(missing))
    (tmp_path / "core.js").write_text(f"{core()}\n{text}")
    return json.loads(subprocess.run([node, tmp_path / "core.js"], capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the page computes of each rule, with the settings with which it begins."""
    text = f"""
    const settings = (rule) => Object.fromEntries(rule.hyper.map((one) => [one.name, one.value]));
    console.log(JSON.stringify(Object.fromEntries(Object.entries(RULES).map(([name, rule]) => [name, {{
        hyper: settings(rule),
        rosenbrock: run(rule, settings(rule), LANDSCAPES.rosenbrock.start, LANDSCAPES.rosenbrock.gradient, {STEPS}),
        noisy: run(rule, settings(rule), LANDSCAPES.noisy.start, LANDSCAPES.noisy.gradient, {STEPS}),
        gradients: Array.from({{ length: {STEPS} }}, (_, i) => [2 * noise(2 * i + 2), 20 * noise(2 * i + 3)]),
        rate: effectiveRate(rule, settings(rule), {STEPS}),
        turn: reversal(rule, settings(rule), 200, 100),
        weights: weightsByAge(rule, settings(rule), 2000),
    }}]))));"""
    return run_node(tmp_path_factory.mktemp("page"), text)


def settings(found):
    return {name: tuple(x) if isinstance(x, list) else x for name, x in found["hyper"].items()}


def start(rule, hyper, params):
    """A state with all slots, as the page has it also where a decay is 0."""
    state = rule.bind(**hyper).init(np.asarray(params))
    full = {name: tuple(np.zeros(len(params)) for _ in x) for name, x in state._asdict().items() if isinstance(x, tuple)}
    return state._replace(**full)


def walk(rule, hyper, gradient, params):
    state = start(rule, hyper, params)
    path = [list(params)]
    for t in range(1, STEPS + 1):
        state = rule.step(state, np.asarray(gradient(*state.params.tolist(), t)), **hyper)
        path.append(state.params.tolist())
    return path


def test_walks_have_the_bits_of_numpy(rule, found):
    own = found[rule.name]
    hyper = settings(own)

    def valley(x, y, t):
        return -2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)

    def noisy(x, y, t):
        dx, dy = own["gradients"][t - 1]
        return x + dx, 20 * y + dy

    assert walk(rule, hyper, valley, (-1.5, 2.0)) == own["rosenbrock"]
    assert walk(rule, hyper, noisy, (-1.8, 1.2)) == own["noisy"]


def moved(rule, hyper, grads):
    hyper = hyper | ({"weight_decay": 0.0} if "weight_decay" in hyper else {})
    state, moves = start(rule, hyper, (0.0,)), []
    for grad in grads:
        state = rule.step(state._replace(params=np.zeros(1)), np.asarray([grad]), **hyper)
        moves.append(-state.params.item() / hyper["lr"])
    return moves


def test_the_effective_rate_and_the_reversal_have_the_bits_of_numpy(rule, found):
    own = found[rule.name]
    assert moved(rule, settings(own), [1.0] * STEPS) == own["rate"]
    assert moved(rule, settings(own), [1.0] * 200 + [-1.0] * 100)[199:] == own["turn"]


CLOSED = {
    "sgd": lambda k, h: 1.0 * (k == 0),
    "momentum": lambda k, h: h["beta"] ** k,
    "nesterov": lambda k, h: (1 + h["beta"]) * (k == 0) + h["beta"] ** (k + 1) * (k > 0),
    "qhm": lambda k, h: (1 - h["nu"]) * (k == 0) + h["nu"] * (1 - h["beta"]) * h["beta"] ** k,
    "aggmo": lambda k, h: sum(beta**k for beta in h["betas"]) / len(h["betas"]),
    "adam": lambda k, h: (1 - h["beta1"]) * h["beta1"] ** k,
    "qhadam": lambda k, h: (1 - h["nu1"]) * (k == 0) + h["nu1"] * (1 - h["beta1"]) * h["beta1"] ** k,
    "lion": lambda k, h: (1 - h["beta1"]) if k == 0 else h["beta1"] * (1 - h["beta2"]) * h["beta2"] ** (k - 1),
    "ademamix": lambda k, h: (1 - h["beta1"]) * h["beta1"] ** k + h["alpha"] * (1 - h["beta3"]) * h["beta3"] ** k,
    # the schedule of mu has come to its end: mu = beta1
    "nadam": lambda k, h: (1 - h["beta1"]) * (k == 0) + h["beta1"] * (1 - h["beta1"]) * h["beta1"] ** k,
}
CLOSED["adamw"] = CLOSED["adam"]


@pytest.mark.parametrize("name", CLOSED)
def test_weights_by_age_are_those_of_the_closed_form(name, found):
    own = found[name]
    want = [CLOSED[name](k, settings(own)) for k in range(2000)]
    np.testing.assert_allclose(own["weights"], want, rtol=1e-10, atol=1e-14)


def test_the_page_needs_nothing_from_elsewhere():
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//|\bimport\b.*["']|\bfetch\(""", PAGE)
    assert len(PAGE) < 100_000


def test_controls_work_in_a_browser(tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    probe = """<script>
    addEventListener("error", (event) => document.body.setAttribute("data-error", event.message));
    setTimeout(() => {
        const said = {};
        const rows = () => document.querySelectorAll("#numbers tbody tr").length;
        said.first = rows();
        for (const chip of document.querySelectorAll("#chips button")) {
            chip.focus();
            if (document.activeElement === chip) chip.click();
        }
        setTimeout(() => {
            said.second = rows();
            const input = document.querySelector("#cards input");
            const looks = () => [document.querySelector("#weights").innerHTML, input.previousElementSibling.textContent];
            const before = looks();
            document.querySelectorAll("#cards details").forEach((one) => { one.open = true; });
            for (const one of document.querySelectorAll("#cards input")) {
                one.stepUp(60);
                one.dispatchEvent(new Event("input"));
            }
            setTimeout(() => {
                said.changed = looks().every((text, i) => text !== before[i]);
                said.wide = document.documentElement.scrollWidth > innerWidth;
                const controls = [...document.querySelectorAll("input, button")];
                said.names = controls.every((one) => one.textContent || one.labels?.length);
                document.body.setAttribute("data-said", JSON.stringify(said));
            }, 300);
        }, 300);
    }, 300);
    </script></body>"""
    frames = "<head><script>requestAnimationFrame = (draw) => setTimeout(draw, 0);</script>"  # frames keep to real time, timers not
    (tmp_path / "page.html").write_text(PAGE.replace("<head>", frames).replace("</body>", probe))
    profile = f"--user-data-dir={tmp_path}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", profile, "--virtual-time-budget=5000", "--dump-dom"]
    command = [browser, *options, "--window-size=500,900", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "data-error" not in done.stdout.partition("<script")[0].partition("<body")[2].partition(">")[0]
    said = json.loads(re.search(r'data-said="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))
    assert said == {"first": 5, "second": 6, "changed": True, "wide": False, "names": True}

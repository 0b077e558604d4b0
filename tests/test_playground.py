"""The interactive page: its own script runs in node with the bits of NumPy, and its controls work in a browser."""

import json
import re
import subprocess

import numpy as np
import pytest
from browser import browser, opened
from builders import playground
from builders.picture import BROWSERS
from test_memory import CLOSED, closed_form

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


@pytest.mark.parametrize("name", CLOSED)
def test_weights_by_age_are_those_of_the_closed_form(name, found):
    own, ages = found[name], np.arange(2000)
    want = closed_form(name, settings(own), ages)
    assert np.all(np.abs(own["weights"] - want) <= 2.0**-53 * (20 + 4 * ages) * want)  # a product of decays, rounded at each step


def test_the_page_needs_nothing_from_elsewhere():
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//|\bimport\b.*["']|\bfetch\(""", PAGE)
    assert len(PAGE) < 100_000


@pytest.fixture(scope="module")
def in_browser(tmp_path_factory):
    """The page in a browser, 500 pixels wide."""
    if browser() is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(PAGE)
    with opened(folder / "page.html", folder / "profile", 500, 900) as page:
        page.ask("addEventListener('error', (event) => document.body.setAttribute('data-error', event.message))")
        page.drawn()
        yield page
        assert not page.ask("document.body.dataset.error")


FOCUSED = """(() => {
    const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one);
    return {
        name: one.tagName === "BODY" ? "" : one.id || one.value || one.getAttribute("aria-label") || one.textContent,
        outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1,
        inside: box.top >= 0 && box.bottom <= innerHeight + 1 && box.left >= 0 && box.right <= innerWidth,
    };
})()"""


def go(page, name):
    """Presses Tab until what has this name has the focus."""
    for _ in range(80):
        if page.ask(FOCUSED)["name"] == name:
            return
        page.press("Tab")
    pytest.fail(f"Tab does not come to {name}")


def test_tab_comes_to_everything_and_it_is_seen_where_it_is(in_browser):
    page, order = in_browser, []
    page.press("Tab")
    while (here := page.ask(FOCUSED))["name"]:
        assert here["outlined"], here
        assert here["inside"], here
        order.append(here["name"])
        page.press("Tab")
    wanted = page.ask(
        """[...document.querySelectorAll("button, input, summary, [tabindex='0']")]
        .filter((one) => one.checkVisibility() && !(one.type === "radio" && !one.checked))
        .map((one) => one.id || one.value || one.getAttribute("aria-label") || one.textContent)"""
    )
    assert order == wanted
    page.press("Tab", shift=True)
    assert page.ask(FOCUSED)["name"] == order[-1]


def test_rules_cards_sliders_and_the_walk_are_worked_by_keys(in_browser):
    page = in_browser

    def rows():
        return page.ask("[...document.querySelectorAll('#numbers tbody th')].map((one) => one.textContent)")

    def figures():
        canvas = "document.querySelector('#path').toDataURL()"
        return page.ask(f"[...['weights', 'rate', 'turn'].map((id) => document.getElementById(id).innerHTML), {canvas}]")

    before = rows()
    page.ask("document.activeElement.blur()")
    go(page, "Momentum")
    page.press("Space")
    assert {*rows()} == {*before, "Momentum"}
    page.press("Enter")
    assert rows() == before
    go(page, "AdEMAMix")  # the rule, and then its card
    page.press("Tab")
    page.press("Enter")
    page.press("Tab")
    assert page.ask(FOCUSED)["name"] == "ademamix-lr"
    drawn = figures()
    value = "parseFloat(document.activeElement.getAttribute('aria-valuetext'))"
    before = page.ask(value)
    page.press("ArrowRight")
    assert page.ask(value) > before
    page.press("Home")
    assert page.ask(value) == 1e-5
    go(page, "ademamix-alpha")
    page.press("End")
    assert all(one != other for one, other in zip(drawn, figures(), strict=True))
    go(page, "Defaults")
    page.press("Space")
    assert figures() == drawn
    assert page.ask(FOCUSED)["name"] == "Defaults"  # the focus is where it was, and the card is open
    assert page.ask("document.activeElement.closest('details').open")
    go(page, "rosenbrock")
    page.press("ArrowDown")
    assert page.ask("document.querySelector('#path').getAttribute('aria-label')").startswith("A noisy valley")
    page.press("Tab")
    page.press("End")
    assert page.ask("document.querySelector('#steps-said').textContent") == "3000"
    page.press("Tab")
    assert page.ask(FOCUSED)["name"] == "Table of numbers"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 860, 1100, 1400])
def test_the_page_has_room_in_light_and_in_dark(in_browser, width, dark):
    page = in_browser
    page.size(width, 900)
    page.colours(dark)
    page.drawn()
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    assert page.ask("document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth")
    assert page.ask("[...document.querySelectorAll('input, button')].every((one) => one.textContent || one.labels?.length)")
    paper, ink = page.ask("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert (sum(map(int, re.findall(r"\d+", paper))) < sum(map(int, re.findall(r"\d+", ink)))) is dark


def test_within_a_page_it_has_the_colours_of_that_page(in_browser):
    """What a reader chose there, whatever the browser prefers."""
    page = in_browser
    page.colours(dark=False)
    ground = "getComputedStyle(document.querySelector('iframe').contentDocument.body).backgroundColor"
    frame = f"""new Promise((done) => {{
        const frame = document.createElement("iframe");
        frame.srcdoc = {json.dumps(PAGE)};
        frame.addEventListener("load", () => done(1));
        document.body.dataset.mdColorScheme = "slate";
        document.body.append(frame);
    }})"""
    page.ask(frame)
    dark = page.ask(ground)
    page.ask("document.body.dataset.mdColorScheme = 'default'")
    page.drawn()
    assert dark != page.ask(ground) == page.ask("getComputedStyle(document.body).backgroundColor")
    page.ask("document.querySelector('iframe').remove()")

"""The page on long-term gradients: what its text says is what its figures show, in both languages."""

import re
from pathlib import Path

import numpy as np
import pytest
from builders import long_memory

import xopt
from xopt import memory

DOCS = Path(__file__).parents[1] / "docs"
ENGLISH, JAPANESE = ((DOCS / name).read_text() for name in ("memory.md", "memory.ja.md"))


def test_both_languages_show_the_same() -> None:
    names = re.findall(r"<!-- long memory: (\w+) -->", ENGLISH)
    assert names == re.findall(r"<!-- long memory: (\w+) ja -->", JAPANESE)
    assert {*names} == {*long_memory.FIGURES, *long_memory.TABLES}
    assert ENGLISH.count("\n## ") == JAPANESE.count("\n## ")


def pair(text: object) -> bool:
    """A text in both languages, of which one has Japanese characters."""
    return isinstance(text, tuple) and len(text) == 2 and bool(re.search(r"[\u3040-\u9fff]", text[1]))


@pytest.mark.parametrize("name", ["weights", "scales", "identities", "doubt"])
def test_panels_have_titles_in_both_languages(name: str) -> None:
    pytest.importorskip("matplotlib")
    for panel in long_memory.panels(name):
        assert pair(panel.title)
    texts = [long_memory.made(name, language) for language in long_memory.LANGUAGES]
    assert [text.count("<svg") for text in texts] == [len(long_memory.panels(name))] * 2
    assert re.search(r"[\u3040-\u9fff]", texts[1])
    assert not re.search(r"[\u3040-\u9fff]", texts[0])
    assert "#00f0" not in texts[0]  # a colour that stands for one of the style sheet


def test_overlays_coincide() -> None:
    lion, quasi, _, sums = long_memory.panels("identities")
    for panel in (lion, quasi, sums):
        thick, dashed = panel.curves[:2]
        np.testing.assert_allclose(dashed.y, thick.y, rtol=1e-12, atol=1e-300)
    assert not np.allclose(sums.curves[2].y, sums.curves[0].y)


def _turn(one: memory.Memory) -> int | None:
    return one.reversal(long_memory.BEFORE, 10_000).turn


def test_the_text_says_what_the_figures_show() -> None:
    five = long_memory._five()
    halves, turns = ([of(one) for one in five.values()] for of in (memory.Memory.half_mass_age, _turn))
    assert halves == [5_753, 59, 336, 67, 58, 6]  # ages: of AdamW 7 gradients
    assert turns == [5_053, 60, 337, 68, 59, 7]
    assert [round(five[name].mass()) for name in ("ademamix", "aggmo")] == [9, 37]
    for text in (ENGLISH, JAPANESE):
        assert all(number in text for number in ("5,753", "5,053", "60", "37", "30 %"))
    slow, fixed = memory.of(xopt.ademamix), memory.of(long_memory.corrected)
    assert (f"{slow.noise_steps(10)[-1]:.2f}", f"{fixed.noise_steps(10)[-1]:.1f}") == ("0.33", "2.8")
    for text in (ENGLISH, JAPANESE):
        assert "2.8" in text
        assert "0.33" in text
    warm = [memory.of(rule, **long_memory.WARM).effective_lr(2_000) for rule in (xopt.ademamix, long_memory.corrected)]
    assert 1e-5 < np.abs(warm[0] - warm[1]).max() < 2e-4
    alone = slow.steps(np.concatenate([[1.0], np.zeros(20_000)]))
    assert round(alone[-1]) == 75
    assert alone[-1] / alone[-2] == pytest.approx(0.9999 / np.sqrt(0.999), rel=1e-4)
    at = [int(np.argmin(np.abs(long_memory.PERSISTENCE - time))) for time in (1, 1_000)]
    assert [round(long_memory.raised(8.0)[i], 2) for i in at] == [1.05, 2.89]
    reversed_ = slow.reversal(long_memory.BEFORE, 10_000)
    assert reversed_.turn == 5_053
    assert reversed_.steps[long_memory.BEFORE + 49] / reversed_.steps[long_memory.BEFORE - 1] == pytest.approx(0.74, abs=0.005)
    rules = xopt.ademamix, long_memory.corrected
    (published, _), (other, _) = (long_memory.at_the_end(rule, {}) for rule in rules)
    assert round(other[2] / published[2], 1) == 2.7  # both with an lr of 0.01
    assert round(min(other) / min(published), 1) == 1.6
    (published, spread), (other, _) = (long_memory.at_the_end(rule, long_memory.WARM_VALLEY) for rule in rules)
    assert max(abs(other / published - 1)) < 0.065
    assert min(published) - min(other) < min(spread)
    # the trail of the slow average
    rate = memory.of(xopt.ademamix).rates(1.0, 1.0, precondition=True)
    assert -1 / np.log(rate) == pytest.approx(1e4 / 9, rel=0.01)


@pytest.mark.parametrize("alpha", long_memory.ALPHAS)
def test_persistence_of_gradients_is_that_of_geometric_series(alpha: float) -> None:
    """What the table prints: the integral over frequencies, beside the variance in the age domain."""

    def variance(pairs: list[tuple[float, float]], rho: float) -> float:
        """Of the sum of ``c b^k x_(t - k)`` over all pairs (c, b), where x_s and x_t are correlated by ``rho^|s - t|``."""
        between = [(c * d / (1 - a * b), a, b) for c, a in pairs for d, b in pairs]
        return sum(x * (1 + rho * a / (1 - rho * a) + rho * b / (1 - rho * b)) for x, a, b in between)

    fast, slow = (0.1, 0.9), (alpha * 1e-4, 0.9999)
    for time, found in zip(long_memory.PERSISTENCE, long_memory.raised(alpha), strict=True):
        rho = np.exp(-1 / time)
        assert abs(found - np.sqrt(variance([fast, slow], rho) / variance([fast], rho))) < 5e-4

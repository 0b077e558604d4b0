"""The figures and tables of "Rules that use long-term gradients", in two languages, from ``xopt.memory``.

The first text of each pair is English, the second Japanese.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import numpy as np
from builders.formulas import inline
from builders.tables import table

import xopt
from xopt import Rule, memory
from xopt.checks import Beta, Interval, Rate, Steps
from xopt.conformance.memory import plots
from xopt.conformance.memory.figures import COLOURS, ages
from xopt.conformance.memory.plots import Curve, Panel
from xopt.rules.ademamix import coefficients as ademamix_coefficients
from xopt.scalars import Scalar

Text = tuple[str, str]
Say = Callable[..., Any]
"""Makes a pair of the two texts."""
Of = Callable[[memory.Memory], Any]

LANGUAGES = ("en", "ja")
RUN = 256_000
"""Steps of the paper's longest runs, which are the steps of its warm-ups too."""
RULES = {"ademamix": "AdEMAMix", "lion": "Lion", "qhm": "QHM", "qhadam": "QHAdam", "aggmo": "AggMo"}
BESIDE = {"adamw": "AdamW"}
"""What the five are held beside: a memory of ten gradients."""
NAMES = 0.95
"""Inches for the names of curves."""


@lru_cache(maxsize=1)
def _five() -> dict[str, memory.Memory]:
    return {name: memory.of(xopt.RULES[name]) for name in RULES | BESIDE}


def _of_five(x: Of, y: Of, and_of: Mapping[str, str] = BESIDE) -> list[Curve]:
    """And of what they are held beside, as a thin line."""
    how = {"aggmo": ("--", 1.9), **dict.fromkeys(BESIDE, (":", 1.5))}
    return [
        Curve(title, x(_five()[name]), y(_five()[name]), COLOURS[name], *how.get(name, ("-", 1.9)))
        for name, title in (RULES | dict(and_of)).items()
    ]


# The figures: panels, of which texts are pairs.


def weights(say: Say) -> list[Panel]:
    k = ages(200_000)
    share = _of_five(lambda _: k + 1, lambda m: m.weights(k) / m.mass())
    older = _of_five(lambda _: k + 1, lambda m: m.share_older(k))
    below = say("age of the gradient + 1, in steps", "勾配の古さ + 1（ステップ）")
    return [
        Panel(
            say("weight of a gradient in a step", "1 ステップに占める勾配の重み"),
            share,
            below,
            "xy",
            ylim=(1e-8, 1.5),
            legend="lower left",
        ),
        Panel(
            say("share of the weight that is older", "それより古い勾配の重みの割合"),
            older,
            below,
            "x",
            ylim=(0.0, 1.02),
            legend="upper right",
        ),
    ]


def effective(say: Say) -> list[Panel]:
    t = ages(99_999) + 1
    free = _of_five(lambda _: t, lambda m: m.effective_lr(100_000)[t - 1])
    whole = np.linspace(1, RUN, 400).astype(int)
    warm = {
        say("no warm-up", "ウォームアップなし"): {},
        say("alpha alone", "α のみ"): {"alpha_warmup": RUN},
        say("alpha, beta3", "α と β3"): {"alpha_warmup": RUN, "beta3_warmup": RUN},
    }
    runs = [
        Curve(name, whole, memory.of(xopt.ademamix, **given).effective_lr(RUN)[whole - 1], 0, line)
        for (name, given), line in zip(warm.items(), (":", "--", "-"), strict=True)
    ]
    runs.append(Curve("AdamW", [1, RUN], [1.0, 1.0], COLOURS["adamw"], width=1.2))
    return [
        Panel(say("step under a constant gradient, over lr", "一定の勾配でのステップ幅 ÷ lr"), free, say("step", "ステップ"), "xy"),
        Panel(
            say("the same, AdEMAMix in a run of 256,000 steps", "同じく、256,000 ステップの学習での AdEMAMix"),
            runs,
            say("step", "ステップ"),
            ylim=(0.0, 9.6),
            legend=(0.5, 0.13),
        ),
    ]


BEFORE = 20_000


def reversal(say: Say) -> list[Panel]:
    k = ages(9_999)

    def after(m: memory.Memory) -> Any:
        found = m.reversal(BEFORE, 10_000).steps
        return found[BEFORE + k] / found[BEFORE - 1]

    def alone(m: memory.Memory) -> Any:
        return np.abs(m.steps(np.concatenate([[1.0], np.zeros(20_000)])))[late]

    late = ages(20_000)
    return [
        Panel(
            say("the gradient turns round: step over that before", "勾配が反転：反転前に対するステップ"),
            _of_five(lambda _: k + 1, after, {}),
            say("steps since", "反転後のステップ"),
            "x",
            ylim=(-1.15, 1.15),
            levels=[0.0],
            legend="lower left",
        ),
        Panel(
            say("one gradient of 1, then zeros: size of a step, over lr", "勾配 1 が一度、以後 0：ステップ幅 ÷ lr"),
            _of_five(lambda _: late + 1, alone, {}),
            say("steps since", "その後のステップ"),
            "xy",
            ylim=(1e-5, 1e5),
            legend="upper left",
        ),
    ]


def scales(say: Say) -> list[Panel]:
    """The same average three times: as it is, over a root, and its sign."""
    nu = 0.9 / 0.99
    three = {
        say("plain: QHM", "そのまま：QHM"): (memory.of(xopt.qhm, beta=0.99, nu=nu), COLOURS["qhm"]),
        say("over a root: QHAdam", "RMS で割る：QHAdam"): (memory.of(xopt.qhadam, beta1=0.99, nu1=nu), COLOURS["qhadam"]),
        say("sign: Lion", "符号：Lion"): (memory.of(xopt.lion), COLOURS["lion"]),
    }
    grads = np.ones(6_000)
    grads[2_000:2_030] = 20.0
    t = np.arange(1_800, 6_000)
    burst = [Curve(name, t - 2_000, m.steps(grads)[t], colour) for name, (m, colour) in three.items()]
    sizes = np.geomspace(1e-10, 1e3, 60)
    size = [
        Curve(name, sizes, [m.steps(np.full(3_000, g))[-1] for g in sizes[::4]], colour)._replace(x=sizes[::4])
        for name, (m, colour) in three.items()
    ]
    return [
        Panel(
            say("30 gradients of 20 among gradients of 1: step over lr", "勾配 1 の中に 20 が 30 回：ステップ幅 ÷ lr"),
            burst,
            say("steps since the first of them", "最初の 20 からのステップ"),
            ylim=(0.0, 6.2),
            legend="upper right",
        ),
        Panel(
            say("step over lr, by the size of a constant gradient", "一定の勾配の大きさとステップ幅 ÷ lr"),
            size,
            say("gradient", "勾配"),
            "xy",
            ylim=(1e-9, 1e5),
            legend="upper left",
        ),
    ]


def identities(say: Say) -> list[Panel]:
    k = ages(5_000)
    below = say("age + 1", "古さ + 1")

    def overlaid(one: Curve, other: Curve) -> list[Curve]:
        return [one._replace(width=6.0), other._replace(line="--", width=1.6)]

    lion, inside = memory.of(xopt.lion), memory.of(xopt.qhm, beta=0.99, nu=0.9 / 0.99)
    first = overlaid(
        Curve(say("Lion, in its sign", "Lion の符号の中"), k + 1, lion.weights(k), COLOURS["lion"]),
        Curve("QHM 0.99, ν = 0.9/0.99", k + 1, inside.weights(k), 4),
    )
    bare, quasi = memory.of(xopt.ademamix, beta1=0.0), memory.of(xopt.qhadam, beta1=0.9999, nu1=8 / 9, lr=9.0)
    far = ages(200_000)
    second = overlaid(
        Curve("AdEMAMix, β1 = 0", far + 1, bare.weights(far), COLOURS["ademamix"]),
        Curve("QHAdam, ν1 = 8/9, 9 lr", far + 1, quasi.weights(far), 4),
    )
    t = ages(99_999) + 1
    early = [
        Curve("AdEMAMix, β1 = 0", t, bare.effective_lr(100_000)[t - 1], COLOURS["ademamix"], width=3.0),
        Curve("QHAdam, ν1 = 8/9, 9 lr", t, quasi.effective_lr(100_000)[t - 1], 4, "--", 1.6),
    ]
    sums, mixed = memory.of(xopt.aggmo, betas=(0.9, 0.999)), memory.of(xopt.ademamix, beta3=0.999, alpha=100.0)
    usual = memory.of(xopt.ademamix, beta3=0.999)
    third = [
        *overlaid(
            Curve("AggMo 0.9, 0.999", k + 1, sums.weights(k) / sums.mass(), COLOURS["aggmo"]),
            Curve("AdEMAMix, α = 100", k + 1, mixed.weights(k) / mixed.mass(), 4),
        ),
        Curve("AdEMAMix, α = 8", k + 1, usual.weights(k) / usual.mass(), COLOURS["ademamix"]),
    ]
    return [
        Panel(
            say("Lion is the sign of a QHM average", "Lion は QHM の平均の符号"),
            first,
            below,
            "xy",
            ylim=(1e-8, 1.5),
            legend="lower left",
        ),
        Panel(
            say("without a fast average, AdEMAMix is QHAdam", "速い平均がなければ AdEMAMix は QHAdam"),
            second,
            below,
            "xy",
            ylim=(1e-8, 5.0),
            legend="lower left",
        ),
        Panel(
            say("... but QHAdam corrects its average for the start", "…ただし QHAdam は平均をバイアス補正する"),
            early,
            say("step", "ステップ"),
            "x",
            ylim=(0.0, 10.5),
            legend="center left",
        ),
        Panel(
            say("AggMo is AdEMAMix's mixture with one alpha", "AggMo は AdEMAMix の混合で α を固定したもの"),
            third,
            below,
            "xy",
            ylim=(1e-8, 1.5),
            legend="lower left",
        ),
    ]


# The first doubt: AdEMAMix with its slow average corrected, as a rule of one's own.


class CorrectedState(NamedTuple):
    params: Any
    m1: Any
    m2: Any
    v: Any
    left: Annotated[Any, Interval("[0, 1]")]  # the product of all beta3(t): the weight that is not in m2 yet
    step: int


class CorrectedCoefficients(NamedTuple):
    lr: Scalar
    gain1: Scalar
    gain2: Scalar
    gain3: Scalar
    debias1: Scalar
    debias2: Scalar
    alpha: Scalar  # over the weight that is in m2
    eps: Scalar
    eps_root: Scalar
    weight_decay: Scalar
    left: Scalar


def _corrected_coefficients(
    t: Scalar,
    left: Scalar,
    *,
    lr: Rate = 0.001,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    beta3: Beta = 0.9999,
    alpha: Rate = 8.0,
    alpha_warmup: Steps = None,
    beta3_warmup: Steps = None,
) -> CorrectedCoefficients:
    """The hyperparameters of AdEMAMix.

    lr: in [0, inf). As there.
    beta1: in [0, 1). As there.
    beta2: in [0, 1). As there.
    beta3: in [0, 1). As there.
    alpha: in [0, inf). As there.
    alpha_warmup: in [0, inf) or None. As there.
    beta3_warmup: in [0, inf) or None. As there.
    """
    c = ademamix_coefficients(
        t,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        beta3=beta3,
        alpha=alpha,
        alpha_warmup=alpha_warmup,
        beta3_warmup=beta3_warmup,
    )
    left = left * (1.0 - c.gain3)
    return CorrectedCoefficients(*c._replace(alpha=c.alpha / (1.0 - left)), left)


def _corrected_update(params: Any, m1: Any, m2: Any, v: Any, left: Any, grad: Any, c: CorrectedCoefficients) -> tuple[Any, ...]:
    return (*xopt.ademamix.elementwise(params, m1, m2, v, grad, c), c.left)


corrected: Rule[Any, Any] = Rule(
    "corrected",
    CorrectedState,
    _corrected_coefficients,
    _corrected_update,
    memory={"m1": "beta1", "m2": "beta3", "v": "beta2"},
    carried={"left": 1.0},
)

WARM: Mapping[str, float] = {"alpha_warmup": RUN, "beta3_warmup": RUN}


def correction(say: Say) -> list[Panel]:
    published, fixed = say("as published", "論文のまま"), say("m2 corrected", "m2 を補正")
    t = ages(39_999) + 1
    few = ages(9_999) + 1
    colour, other = COLOURS["ademamix"], COLOURS["lion"]

    def two(x: Any, of: Callable[[memory.Memory], Any], given: Mapping[str, float]) -> list[Curve]:
        return [
            Curve(fixed, x, of(memory.of(corrected, **given)), other, width=3.2 if given else 1.9),
            Curve(published, x, of(memory.of(xopt.ademamix, **given)), colour, "--" if given else "-"),
        ]

    step = say("step", "ステップ")
    return [
        Panel(
            say("no warm-ups: step under a constant gradient, over lr", "ウォームアップなし：一定の勾配でのステップ幅 ÷ lr"),
            two(t, lambda m: m.effective_lr(40_000)[t - 1], {}),
            step,
            "x",
            ylim=(0.0, 9.8),
            legend="center left",
        ),
        Panel(
            say("no warm-ups: step under pure noise of size 1, over lr", "ウォームアップなし：大きさ 1 の雑音でのステップ幅 ÷ lr"),
            two(few, lambda m: m.noise_steps(10_000)[few - 1], {}),
            step,
            "x",
            ylim=(0.0, 9.8),
            legend="upper right",
        ),
        Panel(
            say(
                "warm-ups of 256,000 steps: step under a constant gradient",
                "256,000 ステップのウォームアップ：一定の勾配でのステップ幅",
            ),
            two(few, lambda m: m.effective_lr(10_000)[few - 1], WARM),
            step,
            "x",
            ylim=(0.0, 2.0),
            legend="upper left",
        ),
        _noisy_valley(say),
    ]


def _noisy_valley(say: Say) -> Panel:
    curves = []
    for name, rule, given, colour, line in (
        (say("m2 corrected", "m2 を補正"), corrected, {}, COLOURS["lion"], "-"),
        (say("as published", "論文のまま"), xopt.ademamix, {}, COLOURS["ademamix"], "-"),
        (say("corrected, warm-ups", "補正、ウォームアップあり"), corrected, WARM_VALLEY, 2, "-"),
        (say("published, warm-ups", "論文のまま、ウォームアップあり"), xopt.ademamix, WARM_VALLEY, 4, "--"),
    ):
        loss = valley(rule, tuple(given.items()))[:, LRS.index(0.01)].mean(axis=-1)
        curves.append(Curve(name, LOOKED, loss[: len(LOOKED)], colour, line, 3.2 if rule is corrected and given else 1.7))
    return Panel(
        say("loss of a noisy quadratic, lr = 0.01", "雑音のある 2 次関数の損失、lr = 0.01"),
        curves,
        say("step", "ステップ"),
        "xy",
        legend="lower left",
    )


VALLEY, SEEDS = 5_000, 5
LRS = (0.001, 0.003, 0.01, 0.03, 0.1)
WARM_VALLEY = {"alpha_warmup": VALLEY, "beta3_warmup": VALLEY}
LOOKED = ages(VALLEY - 1) + 1
AT_THE_END = 500
"""Steps whose mean loss is that at the end."""


@lru_cache(maxsize=8)
def valley(rule: Rule[Any, Any], given: tuple[tuple[str, float], ...]) -> Any:
    """Losses on a quadratic with curvatures from 0.001 to 1, 32 of each, whose gradients have noise of size 1.

    By step, lr and seed: at the steps ``LOOKED``, and then at each of the last ones. All lr have the same noise.
    """
    random = np.random.default_rng(0)
    h = np.repeat(np.geomspace(1e-3, 1.0, 4), 32)
    lr = np.array(LRS)[:, None, None]
    params = np.full((len(LRS), SEEDS, h.size), 3.0)
    slots = [rule.carried.get(name, np.zeros_like(params)) for name in rule.slots]
    looks, losses, last = {*LOOKED.tolist()}, [], []
    for t in range(1, VALLEY + 1):
        carried = (x for name, x in zip(rule.slots, slots, strict=True) if name in rule.carried)
        c = rule.coefficients(t, *carried, **dict(given))._replace(lr=lr)
        params, *slots = rule.elementwise(params, *slots, h * params + random.standard_normal((SEEDS, h.size)), c)
        for found in [losses] * (t in looks) + [last] * (t > VALLEY - AT_THE_END):
            found.append(np.mean(0.5 * h * np.square(params), axis=-1))
    return np.array(losses + last)


# The second doubt


ALPHAS = (2.0, 5.0, 8.0)
PERSISTENCE = np.geomspace(1.0, 1e6, 61)


@lru_cache(maxsize=4)
def raised(alpha: float, beta3: float = 0.9999) -> Any:
    """By what factor steps are longer than AdamW's, root mean square, for gradients that persist for so many steps.

    They are an AR(1) process whose correlation falls to 1/e in that time; the variance of a step is the integral over all
    frequencies of the gain, squared, times the spectrum of the process.
    """
    f = np.concatenate([[0.0], np.geomspace(1e-10, 0.5, 6000)])
    with_alpha, without = (memory.of(rule).gain(f) for rule in (xopt.ademamix.bind(alpha=alpha, beta3=beta3), xopt.adamw))
    found = []
    for time in PERSISTENCE:
        rho = math.exp(-1.0 / time)
        spectrum = 1.0 / np.abs(1.0 - rho * np.exp(-2j * np.pi * f)) ** 2
        one, other = (np.trapezoid(gain**2 * spectrum, f) for gain in (with_alpha, without))
        found.append(math.sqrt(one / other))
    return np.array(found)


def doubt(say: Say) -> list[Panel]:
    lines = dict(zip(ALPHAS, (":", "--", "-"), strict=True))
    factor = [Curve(f"α = {alpha:g}", PERSISTENCE, raised(alpha), 0, lines[alpha]) for alpha in ALPHAS]
    h = np.geomspace(1e-5, 30.0, 160)

    def times(alpha: float) -> Any:
        return -1.0 / np.log(memory.of(xopt.ademamix, alpha=alpha).rates(h, precondition=True))

    rates = [Curve("AdamW", h, times(0.0), COLOURS["adamw"])]
    rates += [Curve(f"α = {alpha:g}", h, times(alpha), 0, lines[alpha]) for alpha in (2.0, 8.0)]
    return [
        Panel(
            say("steps over those of AdamW, root mean square", "AdamW に対するステップ幅の比（二乗平均平方根）"),
            factor,
            say("steps for which a gradient persists", "勾配が持続するステップ数"),
            "x",
            ylim=(0.0, 9.4),
            legend="upper left",
        ),
        Panel(
            say("steps until the distance to a minimum is e times less", "極小点までの距離が 1/e になるステップ数"),
            rates,
            say("lr × curvature / root of the second moment", "lr × 曲率 ÷ 2 次モーメントの平方根"),
            "xy",
            ylim=(10.0, 2e5),
            legend="upper right",
        ),
    ]


FIGURES: dict[str, Callable[[Say], list[Panel]]] = {
    "weights": weights,
    "effective": effective,
    "reversal": reversal,
    "scales": scales,
    "identities": identities,
    "correction": correction,
    "doubt": doubt,
}

CAPTIONS: dict[str, Text] = {
    "weights": (
        "The five rules, and AdamW, with their defaults. Both scales of the first figure are logarithmic.",
        "5 つの規則と AdamW、いずれも既定値。1 枚目は両対数。",
    ),
    "effective": (
        "First: defaults, both scales logarithmic. Second: AdEMAMix with α = 8 and β3 = 0.9999.",
        "1 枚目：既定値、両対数。2 枚目：α = 8、β3 = 0.9999 の AdEMAMix。",
    ),
    "reversal": (
        "First: 20,000 gradients of 1, then of -1. Second: both scales logarithmic, eps as by default.",
        "1 枚目：勾配 1 を 20,000 回、その後 −1。2 枚目：両対数、eps は既定値。",
    ),
    "scales": ("One average three times: ν = 0.9/0.99, β = 0.99.", "同じ平均（ν = 0.9/0.99、β = 0.99）を三通りに使う。"),
    "identities": (
        "Thick below, dashed above: where only one line is seen, both are there.",
        "太線の上に破線を重ねた。1 本に見える所では 2 本が一致している。",
    ),
    "correction": (
        "AdEMAMix with α = 8 and β3 = 0.9999, and the same with m2 divided by 1 minus the product of all β3.",
        "α = 8、β3 = 0.9999 の AdEMAMix と、m2 を「1 − β3 の積」で割ったもの。",
    ),
    "doubt": ("AdEMAMix with β3 = 0.9999, after all warm-ups.", "β3 = 0.9999 の AdEMAMix、ウォームアップ終了後。"),
}


@lru_cache(maxsize=16)
def panels(name: str) -> list[Panel]:
    """A figure, of which each text is a string or a pair of them."""
    return FIGURES[name](lambda *texts: texts)


def figure(name: str, language: str = "en") -> str:
    """A figure of the page: its panels side by side where there is room, in the colours of the site."""
    at = LANGUAGES.index(language)

    def said(text: Any) -> str:
        return text if isinstance(text, str) else str(text[at])

    drawn = []
    for panel in panels(name):
        curves = [curve._replace(name=said(curve.name)) for curve in panel.curves]
        one = panel._replace(title=said(panel.title), x=said(panel.x), curves=curves)
        drawn.append(plots.svg(one.title, [one], 1, NAMES))
    svgs = "".join(" ".join(svg.split()) for svg in drawn)
    return f'<figure class="drawn" id="figure-{name}"><div>{svgs}</div><figcaption>{CAPTIONS[name][at]}</figcaption></figure>'


# Tables


def _number(x: Any) -> str:
    if isinstance(x, int):
        return f"{x:,}"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 5):.3g}"


def terms(language: str = "en") -> str:
    """What each rule adds up, term by term, with the factors that its defaults give."""
    factors = {name: xopt.RULES[name].defaults for name in RULES}
    qhm, qhadam, lion, mix = factors["qhm"], factors["qhadam"], factors["lion"], factors["ademamix"]
    nu = lion["beta1"] / lion["beta2"]

    def one(formula: str, value: float) -> str:
        return f"{inline(formula)} = {value:.3g}" if formula else f"{value:.3g}"

    aggmo = [one(f"1 / (K * (1 - beta{i}))", 1 / (3 * (1 - b))) for i, b in enumerate(factors["aggmo"]["betas"], 1)]
    root = "sqrt(v^) + eps"
    rows = [
        (
            "AdEMAMix",
            "-",
            f"1, `beta1 = {mix['beta1']}`",
            f"{one('alpha', mix['alpha'])}, `beta3 = {mix['beta3']}`",
            inline(f"u = z / ({root})"),
        ),
        ("QHM", one("1 - nu", 1 - qhm["nu"]), "-", f"{one('nu', qhm['nu'])}, `beta = {qhm['beta']}`", inline("u = z")),
        (
            "QHAdam",
            one("1 - nu1", 1 - qhadam["nu1"]),
            "-",
            f"{one('nu1', qhadam['nu1'])}, `beta1 = {qhadam['beta1']}`",
            inline(f"u = z / ({root})"),
        ),
        (
            "Lion",
            one("1 - beta1 / beta2", 1 - nu),
            "-",
            f"{one('beta1 / beta2', nu)}, `beta2 = {lion['beta2']}`",
            inline("u = sign(z)"),
        ),
        ("AggMo", aggmo[0], f"{aggmo[1]}, `beta2 = 0.9`", f"{aggmo[2]}, `beta3 = 0.99`", inline("u = z")),
    ]
    heads = {
        "en": "rule | factor of the gradient | of a short average, its decay | of a long one, its decay | what the sum z becomes",
        "ja": "規則 | 現在の勾配 g の係数 | 短い平均の係数と減衰率 | 長い平均の係数と減衰率 | 和 z の使い方",
    }
    return table(heads[language], rows)


def kept(language: str = "en") -> str:
    """What each rule keeps and moves, and how it remembers, in numbers: a line for each, narrow enough for a phone."""
    says: dict[Text, Callable[[memory.Memory], str]] = {
        ("arrays kept", "保持する配列"): lambda m: str(m.cost().arrays),
        ("arrays moved by a step", "1 ステップで読み書きする配列"): lambda m: str(m.cost().passes),
        ("step under a constant gradient, over lr", "一定の勾配でのステップ幅 ÷ lr"): lambda m: _number(m.mass()),
        ("mean age of a gradient", "勾配の平均の古さ"): lambda m: _number(m.mean_age()),
        ("half of the weight is within", "重みの半分が入る古さ"): lambda m: _number(m.half_mass_age()),
        ("weight older than 1,000 steps, %", "1,000 ステップより古い重み (%)"): lambda m: _percent(m.share_older(1000)),
        ("noise that is left", "残る雑音"): lambda m: _number(math.sqrt(m.noise())),
        ("turns after", "反転までのステップ"): lambda m: _number(m.reversal(BEFORE, 10_000).turn),
    }
    at = LANGUAGES.index(language)
    rows = [(text[at], *map(of, _five().values())) for text, of in says.items()]
    return table(" | ".join(["", *(RULES | BESIDE).values()]), rows, True)


def tuned(language: str = "en") -> str:
    """What the correction does to the loss of the noisy quadratic at the end, by lr."""
    names = {
        "en": ("as published", "m2 corrected", "published, warm-ups", "corrected, warm-ups"),
        "ja": ("論文のまま", "m2 を補正", "論文のまま、ウォームアップあり", "補正、ウォームアップあり"),
    }[language]
    settings = [(rule, given) for given in ({}, WARM_VALLEY) for rule in (xopt.ademamix, corrected)]
    columns = []
    for rule, given in settings:
        means, spreads = at_the_end(rule, given)
        texts = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means, spreads, strict=True)]
        cells = [text.replace(" ", "\N{NO-BREAK SPACE}") for text in texts]
        best = int(np.argmin(means))
        columns.append([f"**{cell}**" if i == best else cell for i, cell in enumerate(cells)])
    return table(" | ".join(["lr", *names]), zip(map("{:g}".format, LRS), *columns, strict=True), True)


def at_the_end(rule: Rule[Any, Any], given: Mapping[str, float]) -> tuple[Any, Any]:
    """Means and standard deviations of the loss over the seeds, by lr."""
    ends = valley(rule, tuple(given.items()))[-AT_THE_END:].mean(axis=0)
    return ends.mean(axis=-1), ends.std(axis=-1, ddof=1)


def compensation(language: str = "en") -> str:
    """How much alpha lengthens steps, by how long gradients persist."""
    times = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
    at = [int(np.argmin(np.abs(PERSISTENCE - time))) for time in times]
    rows = [(f"alpha = {alpha:g}", *(f"{raised(alpha)[i]:.2f}" for i in at), f"{1 + alpha:g}") for alpha in ALPHAS]
    head = {"en": "gradients persist for", "ja": "勾配の持続（ステップ）"}[language]
    return table(" | ".join([head, *(f"{time:,}" for time in times), {"en": "ever", "ja": "∞"}[language]]), rows, True)


def limits(language: str = "en") -> str:
    """Up to which lr times curvature over the root of the second moment AdEMAMix converges, by alpha."""
    found = [memory.of(xopt.ademamix, alpha=alpha, eps=0.0).stability_limit(precondition=True) for alpha in (0.0, *ALPHAS)]
    head = {"en": "alpha", "ja": "α"}[language]
    return table(f"{head} | 0 | 2 | 5 | 8", [({"en": "limit", "ja": "限界"}[language], *(f"{x:.2f}" for x in found))], True)


class Checked(NamedTuple):
    """A figure that a paper prints, and what xopt.memory says."""

    source: str
    what: Text
    printed: str
    found: str
    note: Text = ("", "")


def _checked() -> Sequence[Checked]:
    of = memory.of
    lives = {beta: of(xopt.momentum, beta=beta).half_life() for beta in (0.9, 0.999, 0.9991, 0.9999)}
    same = ("", "")
    best = of(xopt.aggmo, betas=(0.0, 0.9, 0.99, 0.999), lr=0.1).mass()
    nadam_like = 25 - 10 * (0.9 + 1 / 0.9), 10 / 0.9 - 9
    return [
        Checked(
            "Pagliardini et al. 2025, fig. 3",
            ("half-life of an average, beta = 0.9", "平均の半減期、β = 0.9"),
            "~6",
            f"{lives[0.9] - 1:.2f}",
            ("ln 0.5 / ln beta - 1", "ln 0.5 / ln β − 1"),
        ),
        Checked(
            "Pagliardini et al. 2025, fig. 3",
            ("the same, beta = 0.9999", "同じく、β = 0.9999"),
            "~6930",
            f"{lives[0.9999] - 1:.1f}",
        ),
        Checked(
            "Pagliardini et al. 2025, app. A.1",
            ("what 0.0001 more adds to it at beta = 0.999", "β = 0.999 で 0.0001 増やすときの増分"),
            "77",
            f"{lives[0.9991] - lives[0.999]:.2f}",
        ),
        Checked(
            "Pagliardini et al. 2025, app. C",
            ("mu, kappa of AdMeta for beta1 = 0.9", "β1 = 0.9 に対する AdMeta の μ, κ"),
            "4.88, 2.11",
            f"{nadam_like[0]:.2f}, {nadam_like[1]:.2f}",
            ("the last digit differs: 4.8889", "末尾の桁が異なる：4.8889"),
        ),
        Checked(
            "Ma and Yarats 2019, app. A",
            ("variance of an average, beta = 0.9", "平均の分散、β = 0.9"),
            "1/19",
            f"1/{1 / of(xopt.adam).noise():.6g}",
        ),
        Checked(
            "Ma and Yarats 2019, app. H",
            ('step of AggMo 0, 0.9, 0.99, 0.999, lr 0.1, "rounded up"', "AggMo 0, 0.9, 0.99, 0.999、lr 0.1 のステップ（切り上げ）"),
            "28",
            f"{best:.3f}",
        ),
        Checked(
            "Ma and Yarats 2019, app. F",
            (
                "QHAdam 0.8, 0.95, 0.7, 0.98: its bound is below that of nu2 = 1",
                "QHAdam 0.8, 0.95, 0.7, 0.98：上限は ν2 = 1 より小さい",
            ),
            "<",
            " < ".join(f"{of(xopt.qhadam, nu1=0.8, beta1=0.95, nu2=nu2, beta2=0.98).worst_step():.4f}" for nu2 in (0.7, 1.0)),
        ),
        Checked(
            "Kingma and Ba 2015, sec. 2.1",
            ("longest step of Adam over lr", "Adam の最大ステップ ÷ lr"),
            "3.162",
            f"{of(xopt.adam).worst_step():.4f}",
            (
                "(1 - beta1) / sqrt(1 - beta2) is no bound, as Ma and Yarats say",
                "(1 − β1) / √(1 − β2) は上限ではない（Ma and Yarats の指摘）",
            ),
        ),
        Checked(
            "Cohen et al. 2022",
            ("lr times curvature at the limit of Adam, beta1 = 0.9", "Adam の安定限界（lr × 曲率）、β1 = 0.9"),
            "38",
            f"{of(xopt.adam, eps=0.0).stability_limit(precondition=True):.6g}",
        ),
        Checked(
            "Lucas et al. 2019, sec. 4",
            (
                "AggMo's defaults for curvatures from 0.001 to 1: 1 - rate, best lr",
                "AggMo の既定値、曲率 0.001〜1：1 − 収束率、最良の lr",
            ),
            "fig. 3",
            f"{1 - of(xopt.aggmo).best_lr(1e-3, 1.0)[1]:.4f}",
            ("the figure has no numbers", "図に数値はない"),
        ),
        Checked(
            "Polyak 1964",
            ("best rate of momentum, curvatures 1 to 100", "モーメンタムの最良の収束率、曲率 1〜100"),
            "9/11",
            f"{_polyak():.6f}",
            same,
        ),
    ]


def _polyak() -> float:
    h = np.geomspace(1.0, 100.0, 101)
    return float(memory.of(xopt.momentum, lr=4 / (10 + 1) ** 2, beta=(9 / 11) ** 2).rates(h).max())


def checked(language: str = "en") -> str:
    """Printed figures beside xopt's."""
    at = LANGUAGES.index(language)
    heads = ("published in | what | printed | here | difference", "出典 | 内容 | 論文の値 | ここでの値 | 違い")
    return table(heads[at], [(one.source, one.what[at], one.printed, one.found, one.note[at] or "-") for one in _checked()])


TABLES = {"terms": terms, "kept": kept, "tuned": tuned, "compensation": compensation, "limits": limits, "checked": checked}


@lru_cache(maxsize=64)
def made(name: str, language: str) -> str:
    """A figure or a table of the page."""
    return figure(name, language) if name in FIGURES else TABLES[name](language)

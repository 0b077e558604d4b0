"""Formulas typeset from the text in which rules write them: what they are, and that they stay what they are."""

import math
import re
from xml.etree import ElementTree

import pytest
from builders.formulas import NoFormula, block, code_spans, mathml, prose
from hypothesis import assume, given, reject
from hypothesis import strategies as st

NAMES = {"θ": 2.0, "η": 0.5, "λ": 0.25, "ε": 3.0, "β": 0.75, "β1": 0.9, "m": -1.5, "g": 1.25, "t": 2.0}
PLAIN = {"θ": "theta", "η": "lr", "λ": "weight_decay", "ε": "eps", "β": "beta", "β1": "beta1", "m": "m", "g": "g", "t": "t"}


WORDS = {"for", "linear", "too", "until", "and", "with", "it", "the", "half", "life", "of"}
"""Those that stand beside formulas of updates."""


def value(node):
    """What a piece of MathML is worth: the reader's side, which knows nothing of the text."""
    kind, inside = node.tag, list(node)
    if kind in ("math", "mrow", "msqrt"):
        found = row(inside)
        return math.sqrt(abs(found)) if kind == "msqrt" else found
    if kind == "mfrac":
        return value(inside[0]) / value(inside[1])
    if kind == "msup":
        return value(inside[0]) ** value(inside[1])
    if kind == "msubsup":
        return NAMES[inside[0].text + inside[1].text] ** value(inside[2])
    if kind == "msub":
        return NAMES[inside[0].text + inside[1].text]
    return float(node.text) if kind == "mn" else NAMES[node.text]


def row(nodes):
    """Signs, products and sums, by their usual precedence."""
    nodes = [node for node in nodes if node.text not in ("(", ")")]
    total, sign, product, divide = 0.0, 1.0, None, False
    for node in nodes:
        if node.tag == "mo" and node.text in "+−":
            total += sign * (product if product is not None else 0.0)
            sign, product = (1.0 if node.text == "+" else -1.0), None
        elif node.tag == "mo":
            assert node.text == "/"
            divide = True
        elif node.tag != "mspace":
            factor = value(node)
            product = factor if product is None else product / factor if divide else product * factor
            divide = False
    return total + sign * product


texts = st.recursive(
    st.sampled_from([*PLAIN.values(), "2", "0.5"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(lambda x: f"({x[0]} {x[1]} {x[2]})"),
        st.tuples(st.sampled_from(["m", "g", "beta1", "0.5"]), st.sampled_from(["2", "t"])).map("^".join),
        st.tuples(inner, inner, inner).map(lambda x: f"{x[0]} * {x[1]} - {x[2]} / {x[0]}"),
    ).map(lambda text: f"({text})"),
    max_leaves=6,
)


@given(texts, st.booleans())
def test_a_typeset_formula_is_worth_what_its_text_is(text, fractions):
    names = {PLAIN[name]: x for name, x in NAMES.items()}
    try:
        want = eval(text.replace("^", "**"), {}, names)  # of the text that was drawn
    except ZeroDivisionError:
        reject()
    assume(abs(want) < 1e6)
    assert value(ElementTree.fromstring(mathml(text, fractions=fractions))) == pytest.approx(want, rel=1e-6, abs=1e-6)


def shown(xml):
    return re.sub(r"<[^>]+>", "", xml)


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("m^", "<mover accent='true'><mi>m</mi><mo stretchy='false'>^</mo></mover>"),
        ("g^2", "<msup><mrow><mi>g</mi></mrow><mrow><mn>2</mn></mrow></msup>"),
        ("beta1^t", "<msubsup><mi>β</mi><mn>1</mn><mrow><mi>t</mi></mrow></msubsup>"),
        ("m1^", "<msub><mover accent='true'><mi>m</mi><mo stretchy='false'>^</mo></mover><mn>1</mn></msub>"),
        ("mu_(t+1)", "<msub><mi>μ</mi><mrow><mi>t</mi><mo>+</mo><mn>1</mn></mrow></msub>"),
        ("lr / 2", "<mfrac><mrow><mi>η</mi></mrow><mrow><mn>2</mn></mrow></mfrac>"),
        ("sqrt(v)", "<msqrt><mi>v</mi></msqrt>"),
        ("theta <- theta", "<mi>θ</mi><mo>←</mo><mi>θ</mi>"),
    ],
)
def test_signs(text, sign):
    assert mathml(text) == f"<math>{sign}</math>"


@pytest.mark.parametrize("text", ["", "m +", "(m", "m)", "learning", "m m", "1 2", "f(m)", "m ^ ^", "SGD(nesterov=True)", "a * b"])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(NoFormula):
        mathml(text)


def test_every_line_of_every_rule_is_typeset(rule):
    """No line stays text because of a name that is not known: all that is left in words is what stands in words."""
    update = "\n".join(p for p in rule.doc.split("\n\n") if p.startswith("    "))
    made = block(update)
    ElementTree.fromstring(made)
    words = re.sub(r"<math>.*?</math>", "", made)
    said = " ".join(shown(words).split())
    assert not set(re.findall(r"\w+", said)) - WORDS, said


def test_prose_keeps_its_words():
    made = prose("the old m, *where* `x` and beta1 = 0; lr alone is code, a share lr * weight_decay is not.")
    assert shown(made) == "the old m, \\*where\\* `x` and β1=0; `lr` alone is code, a share ηλ is not."
    assert made.count("<math>") == 3


def test_code_stays_code_where_it_is_code():
    page = "`sqrt(v^) + eps` `lr` `beta1` `Adam(weight_decay=0.1)` `1`\n\n```python\n`m`\n```\n`g^2`\n"
    made = code_spans(page)
    assert made.count("<math>") == 2
    for kept in ("`lr`", "`beta1`", "`Adam(weight_decay=0.1)`", "`1`", "```python\n`m`\n```"):
        assert kept in made

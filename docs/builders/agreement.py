"""The picture of the front page: rules by libraries, and where the bits are NumPy's, from the README's table of verdicts."""

import re
from html import escape
from pathlib import Path
from typing import NamedTuple

_README = Path(__file__).parents[2] / "README.md"
_TABLE = re.compile(r"<!-- conformance table: begin -->\n\n[^|]*(\|.*?)\n\n(.*?)\n\n<!-- conformance table: end -->", re.DOTALL)
_LIBRARIES = {
    "numpy": "NumPy",
    "array_api_strict": "array-api-strict",
    "torch": "PyTorch",
    "jax": "JAX",
    "cupy": "CuPy",
}
_PLACES = {"cpu": "CPU", "cuda:0": "GPU", "gpu:0": "GPU", "cpu-emulated:0": "emulated", "triton-interpreted": "interpreted"}
_REFERENCE = "numpy cpu"
"""The plain step whose bits the others are compared with."""
_SAID = {
    "bits": "the same bits as NumPy",
    "flushed": "the same bits as NumPy, except where it flushes subnormal numbers",
    "within": "within the derived error bound",
    "none": "not run",
}
_LEGEND = {
    "bits": "the bits of NumPy",
    "flushed": "the bits of NumPy, but subnormals are flushed",
    "within": "within the derived bound; the number: error / bound",
    "none": "not run",
}
_LABEL, _CELL, _ROW, _HEAD, _LINE = 128, 25, 20, 74, 18  # in units of the picture, which is about 400 wide


class Row(NamedTuple):
    """One way to run the rules: a library on a device, plain, fused or under its tracer."""

    name: str  # as in the table
    library: str
    label: str
    cells: dict[str, tuple[str, str]]  # by rule: what holds, and what the table says


def rows(readme: str) -> list[Row]:
    """The columns of the table. Raises ValueError for a verdict that is none of those a picture can show."""
    found = _TABLE.search(readme)
    if found is None:
        msg = "README.md has no table of verdicts between its marks"
        raise ValueError(msg)
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines())
    made = []
    for at, name in enumerate(head[1:], 1):
        words = name.split()
        key = {"torch.compile": "torch", "jax.jit": "jax"}.get(words[0], words[0])
        place = " ".join(_PLACES.get(word, word) for word in words[1:])
        label = "CPU, the reference" if name == _REFERENCE else place if words[0] == key else f"{words[0]}, {place}"
        cells = {line[0].strip("`"): (_verdict(name, line[at]), line[at].replace("\\", "")) for line in lines}
        made.append(Row(name, _LIBRARIES.get(key, key), label.replace(" fused", ", fused"), cells))
    return made


def _verdict(column: str, text: str) -> str:
    if re.fullmatch(r"[01]\.\d+", text):
        return "within"
    known = {"bits": "bits", "bits*": "flushed", "bits\\*": "flushed", "-": "none"}
    if text not in known:
        msg = f"README.md, column {column!r}: {text!r} is no verdict of the front page's picture"
        raise ValueError(msg)
    return known[text]


def picture() -> str:
    """The figure, with the sentence that it shows and where its data come from."""
    found = rows(_README.read_text())
    verdicts = [cell for row in found for cell in row.cells.values() if row.name != _REFERENCE]
    count = {kind: sum(verdict == kind for verdict, _ in verdicts) for kind in _SAID}
    largest = max((text for kind, text in verdicts if kind == "within"), default="0")
    ran = len(verdicts) - count["none"]
    flushed, within = count["flushed"], count["within"]
    same = count["bits"] + flushed
    says = (
        f"<b>One text for each rule, {len(found)} ways to run it.</b> Of {ran} pairs beside NumPy's own, {same} have NumPy's "
        f"bits, {flushed} of them but for subnormal numbers, which the library flushes; in the other {within} the error is "
        f"within a derived bound, at most {largest} of it."
    )
    return f'<figure class="agreement"><figcaption>{says}</figcaption>{_svg(found)}</figure>'


def _svg(found: list[Row]) -> str:
    rules = list(found[0].cells)
    width, y, parts = _LABEL + _CELL * len(rules) + 30, _HEAD, list[str]()
    for i, rule in enumerate(rules):
        x = _LABEL + _CELL * (i + 0.5) + 3
        parts.append(f'<text class="rule" transform="translate({x} {_HEAD - 8}) rotate(-52)">{escape(rule)}</text>')
    library = ""
    for row in found:
        if row.library != library:
            library = row.library
            y += 4
            parts.append(f'<text class="library" x="0" y="{y + 13}">{escape(library)}</text>')
            alone = sum(one.library == library for one in found) == 1
            y += 0 if alone else _LINE
        else:
            alone = False
        if not alone:
            parts.append(f'<text class="way" x="10" y="{y + 13.5}">{escape(row.label)}</text>')
        for i, rule in enumerate(rules):
            kind, text = row.cells[rule]
            parts.append(_mark(_LABEL + _CELL * i, y, kind, text, f"{rule}, {row.name}: {_SAID[kind]}"))
        y += _ROW
    y += 10
    for kind in (kind for kind in _LEGEND if any(kind == cell for row in found for cell, _ in row.cells.values())):
        parts.append(_mark(0, y, kind, "0.9", ""))
        parts.append(f'<text class="way" x="{_CELL + 6}" y="{y + 13.5}">{escape(_LEGEND[kind])}</text>')
        y += _ROW
    return (
        f'<svg viewBox="0 0 {width} {y}" role="img" aria-label="Rules by libraries: where the bits are those of NumPy">'
        f"{''.join(parts)}</svg>"
    )


def _mark(x: float, y: float, kind: str, text: str, title: str) -> str:
    """A cell: full, full with a notch, or open with a number; so that colour says nothing that the form does not."""
    box = f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_ROW - 2}" rx="3"/>'
    inner = {
        "flushed": f'<circle class="notch" cx="{x + _CELL / 2}" cy="{y + _ROW / 2}" r="3"/>',
        "within": f'<text class="ratio" x="{x + _CELL / 2}" y="{y + 13.5}">{escape(text.removeprefix("0"))}</text>',
        "none": f'<text class="ratio" x="{x + _CELL / 2}" y="{y + 13.5}">-</text>',
    }.get(kind, "")
    return f"<g>{f'<title>{escape(title)}</title>' if title else ''}{box}{inner}</g>"

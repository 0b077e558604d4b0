"""The text that the language models are trained on: what the functions of mpmath 1.3.0 say of themselves.

mpmath (BSD licence) comes with the extra ``conformance``; its release 1.3.0 is the lowest that xopt allows, and the one that it is
tested with. Its docstrings, module by module, are 324 thousand characters of English about mathematics, with formulas and examples.
"""

import ast
import hashlib
import importlib.util
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PACKAGE, RELEASE = "mpmath", "1.3.0"
DIGEST = "bac67ec2e1efde36a150797eff8b35f24de352bbc3423406b9fa0abbed98396b"
"""SHA-256 of the text in UTF-8."""
BLOCK, EACH = 2048, 10
"""Characters of a block, and which of the blocks is held out: the last of each ten."""


class Text(NamedTuple):
    characters: str  # the alphabet, sorted; a number below is an index into it
    train: Any  # int64
    held_out: Any  # likewise; never trained on


def docstrings() -> str:
    """The docstrings of the package's modules, classes and functions, in the order of the files' names and of the text."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        msg = f"the text is that of {PACKAGE} {RELEASE}, which is not installed: pip install {PACKAGE}=={RELEASE}"
        raise ModuleNotFoundError(msg)
    root = Path(spec.origin).parent
    parts = list[str]()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        if "tests" not in path.parts:
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            named = [node for node in nodes if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)]
            parts += [said for node in named if (said := ast.get_docstring(node))]
    return "\n\n".join(parts)


@lru_cache(maxsize=1)
def text() -> Text:
    """The text in numbers. Raises ValueError where the installed package has another one, as losses could not be compared."""
    whole = docstrings()
    if (found := hashlib.sha256(whole.encode()).hexdigest()) != DIGEST:
        msg = (
            f"the text is that of {PACKAGE} {RELEASE}, and the installed {PACKAGE} {version(PACKAGE)} has another one (SHA-256 "
            f"{found[:12]}..., not {DIGEST[:12]}...): pip install {PACKAGE}=={RELEASE}"
        )
        raise ValueError(msg)
    characters = "".join(sorted(set(whole)))
    place = {character: i for i, character in enumerate(characters)}
    numbers = np.asarray([place[character] for character in whole])
    blocks = np.split(numbers, np.arange(BLOCK, len(numbers), BLOCK))
    held_out = [block for i, block in enumerate(blocks) if i % EACH == EACH - 1]
    train = [block for i, block in enumerate(blocks) if i % EACH != EACH - 1]
    return Text(characters, np.concatenate(train), np.concatenate(held_out))

"""The site as it is built: nothing from the network, every word that is looked for leads somewhere, every public name is there."""

import json
import os
import re
import subprocess
import sys
import tomllib
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest

from xopt import RULES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_the_network(site):
    outside = re.compile(r"""(?:src|rel="stylesheet" href)="(?:https?:)?//""")
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not outside.search(text), f"{page.name} loads something from the network"
        assert not re.search(r"<!-- (?:rule|source|api|agreement|rules|laws|long memory)\b", text), f"{page.name} has a marker left"


def test_formulas_are_typeset_on_every_page_of_a_rule(site):
    for name in RULES:
        page = (site / "rules" / f"{name}.html").read_text()
        (update,) = re.findall(r"<div class='formulas'>.*?(?=<h2)", page, re.DOTALL)
        assert update.count("<math>") >= 1
        assert not re.search(r"\w\^|\bbeta\d?\b|\btheta\b|&lt;-", re.sub(r"<[^>]+>", " ", update)), name
        assert not re.search(r"(?<!/)arXiv:\d{4}\.\d{5}(?!</a>)", page), f"{name}: a number of arXiv is no link"


# --- the search ------------------------------------------------------------------------------------------------------------------


WORDS = {
    "API reference": "api/",
    "betas": "rules/aggmo",
    "bfloat16": "quickstart",
    "checkpoint": "where",
    "clip_grad_norm_": "where",
    "clipping": "where",
    "conformance": "conformance",
    "convention": "conventions",
    "cosine": "where",
    "donate": "fusing",
    "EMA": "where",
    "equinox": "where",
    "error bound": "proof",
    "flax": "where",
    "freeze": "where",
    "FSDP": "where",
    "fuse": "fusing",
    "GradScaler": "where",
    "gradient accumulation": "where",
    "gradient clipping": "where",
    "half precision": "quickstart",
    "Keras": "where",
    "learning rate": "where",
    "long-term gradients": "memory",
    "lion_step": "api/xopt",
    "load_state_dict": "where",
    "lr_scheduler": "where",
    "mixed precision": "where",
    "MultiSteps": "where",
    "optax": "benchmark",
    "param_groups": "where",
    "parameter groups": "quickstart",
    "reproducibility": "where",
    "requires_grad_": "where",
    "scheduler": "where",
    "state_dict": "where",
    "torch.compile": "backends/torch",
    "TrainState": "where",
    "tensor parallel": "more-than-one-machine",
    "shard_map": "more-than-one-machine",
    "vmap": "backends/jax",
    "warm-up": "quickstart",
    "weight decay": "rules/adamw",
}
"""What people look for, and where a page of it is."""

OF_RECIPES = ("cosine", "clipping", "freeze", "gradient accumulation", "mixed precision", "checkpoint", "vmap", "MLX", "dask")
"""What a recipe is about, and must be found in its page once there are recipes."""


def found(site, words):
    """The pages with all of some words, in one of their sections, as the search splits a text into words."""
    index = json.loads((site / "search" / "search_index.json").read_text())
    split = re.compile(index["config"]["separator"])

    def tokens(text):
        return {token.strip("`'.").lower() for token in split.split(unescape(re.sub(r"<[^>]+>", " ", text)))}

    wanted = tokens(words)
    return {
        entry["location"].partition("#")[0]
        for entry in index["docs"]
        if all(any(have.startswith(want) for have in tokens(f"{entry['title']} {entry['text']}")) for want in wanted)
    }


@pytest.mark.parametrize("words", WORDS)
def test_a_word_that_is_looked_for_leads_somewhere(site, words):
    pages = found(site, words)
    assert any(page.startswith(WORDS[words]) for page in pages), pages


@pytest.mark.parametrize("words", OF_RECIPES)
def test_recipes_are_found(site, words):
    if not (ROOT / "docs" / "recipes").is_dir():
        pytest.skip("there are no recipes yet")
    assert any(page.startswith("recipes/") for page in found(site, words)), words


def test_what_is_nowhere_is_not_found(site):
    assert not found(site, "hyperbolicus")


def test_the_search_works_in_pages_opened_from_files(site):
    """The index is a script too, as a page from a file may not fetch one, and so is what stands in for a worker."""
    assert (site / "search" / "search_index.js").read_text().startswith("var __index = {")
    front = (site / "index.html").read_text()
    (script,) = re.findall(r'<script src="([^"]*iframe-worker[^"]*)"', front)
    assert "Martin Donath" in (site / script).read_text()


# --- the reference ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    ["xopt", "xopt.tree", "xopt.schedules", "xopt.memory", "xopt.backends", "xopt.backends.torch_optim", "xopt.conformance"],
)
def test_every_public_name_is_in_the_reference(site, module):
    page = (site / "api" / f"{module.rpartition('.')[2]}.html").read_text()
    for name in import_module(module).__all__:
        here = f'id="{module}.{name}"' in page
        assert here or (name in RULES and f"rules/{name}.html" in page) or f'href="{name}.html"' in page, name


def test_the_reference_is_made_of_docstrings(site):
    page = re.sub(r"<[^>]+>", "", (site / "api" / "backends.html").read_text())
    assert "its version and devices, or why it cannot be used here" in " ".join(page.split())
    page = "".join(re.sub(r"<[^>]+>", "", (site / "api" / "xopt.html").read_text()).split())
    for rule in RULES.values():
        hyper = ",".join(f"{name}={unescape(repr(default))}".replace(" ", "") for name, default in rule.defaults.items())
        assert f"{rule.name}_step(state,grad,*,{hyper}" in page, rule.name


def test_what_is_returned_has_a_type_and_is_explained(site):
    """A sentence where a type belongs becomes a row for each of its lines."""
    for page in (site / "api").glob("*.html"):
        text = page.read_text()
        for table in re.findall(r"Returns:</span></p>\s*<table>(.*?)</table>", text, re.DOTALL):
            for row in re.findall(r'<tr class="doc-section-item">(.*?)</tr>', table, re.DOTALL):
                kind, meaning = (
                    " ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
                )
                assert meaning or " " not in kind, f"{page.name}: {kind}"
        words = re.sub(r"<[^>]+>", "", re.sub(r"<pre\b.*?</pre>", "", text, flags=re.DOTALL))
        assert not re.findall(r"``.*|:(?:func|class|meth|mod|data):.*", words), f"{page.name} shows markup"


def test_addresses_come_from_where_packaging_has_them(site):
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    front = (site / "index.html").read_text()
    assert f'<link rel="canonical" href="{urls["Documentation"]}index.html">' in front
    assert f'href="{urls["Repository"]}"' in front


# --- the front page --------------------------------------------------------------------------------------------------------------


def test_the_front_page_shows_rules_by_libraries(site):
    from builders.agreement import rows

    table = rows((ROOT / "README.md").read_text())
    front = (site / "index.html").read_text()
    (picture,) = re.findall(r'<figure class="agreement">.*?</figure>', front, re.DOTALL)
    assert len(table) >= 5
    assert picture.count("<title>") == len(table) * len(RULES)
    for row in table:
        assert list(row.cells) == list(RULES)


def test_the_picture_refuses_a_verdict_that_it_cannot_show():
    from builders.agreement import rows

    text = (ROOT / "README.md").read_text()
    begin = text.index("| `sgd` | bits")
    with pytest.raises(ValueError, match="'WRONG' is no verdict"):
        rows(text[:begin] + text[begin:].replace("| `sgd` | bits", "| `sgd` | WRONG", 1))
    with pytest.raises(ValueError, match="no table"):
        rows("# xopt")

"""MkDocs hook: what stands in ``builders/`` makes the pages, with addresses from where packaging has them."""

import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from builders import api, pages, playground
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

from xopt.conformance.report.templates import OPTION

_ROOT = Path(__file__).parents[1]
_links = tempfile.TemporaryDirectory(prefix="xopt-docs-")


@event_priority(100)  # before mkdocstrings reads its options
def on_config(config: Any) -> Any:
    """Addresses come from where packaging has them; the reference is read from the package as it is installed."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    config.site_url = project["urls"]["Documentation"]
    config.repo_url = project["urls"]["Repository"]
    config.repo_name = project["name"]
    python = config.plugins["mkdocstrings"].config.handlers["python"]
    python["paths"] = [str(api.links_tree(Path(_links.name)))]
    return config


def on_files(files: Any, config: Any) -> Any:
    """The interactive page is a file of its own, beside the page that shows it."""
    files.append(File.generated(config, "playground.html", content=playground.page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return pages.expanded(markdown)


_WHOLE = re.compile(r"\b20\d\d-\d\d-\d\d\b|\([\d.,]+-[\d.,]+\)")


def on_page_content(html: str, **_: Any) -> str:
    """Called by MkDocs for every page: an option in code, and dates and quartiles in a table, are not broken at their hyphens."""
    html = re.sub(r"<code>[^<]*</code>", lambda code: OPTION.sub(r'<span class="whole">\g<0></span>', code[0]), html)
    return re.sub(r"<td>[^<]*</td>", lambda cell: _WHOLE.sub(r'<span class="whole">\g<0></span>', cell[0]), html)

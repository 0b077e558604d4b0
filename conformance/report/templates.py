"""Pages are made of templates, each beside the module that fills it in."""

import re
from collections.abc import Callable, Mapping
from typing import Any

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
"""An option of a command, such as --json."""


def template(package: str, name: str, filters: Mapping[str, Callable[..., Any]]) -> Any:
    """A template of jinja2's in a package, with filters of its own. It escapes, and a name that is not there is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"options_whole": options_whole} | dict(filters)
    return environment.get_template(name)


def options_whole(text: str) -> Any:
    """A text whose options no line breaks at their hyphens, by the class ``option`` of a page."""
    from markupsafe import Markup, escape

    parts = re.split(f"({OPTION.pattern})", text)
    return Markup("").join(Markup('<span class="option">{}</span>').format(p) if p.startswith("--") else escape(p) for p in parts)

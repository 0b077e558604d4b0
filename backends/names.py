"""What is said of a name that is not known."""

import difflib
from collections.abc import Collection

ALSO_CALLED = {
    "pytorch": "torch",
    "np": "numpy",
    "cp": "cupy",
    "jnp": "jax",
    "nag": "nesterov",
    "sgdm": "momentum",
    "heavyball": "momentum",
}
"""Rules and backends as they are called elsewhere."""


MANY = 30
"""Names, more than which are not listed in a message."""


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """That there is no ``what`` of that name, which there are, and which of them may be meant."""
    near = nearest(name, known)
    there = ", ".join(known) if len(known) <= MANY else f"{len(known)}, which the docs list"
    return f"unknown {what} {name!r}; there are {there}{f'; did you mean {near}?' if near else ''}"


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that may be meant: without regard to case and punctuation, by another name for it, or nearly spelt so."""
    plain = {_plain(one): one for one in known}
    wanted = _plain(name)
    found = [ALSO_CALLED.get(wanted, wanted), *difflib.get_close_matches(wanted, plain, n=1)]
    return next((plain[one] for one in found if one in plain), None)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))

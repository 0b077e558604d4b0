"""The rows of ``ledger.toml``, read and checked."""

import datetime
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from xopt.backends import BACKENDS
from xopt.conformance.laws import LAWS
from xopt.conformance.results import DTYPES, MODES
from xopt.conformance.stateful.machine import MACHINE
from xopt.rules import RULES

LEDGER = Path(__file__).with_name("ledger.toml")

BITS = "bits"
"""The check of a cell: the comparison with NumPy's bits. Every other check is a law."""

ONLY = "subnormals"
"""What a row may accept alone: numbers where a subnormal one may have occurred."""


class Combination(NamedTuple):
    """What one result is about, on the backend and device of its row."""

    rule: str
    dtype: str
    mode: str
    check: str

    def __str__(self) -> str:
        return f"{self.rule} {self.dtype} {self.mode} ({self.check})"


@dataclass(frozen=True)
class Row:
    """Deviations of one cause on one backend: of each rule, in each dtype and mode, in each check."""

    rules: tuple[str, ...]
    backend: str
    device: str
    modes: tuple[str, ...]
    dtypes: tuple[str, ...]
    checks: tuple[str, ...]
    reason: str
    link: str
    expires: datetime.date  # its last day
    machine: str | None = None  # as ``platform.machine()`` says; None for all
    only: str | None = None  # "subnormals": nothing but subnormal numbers may differ; None: whatever is within the bound

    def combinations(self) -> Iterator[Combination]:
        return (Combination(*names) for names in product(self.rules, self.dtypes, self.modes, self.checks))

    def to_dict(self) -> dict[str, Any]:
        lists = {name: list(value) for name, value in asdict(self).items() if isinstance(value, tuple)}
        return asdict(self) | lists | {"expires": self.expires.isoformat()}


def read(path: Path = LEDGER) -> list[Row]:
    """The rows of a ledger.

    Raises
    ------
    ValueError
        For a row that is not as it must be, or that covers what another one covers, with the file, the row's number and what to do.
    """
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        msg = f"{path}: {error}; mend the TOML"
        raise ValueError(msg) from None
    tables = content.pop("row", [])
    if content or not isinstance(tables, list):
        msg = f"{path}: begin each row with [[row]]; there is nothing else in a ledger, but {', '.join(content) or 'row'} is there"
        raise ValueError(msg)
    rows: list[Row] = []
    covered: dict[Any, int] = {}
    for number, table in enumerate(tables, start=1):
        try:
            row = _row(table)
            for combination in row.combinations():
                earlier = covered.setdefault((row.backend, row.device, row.machine, combination), number)
                if earlier != number:
                    msg = f"{combination} on {row.backend} {row.device} is in row {earlier} too; take it out of one of them"
                    raise ValueError(msg)
        except ValueError as error:
            msg = f"{path}, row {number}: {error}"
            raise ValueError(msg) from None
        rows.append(row)
    return rows


_KNOWN: dict[str, Sequence[str]] = {
    "rules": tuple(RULES),
    "modes": MODES,
    "dtypes": DTYPES,
    "checks": (BITS, MACHINE, *(law.name for law in LAWS)),
}


def _row(table: dict[str, Any]) -> Row:
    names = [f.name for f in fields(Row)]
    for name in table:
        if name not in names:
            msg = f"there is no field {name!r}; delete it, the fields are {', '.join(names)}"
            raise ValueError(msg)
    for name in names:
        if name not in table and name not in ("machine", "only"):
            msg = f"the field {name!r} is missing; add it"
            raise ValueError(msg)
        if name in _KNOWN:
            _check_names(name, table[name])
        elif name == "expires":
            if type(table[name]) is not datetime.date:
                msg = f"expires must be a date without quotes such as 2027-11-24, got {table[name]!r}"
                raise ValueError(msg)
        elif name in table and (not isinstance(table[name], str) or not table[name].strip()):
            msg = f"{name} must be a string that is not empty, got {table[name]!r}"
            raise ValueError(msg)
    if table["backend"] not in BACKENDS:
        msg = f"there is no backend {table['backend']!r}; write one of {', '.join(BACKENDS)}"
        raise ValueError(msg)
    link = urlsplit(table["link"])
    if link.scheme != "https" or not link.netloc:
        msg = f"link must be the https:// address of the issue or page that states the reason, got {table['link']!r}"
        raise ValueError(msg)
    if "only" in table and (table["only"] != ONLY or table["checks"] != [BITS]):
        msg = f"only can be {ONLY!r}, and checks then {[BITS]}, the only check that tells; got {table['only']!r}, {table['checks']}"
        raise ValueError(msg)
    values: dict[str, Any] = {name: tuple(value) if name in _KNOWN else value for name, value in table.items()}
    return Row(**values)


def _check_names(field_name: str, names: Any) -> None:
    if not isinstance(names, list) or not names:
        msg = f"{field_name} must be a list of names that is not empty, got {names!r}"
        raise ValueError(msg)
    for name in names:
        if name not in _KNOWN[field_name]:
            msg = f"{field_name} has no {name!r}; write each name out, there are {', '.join(_KNOWN[field_name])}"
            raise ValueError(msg)
        if names.count(name) > 1:
            msg = f"{field_name} has {name!r} more than once; write it once"
            raise ValueError(msg)

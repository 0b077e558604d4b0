"""The ledger of accepted deviations: each known difference from NumPy's bits, or from a bitwise law, with its reason.

``ledger.toml`` is an array of tables, one for each row; what a row covers, it names. A row that is not true any more fails the
run, as a deviation without a row does: so that the ledger says what is, not what once was. Nothing accepts what is wrong.

When a row is stale
-------------------
A row covers combinations of rule, dtype, mode and check, and holds the common and the rare deviations of one cause together:
torch's square roots show in a tenth of all float32 trajectories, and in one of several thousand in float16. So that one quiet
combination says little, and a run that leaves a part of the row out says little too. A row is stale

- as a whole, where none of its combinations deviates although each of them ran on enough inputs (``ENOUGH``): the cause is gone;
- in a rule, where none of the rule's combinations deviates although each of them ran on many inputs (``MANY``, as in the
  nightly profile): the rule never met the cause, so that the row covers too much.

Other combinations that are quiet are named in what the row says, and fail nothing. What did not run, on this machine or in this
run, counts for nothing: a quick run makes no row stale because it saw little, or left compiled steps out.
"""

import datetime
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from xopt.backends import BACKENDS
from xopt.conformance.laws import LAWS
from xopt.conformance.results import BROKEN, DTYPES, MODES, NOT_RUN, SUBNORMALS, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.stateful import MACHINE
from xopt.rules import RULES

LEDGER = Path(__file__).with_name("ledger.toml")

BITS = "bits"
"""The check of a cell: the comparison with NumPy's bits. Every other check is a law."""

ONLY = "subnormals"
"""What a row may accept alone: numbers where a subnormal one may have occurred."""

ENOUGH = {Cell: 100, LawResult: 1}
"""Trajectories of each cell, examples of each law, of which a whole row that is true shows a deviation."""
MANY = {Cell: 1000, LawResult: 1000}
"""Those of which each of its rules does."""

ACCEPTED, STALE, EXPIRED, UNMATCHED, NOT_JUDGED = "accepted", "stale", "expired", "unmatched", "not judged"

Result = Cell | LawResult


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


class RowVerdict(NamedTuple):
    row: Row
    state: str
    says: str


@dataclass
class Judgement:
    """What the ledger says of a run."""

    rows: list[RowVerdict] = field(default_factory=list)
    accepted: list[Result] = field(default_factory=list)
    unaccepted: list[Result] = field(default_factory=list)

    @property
    def stale(self) -> list[RowVerdict]:
        return self._in(STALE)

    @property
    def expired(self) -> list[RowVerdict]:
        return self._in(EXPIRED)

    @property
    def unmatched(self) -> list[RowVerdict]:
        return self._in(UNMATCHED)

    @property
    def not_judged(self) -> list[RowVerdict]:
        return self._in(NOT_JUDGED)

    @property
    def problems(self) -> list[str]:
        """What fails the run, each with what to do."""
        rows = [verdict.says for verdict in self.rows if verdict.state in (STALE, EXPIRED, UNMATCHED)]
        return [*map(_unaccepted, self.unaccepted), *rows]

    def to_dict(self) -> list[dict[str, Any]]:
        """For JSON: the rows, each with its state and what is to be said of it."""
        return [verdict.row.to_dict() | {"state": verdict.state, "says": verdict.says} for verdict in self.rows]

    def _in(self, state: str) -> list[RowVerdict]:
        return [verdict for verdict in self.rows if verdict.state == state]


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


def judge(cells: Sequence[Cell], laws: Sequence[LawResult], rows: Sequence[Row], today: datetime.date, machine: str) -> Judgement:
    """Holds what a run found against the ledger.

    Parameters
    ----------
    cells, laws
        Of one run, with those that did not run.
    rows
        As ``read`` gives them.
    today
        A row is good for as long as its last day.
    machine
        As ``platform.machine()`` says. Rows of other machines accept nothing here, and are not judged.
    """
    found: dict[tuple[str, str], dict[Combination, Result]] = {}
    everything: list[Result] = [*cells, *laws]
    for result in everything:
        found.setdefault((result.backend, result.device), {})[_combination(result)] = result
    judgement = Judgement()
    covered: dict[tuple[str, str, Combination], Row] = {}
    for row in rows:
        here = found.get((row.backend, row.device), {})
        if row.machine in (None, machine):
            covered.update({(row.backend, row.device, combination): row for combination in row.combinations()})
            judgement.rows.append(_judged(row, here, today))
        else:
            judgement.rows.append(RowVerdict(row, NOT_JUDGED, f"It was seen on {row.machine}; this is {machine}."))
    for place, results in found.items():
        for combination, result in results.items():
            if _deviates(result):
                by = covered.get((*place, combination))
                accepted = by is not None and (by.only is None or result.verdict == SUBNORMALS)
                (judgement.accepted if accepted else judgement.unaccepted).append(result)
    return judgement


def _judged(row: Row, here: dict[Combination, Result], today: datetime.date) -> RowVerdict:
    combinations = list(row.combinations())
    where = f"{row.backend} {row.device}"
    checked = {combination[:3] for combination in here if combination.check not in (BITS, MACHINE)}
    odd = [c for c in combinations if c.check not in (BITS, MACHINE) and c[:3] in checked and c not in here]
    if odd:
        says = f"There is no such check on {where}: {_listed(odd)}. Take it out of the row of {where}."
        return RowVerdict(row, UNMATCHED, says)
    ran = {c: here[c] for c in combinations if c in here and _inputs(here[c])}
    if not ran:
        reasons = dict.fromkeys(here[c].reason or "nothing was compared" for c in combinations if c in here)
        return RowVerdict(row, NOT_JUDGED, f"Nothing of it ran: {'; '.join(reasons) or f'{where} or its rules were left out'}.")
    if today > row.expires:
        says = (
            f"The row of {where}, {_listed(combinations)}, expired on {row.expires}: look at {row.link} again, and renew the row "
            "with another date, or delete it."
        )
        return RowVerdict(row, EXPIRED, says)
    seen = [c for c, result in ran.items() if _deviates(result)]
    quiet = [c for c, result in ran.items() if result.verdict not in (WRONG, BROKEN) and not _deviates(result)]
    if set(quiet) == set(combinations) and _rest_on(ran, ENOUGH):
        says = f"Nothing deviates any more on {where} of {_listed(quiet)}: delete the row, or find out why it is quiet."
        return RowVerdict(row, STALE, says)
    for rule in row.rules:
        own = {c: here[c] for c in quiet if c.rule == rule}
        if len(own) == sum(c.rule == rule for c in combinations) and _rest_on(own, MANY):
            says = f"Nothing deviates on {where} of {_listed(list(own))}: take {rule} out of the row, or find out why it is quiet."
            return RowVerdict(row, STALE, says)
    rest = f" Quiet in this run: {_listed(quiet)}." if quiet else ""
    if seen:
        return RowVerdict(row, ACCEPTED, f"{len(seen)} of {len(combinations)} combinations deviate.{rest}")
    return RowVerdict(row, NOT_JUDGED, f"Nothing deviated, but too little of it ran to tell.{rest}")


def _combination(result: Result) -> Combination:
    return Combination(result.rule, result.dtype, result.mode, BITS if isinstance(result, Cell) else result.law)


def _deviates(result: Result) -> bool:
    return result.verdict in (WITHIN, SUBNORMALS)


def _inputs(result: Result) -> int:
    """On how many inputs a result rests."""
    if result.verdict == NOT_RUN:
        return 0
    return result.trajectories if isinstance(result, Cell) else result.examples


def _rest_on(results: dict[Combination, Result], least: dict[type, int]) -> bool:
    return all(_inputs(result) >= least[type(result)] for result in results.values())


def _unaccepted(result: Result) -> str:
    numbers = result.elements if isinstance(result, Cell) else result.numbers
    flushed = result.differ_subnormal if isinstance(result, Cell) else 0
    count = result.differ + flushed
    beyond = f", in {result.differ:,} of which no subnormal number occurs" if flushed and result.differ else ""
    return (
        f"{_combination(result)} on {result.backend} {result.device} deviates in {count:,} of {numbers:,} numbers{beyond}, and no "
        "row of the ledger accepts it: find out why, and where the library is the reason, add a row with its link to ledger.toml."
    )


def _listed(combinations: Sequence[Combination]) -> str:
    """Combinations in few words: what they have in common is said once."""
    sides = [tuple(dict.fromkeys(side)) for side in zip(*combinations, strict=True)]
    if len(combinations) == math.prod(map(len, sides)):
        rules, dtypes, modes, checks = map(", ".join, sides)
        return f"{rules} in {dtypes}, {modes} ({checks})"
    return "; ".join(map(str, combinations))

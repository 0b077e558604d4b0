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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xopt.conformance.ledger.rows import BITS, Combination, Row
from xopt.conformance.results import BROKEN, NOT_RUN, SUBNORMALS, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.stateful.machine import MACHINE

ENOUGH = {Cell: 100, LawResult: 1}
"""Trajectories of each cell, examples of each law, of which a whole row that is true shows a deviation."""
MANY = {Cell: 1000, LawResult: 1000}
"""Those of which each of its rules does."""

ACCEPTED, STALE, EXPIRED, UNMATCHED, NOT_JUDGED = "accepted", "stale", "expired", "unmatched", "not judged"

Result = Cell | LawResult


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
        wrong = {combination.rule for combination, result in results.items() if result.verdict in (WRONG, BROKEN)}
        for combination, result in results.items():
            if _deviates(result):
                by = covered.get((*place, combination))
                if by is not None and (by.only is None or result.verdict == SUBNORMALS):
                    judgement.accepted.append(result)
                elif combination.rule not in wrong:  # of a rule that is wrong it says nothing of the library
                    judgement.unaccepted.append(result)
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
        return "{} in {}, {} ({})".format(*map(", ".join, sides))
    rules: dict[tuple[str, ...], list[str]] = {}
    for combination in combinations:
        rules.setdefault(combination[1:], []).append(combination.rule)
    dtypes: dict[tuple[str, ...], list[str]] = {}
    for (dtype, *rest), names in rules.items():
        dtypes.setdefault((", ".join(names), *rest), []).append(dtype)
    return "; ".join(f"{names} in {', '.join(found)}, {mode} ({check})" for (names, mode, check), found in dtypes.items())

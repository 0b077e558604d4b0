"""The file of what was found, and of how far what is not finished is: a run that was stopped goes on from it."""

import datetime
import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xopt.conformance.exhaustive.sweep import Progress, Tally, Task
from xopt.conformance.exhaustive.ways import Way
from xopt.conformance.workers import cores, processor

RESULTS = Path(__file__).parent / "accuracy.json"
COMMAND = "python -m xopt.conformance.exhaustive"


@dataclass
class Row:
    """What one way of computing one operation gives, on so many operands."""

    backend: str
    device: str
    version: str
    mode: str
    tool: str  # the library, or its compiler
    operation: str
    dtype: str
    total: int  # of all operands, or as many as were drawn
    drawn: bool
    date: str
    tally: Tally

    @classmethod
    def of(cls, way: Way, task: Task, tally: Tally) -> "Row":
        """Of today."""
        where = way.backend.name, way.backend.device, way.version, way.mode, way.tool
        return cls(*where, task.operation, task.dtype, task.total, bool(task.drawn), f"{datetime.date.today()}", tally)

    @property
    def title(self) -> str:
        return f"{self.backend} {self.version} ({self.tool} on {self.device}), {self.operation} of {self.dtype}"

    @property
    def key(self) -> tuple[Any, ...]:
        return self.backend, self.device, self.mode, self.operation, self.dtype, self.drawn


@dataclass
class Store:
    """All rows, and the tasks that are under way."""

    path: Path | None
    machine: str
    rows: list[Row] = field(default_factory=list)
    under_way: dict[str, dict[str, Any]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)  # what else was measured, by its kind

    @classmethod
    def read(cls, path: Path | None) -> "Store":
        if path is None or not path.exists():
            return cls(path, machine())
        found = json.loads(path.read_text())
        rows = [Row(**{**row, "tally": Tally.from_dict(row["tally"])}) for row in found["rows"]]
        return cls(path, found["machine"], rows, found["under_way"], found["more"])

    def write(self) -> None:
        """In whole or not at all."""
        if self.path is None:
            return
        about = {"schema": 1, "command": COMMAND, "machine": machine()}
        rows = [asdict(row) for row in self.rows]
        text = json.dumps({**about, "rows": rows, "more": self.more, "under_way": self.under_way}, indent=1)
        beside = self.path.with_suffix(".part")
        beside.write_text(text + "\n")
        beside.replace(self.path)

    @property
    def command(self) -> str:
        return COMMAND

    def known(self, task: Task, way: Way) -> bool:
        """Whether this version's row is there."""
        key = (way.backend.name, way.backend.device, way.mode, task.operation, task.dtype, bool(task.drawn))
        return any(row.key == key and row.version == way.version and row.total == task.total for row in self.rows)

    def begun(self, task: Task, ways: list[Way]) -> Progress:
        """How far a task is, where it was run in the same ways, of the same versions; else at its beginning."""
        kept = self.under_way.get(task.name)
        if kept is None or kept["ways"] != _versions(ways) or kept["total"] != task.total:
            return Progress(task)
        tallies = {name: Tally.from_dict(found) for name, found in kept["tallies"].items()}
        return Progress(task, kept["done"], kept["seconds"], tallies)

    def put(self, new: list[Row]) -> None:
        """Rows in place of those there were of the same."""
        gone = {row.key for row in new}
        self.rows = [row for row in self.rows if row.key not in gone] + new

    def keep(self, progress: Progress, ways: list[Way]) -> None:
        """What a task has found so far; once it is finished, as rows in place of those there were."""
        task = progress.task
        tallies = {name: tally.to_dict() for name, tally in progress.tallies.items()}
        self.under_way[task.name] = {
            "ways": _versions(ways),
            "total": task.total,
            "done": progress.done,
            "seconds": round(progress.seconds, 1),
            "tallies": tallies,
        }
        if progress.finished:
            del self.under_way[task.name]
            self.put([Row.of(way, task, progress.tallies[way.name]) for way in ways])
            self.more.setdefault("seconds", {})[task.name] = round(progress.seconds)
        self.write()


def _versions(ways: list[Way]) -> dict[str, str]:
    return {way.name: way.version for way in ways}


def machine() -> str:
    """Whose results they are: a library may choose its code by the processor."""
    return f"{cores()} cores, {processor()}, {platform.machine()}, {platform.system()}"

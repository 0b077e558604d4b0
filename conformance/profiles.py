"""Profiles: how much a run does."""

from collections.abc import Iterable
from typing import NamedTuple

from xopt.backends import BACKENDS
from xopt.conformance.laws import LAWS
from xopt.conformance.results import MODES, Cell, LawResult
from xopt.conformance.stateful.machine import MACHINE

LAW_NAMES = frozenset(law.name for law in LAWS)


MOST_EXAMPLES = 48
"""Examples of a cell of a backend whose operations are laborious."""


class Profile(NamedTuple):
    """How much is run."""

    examples: int  # drawn for a cell in float32, each of them several trajectories
    pool: int  # settings of the hyperparameters that they draw from
    laws: int  # examples drawn for a law in float32
    operations: int  # runs of the state machine
    situations: int  # of structure, of NumPy; others get fewer
    compiled: int  # of them for torch.compile, of every fourth rule
    training: int  # steps of the training on digits
    modes: tuple[str, ...]
    slow: bool = False  # whether slow backends run unasked

    def of(self, backend: str) -> "Profile":
        """How much of it a backend gets: one of laborious operations no more than hours can hold."""
        if not _laborious(backend):
            return self
        return self._replace(
            examples=min(self.examples, MOST_EXAMPLES), laws=min(self.laws, 3), operations=min(self.operations, 10)
        )

    def in_turn(self, backend: str) -> bool:
        """Whether the laws of a rule, which are most of the work, are asked of a backend in one dtype, for each rule the next."""
        return _laborious(backend) and not self.slow

    def said_of(self, backends: Iterable[str]) -> str:
        """What of these backends less is run."""
        fewer = [name for name in backends if _laborious(name)]
        if not fewer:
            return ""
        what = f"at most {MOST_EXAMPLES} examples" if self.slow else "laws in one dtype of each rule"
        return f"{what} on {', '.join(fewer)}"

    def cells(self, dtype: str) -> int:
        """Examples of a cell: half as many in the other dtypes, in which a rule says the same."""
        return self.examples if dtype == "float32" else self.examples // 2

    def law_examples(self, dtype: str) -> int:
        """Examples of a law: half as many in the other dtypes, in which a rule says the same."""
        return self.laws if dtype == "float32" else max(1, self.laws // 2)

    def asked(self, result: Cell | LawResult) -> int:
        """Examples that a result must rest on."""
        plan = self.of(result.backend)
        if isinstance(result, Cell):
            return plan.cells(result.dtype)
        if result.law == MACHINE:
            return plan.operations
        return plan.law_examples(result.dtype) if result.law in LAW_NAMES else 1


def _laborious(backend: str) -> bool:
    return backend in BACKENDS and BACKENDS[backend].laborious


PROFILES = {
    "quick": Profile(examples=10, pool=4, laws=1, operations=3, situations=4, compiled=0, training=20, modes=("eager",)),
    "emulated": Profile(examples=10, pool=4, laws=1, operations=3, situations=4, compiled=0, training=5, modes=("eager", "fused")),
    "ci": Profile(examples=24, pool=32, laws=2, operations=5, situations=20, compiled=1, training=20, modes=MODES),
    "nightly": Profile(
        examples=1000, pool=40, laws=60, operations=200, situations=600, compiled=4, training=200, modes=MODES, slow=True
    ),
}

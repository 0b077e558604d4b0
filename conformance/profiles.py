"""Profiles: how much a run does."""

from typing import NamedTuple

from xopt.conformance.laws import LAWS
from xopt.conformance.results import MODES, Cell, LawResult
from xopt.conformance.stateful.machine import MACHINE

LAW_NAMES = frozenset(law.name for law in LAWS)


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

    def cells(self, dtype: str) -> int:
        """Examples of a cell: half as many in the other dtypes, in which a rule says the same."""
        return self.examples if dtype == "float32" else self.examples // 2

    def law_examples(self, dtype: str) -> int:
        """Examples of a law: half as many in the other dtypes, in which a rule says the same."""
        return self.laws if dtype == "float32" else max(1, self.laws // 2)

    def asked(self, result: Cell | LawResult) -> int:
        """Examples that a result must rest on."""
        if isinstance(result, Cell):
            return self.cells(result.dtype)
        if result.law == MACHINE:
            return self.operations
        return self.law_examples(result.dtype) if result.law in LAW_NAMES else 1


PROFILES = {
    "quick": Profile(examples=10, pool=4, laws=1, operations=3, situations=4, compiled=0, training=20, modes=("eager",)),
    "emulated": Profile(examples=10, pool=4, laws=1, operations=3, situations=4, compiled=0, training=5, modes=("eager", "fused")),
    "ci": Profile(examples=24, pool=32, laws=2, operations=5, situations=20, compiled=1, training=20, modes=MODES),
    "nightly": Profile(
        examples=1000, pool=40, laws=60, operations=200, situations=600, compiled=4, training=200, modes=MODES, slow=True
    ),
}

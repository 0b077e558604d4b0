"""The laws by family, and the checks beside them whose results are laws too."""

from typing import NamedTuple

from xopt.conformance.digests.check import LAW as DIGEST
from xopt.conformance.laws import Kind, Law
from xopt.conformance.papers.check import DEFAULTS, PUBLISHED
from xopt.conformance.stateful.machine import MACHINE
from xopt.conformance.structures.check import STRUCTURES
from xopt.rules import RULES


class OtherLaw(NamedTuple):
    """A check that is no law of ``LAWS``, in the words of one."""

    name: str
    sentence: str
    kind: str = Kind.BITS
    source: str = ""
    item: tuple[int, ...] = ()
    rules: tuple[str, ...] = tuple(RULES)


OTHER_LAWS = (
    OtherLaw(MACHINE, "Splitting, merging, copying, saving and moving a state between steps changes no number of it."),
    OtherLaw(STRUCTURES, "Any tree of any arrays is stepped as its leaves are one by one, or refused before anything is written."),
    OtherLaw(DIGEST, "NumPy computes from fixed inputs the bits that earlier commits computed."),
    OtherLaw(DEFAULTS, "The defaults of rule and golden are those of the paper, or the reason is kept."),
    OtherLaw(PUBLISHED, "Rule and golden give the values that the paper prints.", Kind.BOUND),
)

_FAMILIES = {
    "reductions": "One rule is another",
    "symmetries": "Symmetries",
    "responses": "Responses in closed form",
    "invariants": "Bounds and invariants",
    "use": "Use",
    "hyper": "Hyperparameters",
}
"""By the module that a law is in."""


def family_of(law: Law | OtherLaw) -> str:
    if isinstance(law, OtherLaw):
        return "Programs, structures, digests and papers"
    return _FAMILIES[law.function.__module__.rpartition(".")[2]]

"""Every fault that is planted in what stands around the formulas is found by drawn structures, and nothing else is."""

import sys

import pytest

import xopt
from xopt.conformance.faults.fault import Edit
from xopt.conformance.faults.structural import EXAMPLES, STRUCTURAL, Structural, edited, find, planted, played

BY_NAME = {fault.name: fault for fault in STRUCTURAL}
NOTHING = Structural("nothing", (Edit("backends/compilers/blocks.py", "any strides.", "any stride."),), "What is right.")


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(STRUCTURAL) >= 50


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_of_structure_is_found(name: str) -> None:
    fault = BY_NAME[name]
    for package in fault.needs:
        pytest.importorskip(package, reason=f"{package} is not installed")
    found = find(fault)
    assert found is not None, fault.sentence
    assert found.examples <= EXAMPLES


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_without_a_fault_nothing_is_found(dtype: str) -> None:
    with planted(NOTHING) as product:
        assert product.xopt is not xopt
        for rule in ("lion", "nadam", "ademamix"):
            assert played(product, rule, "numpy", dtype, EXAMPLES, 0) is None


def test_planting_leaves_what_is_imported_alone() -> None:
    modules = dict(sys.modules)
    with planted(NOTHING) as product:
        assert sys.modules["xopt"] is product.xopt is not modules["xopt"]
        assert product.backends.fuse is not xopt.backends.fuse
    assert {name: module for name, module in sys.modules.items() if name in modules} == modules


def test_an_edit_that_does_not_apply_is_an_error() -> None:
    for old in ("no such text", "import"):
        with pytest.raises(ValueError, match="exactly once"):
            edited(NOTHING._replace(edits=(Edit("backends/compilers/blocks.py", old, "x"),)))

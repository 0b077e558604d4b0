"""What every test module shares: Hypothesis profiles, a quiet JAX, one fixture for the rules and one for the libraries."""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything imports JAX

import pytest
from hypothesis import settings
from libraries import LIBRARIES

import xopt

collect_ignore = [] if "cuda_on_cpu" in sys.modules else ["cupy_on_cpu"]  # tests that want an environment of their own

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(params=xopt.RULES.values(), ids=lambda rule: rule.name)
def rule(request):
    return request.param


@pytest.fixture(params=LIBRARIES)
def library(request):
    """One array library, in a session in which it has float64."""
    found = LIBRARIES[request.param]
    pytest.importorskip(found.module, reason=f"{found.module} is not installed")
    with found.session():
        yield found


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    """Fused steps of a rule share what was compiled for it: each test begins without."""
    for rule in xopt.RULES.values():
        monkeypatch.setattr(rule, "compiled", {})

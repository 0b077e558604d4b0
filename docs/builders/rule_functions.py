"""What only the running program knows: a function that a rule makes has its signature and text from the rule's hyperparameters."""

from typing import Any

import griffe

from xopt import RULES


class RuleFunctions(griffe.Extension):
    """Puts them where the source has an assignment alone."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when it has read the package."""
        made = griffe.inspect("xopt")
        for name in RULES:
            for function in (f"{name}_init", f"{name}_step"):
                pkg.del_member(function)
                pkg.set_member(function, made.members[function])

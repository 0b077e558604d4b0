"""What a reader of sources does not see of them: for mkdocstrings, which imports nothing."""

import re
from textwrap import indent
from typing import Any

import griffe

from xopt import RULES


class RuleFunctions(griffe.Extension):
    """A function that a rule makes, where the source has an assignment, has its signature and text from the hyperparameters."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when it has read the package."""
        made = griffe.inspect("xopt")
        for name in RULES:
            for function in (f"{name}_init", f"{name}_step"):
                pkg.del_member(function)
                pkg.set_member(function, made.members[function])


class Shadows(griffe.Extension):
    """A module whose name its package imports from it is that import, as ``xopt.memory.nearest``, a function."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when it has read the package."""
        for package in pkg.modules.values():
            for name, module in list(package.modules.items()):
                if package.imports.get(name) == f"{module.path}.{name}":
                    package.set_member(name, module.members[name])


class Returns(griffe.Extension):
    """What a function returns is said in prose: before it stands the annotation. Without a type each line is taken for one."""

    prose = re.compile(r"(?<=Returns\n-------\n)\S+ .*(?:\n\S.*)*(?=\n\n|\s*\Z)")

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Called by griffe when it has read a function."""
        if func.docstring is not None:
            text = func.docstring.value
            func.docstring.value = self.prose.sub(lambda found: f"{func.returns}\n{indent(found[0], '    ')}", text)

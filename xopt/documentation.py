"""What ``help`` shows of a rule and of its functions, from its file: formula, hyperparameters, state, conventions."""

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xopt.rule import Rule


def meanings(coefficients: Callable[..., Any]) -> dict[str, str]:
    """What each hyperparameter means, from the lines ``name: range. Meaning`` of a docstring that editors show as well."""
    lines = inspect.cleandoc(coefficients.__doc__ or "").splitlines()
    said = (line.partition(": ") for line in lines if line.partition(": ")[0].isidentifier())
    return {name: text.partition(". ")[2] for name, _, text in said}


def document(function: Any, rule: "Rule[Any, Any]", name: str, taken: Iterable[str]) -> None:
    """Gives a function that takes hyperparameters its public name, the rule's own signature, and its documentation."""
    summary, positional, arguments, returns = _FUNCTIONS[name]
    hyper = [p.replace(annotation=p.empty) for p in inspect.signature(rule.coefficients).parameters.values() if p.name in taken]
    function.__name__ = function.__qualname__ = _filled(name, rule)
    function.__module__ = "xopt" if rule.__module__.startswith("xopt.") else rule.__module__
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(p, inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in positional] + hyper
    )
    function.rule = rule
    parameters = "\n".join([*_filled(arguments, rule).splitlines(), *(described(rule, p.name) for p in hyper)]) or "None."
    sections = (_EACH if hyper else "") + _titled("Parameters", parameters) + _titled("Returns", _filled(returns, rule))
    function.__doc__ = _page(rule, summary, sections)


def of_rule(rule: "Rule[Any, Any]") -> str:
    """The documentation of a rule: of what ``init``, ``step`` and ``bind`` have in common."""
    hyper = _titled("Hyperparameters", "\n".join(described(rule, name) for name in rule.defaults) or "None.")
    return _page(rule, "", hyper + _EACH + _filled(_METHODS, rule))


def _page(rule: "Rule[Any, Any]", summary: str, sections: str) -> str:
    """The formula first; last of all where it was published, and the conventions."""
    first, *rest = rule.doc.split(_PARAGRAPHS)
    formula = [part for part in rest if part.startswith("    ")]
    notes = [part for part in rest if not part.startswith("    ")]
    begin = _PARAGRAPHS.join([summary + first, *formula])
    return f"{begin}\n\n{sections}{_RAISES}{_titled('Notes', _PARAGRAPHS.join(notes)) if notes else ''}".rstrip() + "\n"


def _filled(text: str, rule: "Rule[Any, Any]") -> str:
    return text.format(rule=rule.name, state=rule.state.__name__)


def described(rule: "Rule[Any, Any]", name: str) -> str:
    """A hyperparameter: range, default, and what it means."""
    text = f"{name} : {rule.ranges[name].words}, default {rule.defaults[name]!r}"
    return f"{text}\n    {rule.meanings[name]}" if name in rule.meanings else text


def _titled(title: str, text: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{text}\n\n"


_PARAGRAPHS = "\n\n"

_PARAMS = """\
params : array or tree of arrays
    Of real floating-point numbers, any shape, any array API library. Kept as it is, never written to."""

_STATE_AND_GRAD = """\
state : {state}
    From ``{rule}_init`` or the step before. Never written to.
grad : array or tree of arrays
    Like ``state.params``: same tree, shapes, dtypes, device. Never written to. A NaN or infinity in it reaches the same element of
    the state by IEEE rules, and no other element. Where it is None the leaf is left alone: params, slots and count."""

_INIT_RETURNS = """\
{state}
    ``params``; the slots, zeros in the dtype of the arithmetic: float32, or that of ``params`` where it is wider; ``step`` 0.
    Only the hyperparameters that decide the state's shape matter here: a decay of 0 keeps no memory, so that its slot is None."""

_STEP_RETURNS = """\
{state}
    The new state, in new arrays. float16 and bfloat16 parameters are updated in float32 and rounded once, when they are stored: a
    change below half a unit in their last place is lost. ``step`` is one count, or a tree of counts that is a prefix of ``params``
    once a leaf had no gradient, or was added later."""

_BIND_RETURNS = """\
Bound
    An object with ``init(params)`` and ``step(state, grad)``, which have these hyperparameters. A step may be given others."""

_FUNCTIONS: dict[str, tuple[str, list[str], str, str]] = {
    "{rule}_init": ("The state before the first step. ", ["params"], _PARAMS, _INIT_RETURNS),
    "{rule}_step": ("One step. ", ["state", "grad"], _STATE_AND_GRAD, _STEP_RETURNS),
    "{rule}.bind": ("With hyperparameters of its own. ", [], "", _BIND_RETURNS),
}
"""Of each: what it does, its arguments by position, what they are, what comes back."""

_EACH = """\
Each hyperparameter is a number, a 0-d array, or a tree that is a prefix of ``params``, which makes parameter groups of its leaves.

"""

_METHODS = """\
Methods
-------
init(params, ...) : the function ``{rule}_init``
    The state before the first step, a {state}.
step(state, grad, ...) : the function ``{rule}_step``
    The state after one step.
bind(...)
    An object with ``init`` and ``step`` that have these hyperparameters.

"""

_RAISES = """\
Raises
------
TypeError
    An argument of the wrong kind: another library or dtype (nothing is promoted), integer, bool or complex parameters, the state
    of another rule, an unknown hyperparameter.
ValueError
    A shape, tree or device that does not match (nothing is broadcast); a hyperparameter that is NaN or out of its range, in
    float64 or once rounded to the dtype of the arithmetic.

"""

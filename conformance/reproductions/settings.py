"""Rules with hyperparameters, as they are written on a command line: ``ademamix:beta3=0.9999``."""

from dataclasses import dataclass
from typing import Any

from xopt.backends.names import unknown
from xopt.rules import RULES


@dataclass(frozen=True)
class Setting:
    rule: str
    hyper: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        return ":".join([self.rule, *(f"{name}={value:g}" for name, value in self.hyper)])

    @classmethod
    def of(cls, text: str) -> "Setting":
        """Raises ValueError, with a way out, for what names no rule, no hyperparameter of it, or no number."""
        rule, *parts = text.split(":")
        if rule not in RULES:
            raise ValueError(unknown("rule", rule, RULES))
        own = [name for name, value in RULES[rule].defaults.items() if name != "lr" and not isinstance(value, tuple)]
        hyper = []
        for part in parts:
            name, _, value = part.partition("=")
            if name not in own:
                msg = f"{text!r}: {name!r} cannot be set for {rule}; write {rule}:NAME=NUMBER, with one of {', '.join(own)}"
                raise ValueError(msg)
            try:
                hyper.append((name, float(value)))
            except ValueError:
                msg = f"{text!r}: {value!r} is no number; write {rule}:{name}=0.99"
                raise ValueError(msg) from None
        return cls(rule, tuple(hyper))

    def made(self, **more: Any) -> dict[str, Any]:
        """The hyperparameters, with others where they are not set."""
        return more | dict(self.hyper)

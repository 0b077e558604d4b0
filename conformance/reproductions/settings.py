"""Rules of xopt with hyperparameters, by names that stand in files too: ``ademamix:beta3=0.9999``."""

from dataclasses import dataclass
from typing import Any

from xopt.backends.names import unknown
from xopt.conformance.settings import setting_of
from xopt.rules import RULES


@dataclass(frozen=True)
class Setting:
    rule: str
    hyper: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        return ":".join(filter(None, (self.rule, ",".join(f"{name}={value:g}" for name, value in self.hyper))))

    @classmethod
    def of(cls, text: str) -> "Setting":
        """Raises ValueError, with a way out, for what names no rule of xopt's, no hyperparameter of it, or no number."""
        rule = text.partition(":")[0]
        if rule not in RULES:
            raise ValueError(unknown("rule", rule, RULES))
        own = [name for name, value in RULES[rule].defaults.items() if name != "lr" and not isinstance(value, tuple)]
        hyper = setting_of(text).hyper
        for name, value in hyper.items():
            if name not in own or not isinstance(value, float):
                msg = f"{text!r}: {name}={value} cannot be set for {rule}; write {rule}:NAME=NUMBER, with one of {', '.join(own)}"
                raise ValueError(msg)
        return cls(rule, tuple(hyper.items()))

    def made(self, **more: Any) -> dict[str, Any]:
        """The hyperparameters, with others where they are not set."""
        return more | dict(self.hyper)

"""What each hyperparameter means: one text for all rules, another where a rule uses the name otherwise."""

from typing import Any

from xopt import Rule

MEANINGS = {
    "lr": "Learning rate: the length of a step, in units of the parameters for each unit of what it multiplies.",
    "weight_decay": "Decoupled weight decay: a step takes the share lr * weight_decay of the parameters off them.",
    "beta": "Decay of the average of gradients, which remembers about 1 / (1 - beta) of them.",
    "beta1": "Decay of the average of gradients, which remembers about 1 / (1 - beta1) of them.",
    "beta2": "Decay of the average of squared gradients, which remembers about 1 / (1 - beta2) of them.",
    "eps": "Added to the root: an element whose gradients are far smaller than it moves by less than lr.",
    "eps_root": "Added to what is under the root: with it a step has a derivative where the gradient is 0.",
    "nu": "Weight of the average beside the gradient itself: 0 is plain SGD, 1 is the average alone.",
    "nu1": "Weight of the average beside the gradient itself, in the numerator: 1 is Adam's.",
    "nu2": "Weight of the average beside the squared gradient itself, under the root: 1 is Adam's.",
    "betas": "Decays of the buffers, one each; a decay of 0 is the gradient itself.",
    "beta3": "Decay of the slow average of gradients, which remembers about 1 / (1 - beta3) of them.",
    "alpha": "Weight of the slow average beside the fast one.",
    "psi": "Speed of the schedule of mu, which goes from about beta1 / 2 at the first steps to beta1.",
    "alpha_warmup": "Steps in which alpha grows from 0, linearly.",
    "beta3_warmup": "Steps in which beta3 grows from beta1, its half-life linearly.",
}
_OTHERWISE = {
    ("momentum", "beta"): "Decay of the sum of gradients, which grows to 1 / (1 - beta) of a constant one.",
    ("nesterov", "beta"): "Decay of the sum of gradients, which grows to 1 / (1 - beta) of a constant one.",
    ("lion", "beta1"): "Weight of m beside the gradient in the vote on the sign: the smaller, the more the gradient counts.",
    ("lion", "beta2"): "Decay of the average of gradients, which remembers about 1 / (1 - beta2) of them.",
}


def meaning(rule: Rule[Any, Any], name: str) -> str:
    """What a hyperparameter of a rule means: as its file says, where it does."""
    said: dict[str, str] = getattr(rule, "meanings", {})
    found = said.get(name) or _OTHERWISE.get((rule.name, name)) or MEANINGS.get(name)
    if found is None:
        msg = f"{rule.name}: say in docs/builders/meanings.py what its hyperparameter {name} means"
        raise ValueError(msg)
    return found

"""Rules as optimizers of torch: what is expected of ``torch.optim.AdamW`` is expected of all of them, from one table.

The expectations are those of torch's own tests of its optimizers (``test/test_optim.py``) and of the loops that people have.
"""

import copy
import io
import pickle
import subprocess
import sys
import textwrap
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xopt
from xopt.backends import base, fuse
from xopt.rule import Rule

torch = pytest.importorskip("torch", reason="torch is not installed")

from xopt.backends import torch_optim  # noqa: E402 - it imports torch

OURS = {name: torch_optim.of(rule) for name, rule in xopt.RULES.items()}
ALL = {"torch.optim.AdamW": torch.optim.AdamW, **OURS}

everyone = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
ours = pytest.mark.parametrize("make", OURS.values(), ids=OURS)


def model(dtype=torch.float32):
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(dtype)


def batch(i, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(i).standard_normal((5, 3))).to(dtype)


def loss_of(net, i):
    return (net(batch(i, next(net.parameters()).dtype)) ** 2).mean()


def train(net, optimizer, steps):
    for i in steps:
        optimizer.zero_grad()
        loss_of(net, i).backward()
        optimizer.step()


def numbers(net):
    return [p.detach().clone() for p in net.parameters()]


def bits(x):
    return x.contiguous().reshape(-1).view(torch.uint8)


def same(one, other):
    """Whether two lists of tensors have the same dtypes, shapes and bits."""
    return len(one) == len(other) and all(
        (x.dtype, x.shape) == (y.dtype, y.shape) and torch.equal(bits(x), bits(y)) for x, y in zip(one, other, strict=True)
    )


def values(entry):
    """The state of a parameter, as tensors."""
    return [torch.as_tensor(entry[key]) for key in sorted(entry)]


def with_grads(*shapes, dtype=torch.float32):
    draw = np.random.default_rng(7)
    params = [torch.nn.Parameter(torch.from_numpy(np.asarray(draw.standard_normal(shape))).to(dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.from_numpy(np.asarray(draw.standard_normal(tuple(p.shape)))).to(dtype)
    return params


def saved(state_dict):
    """What comes back of a file, by torch's own loading that runs no code."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# What is expected of every optimizer.


@everyone
def test_it_is_an_optimizer_and_trains(make):
    net = model()
    optimizer = make(net.parameters(), lr=0.02)
    assert isinstance(optimizer, torch.optim.Optimizer)
    before = loss_of(net, 0).item()
    train(net, optimizer, [0] * 30)
    assert loss_of(net, 0).item() < before


@everyone
def test_groups_have_hyperparameters_of_their_own(make):
    first, second = with_grads((3,), (3,))
    second.data, second.grad = first.data.clone(), first.grad.clone()
    optimizer = make([{"params": [first]}, {"params": second, "lr": 0.25}], lr=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    start = first.detach().clone()
    optimizer.param_groups[0]["weight_decay"] = optimizer.param_groups[1]["weight_decay"] = 0.0
    if "weight_decay" not in optimizer.defaults:
        pytest.skip("Adam has no weight decay")
    optimizer.step()
    assert torch.allclose(start - first, 2 * (start - second), rtol=1e-5)


@everyone
def test_a_group_is_added_in_mid_run(make):
    first, second = with_grads((3,), (2, 2))
    optimizer = make([first], lr=0.1)
    optimizer.step()
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    assert set(optimizer.param_groups[1]) == set(optimizer.param_groups[0])
    kept = second.detach().clone()
    optimizer.step()
    assert not torch.equal(kept, second)
    assert [float(optimizer.state[p]["step"]) for p in (first, second)] == [2, 1]


@everyone
def test_a_parameter_without_a_gradient_is_left_alone(make):
    first, second = with_grads((3,), (2, 2))
    optimizer = make([first, second], lr=0.1)
    optimizer.step()
    second.grad = None
    before = second.detach().clone(), copy.deepcopy(optimizer.state[second])
    optimizer.step()
    assert torch.equal(second, before[0])
    assert same(values(optimizer.state[second]), values(before[1]))
    first.grad = None
    optimizer.step()
    assert float(optimizer.state[first]["step"]) == 2


@everyone
def test_nothing_happens_before_there_are_gradients(make):
    net = model()
    optimizer = make(net.parameters(), lr=0.1)
    before = numbers(net)
    optimizer.step()
    assert same(before, numbers(net))
    assert not optimizer.state_dict()["state"]


@everyone
def test_a_frozen_layer_that_is_thawed_begins_at_its_first_step(make):
    """Its bias corrections are those of a first step: torch counts the steps of each parameter."""
    nets = [model(), model()]
    for p in nets[0][0].parameters():
        p.requires_grad_(False)
    optimizer = make(nets[0].parameters(), lr=0.1)
    train(nets[0], optimizer, range(3))
    for p in nets[0][0].parameters():
        p.requires_grad_(True)
    train(nets[0], optimizer, [3])
    counts = [float(optimizer.state[p]["step"]) for p in nets[0].parameters()]
    assert counts == [1, 1, 4, 4]


@everyone
def test_a_closure_is_called_once_with_gradients_enabled(make):
    (p,) = with_grads((3,))
    optimizer = make([p], lr=0.1)
    called = []

    def closure():
        called.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    before = float((p**2).sum().detach())
    with torch.no_grad():
        assert float(optimizer.step(closure)) == before
    assert called == [True]
    assert optimizer.step() is None


@everyone
def test_hooks_are_called_in_torchs_order_and_can_be_removed(make):
    (p,) = with_grads((3,))
    optimizer = make([p], lr=0.1)
    called = []
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    handles = [
        register_optimizer_step_pre_hook(lambda one, args, kwargs: called.append("all before")),
        optimizer.register_step_pre_hook(lambda one, args, kwargs: called.append("before")),
        optimizer.register_step_post_hook(lambda one, args, kwargs: called.append("after")),
        register_optimizer_step_post_hook(lambda one, args, kwargs: called.append("all after")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert called == ["all before", "before", "after", "all after"]


@everyone
def test_a_hook_before_a_step_gives_it_another_closure(make):
    (p,) = with_grads((3,))
    optimizer = make([p], lr=0.1)
    optimizer.register_step_pre_hook(lambda one, args, kwargs: ((args[0], lambda: 7.0), {}))
    assert optimizer.step() == 7.0
    optimizer.register_step_pre_hook(lambda one, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="must return None or"):
        optimizer.step()


@everyone
def test_state_dict_and_its_loading_call_their_hooks(make):
    net = model()
    optimizer = make(net.parameters(), lr=0.1)
    train(net, optimizer, [0])
    called = []
    optimizer.register_state_dict_pre_hook(lambda one: called.append("save"))
    optimizer.register_state_dict_post_hook(lambda one, found: found | {"note": 1})
    optimizer.register_load_state_dict_pre_hook(lambda one, given: called.append(sorted(given)))
    optimizer.register_load_state_dict_post_hook(lambda one: called.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == ["save", ["note", "param_groups", "state"], "loaded"]


@everyone
def test_a_hook_changes_what_is_loaded(make):
    net = model()
    optimizer = make(net.parameters(), lr=0.1)
    train(net, optimizer, [0])

    def slower(one, given):
        groups = [group | {"lr": 0.001} for group in given["param_groups"]]
        return given | {"param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(slower)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.001


@everyone
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_run_that_is_saved_and_resumed_has_the_same_bits(make, dtype):
    whole, first = model(dtype), model(dtype)
    train(whole, make(whole.parameters(), lr=0.02), range(6))
    optimizer = make(first.parameters(), lr=0.02)
    train(first, optimizer, range(3))
    file = saved({"model": first.state_dict(), "optimizer": optimizer.state_dict()})
    second = model(dtype)
    second.load_state_dict(file["model"])
    optimizer = make(second.parameters(), lr=9.0)
    optimizer.load_state_dict(file["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.02
    train(second, optimizer, range(3, 6))
    assert same(numbers(whole), numbers(second))


@everyone
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_does(make, copied):
    net = model()
    optimizer = make(net.parameters(), lr=0.02)
    train(net, optimizer, range(2))
    other, its = copied((net, optimizer))
    assert type(its) is type(optimizer)
    train(net, optimizer, range(2, 5))
    train(other, its, range(2, 5))
    assert same(numbers(net), numbers(other))
    assert repr(its) == repr(optimizer)


SCHEDULERS = {
    "StepLR": lambda s, o: s.StepLR(o, 2),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.3, total_iters=4),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda t: 0.8),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.001, 0.05, 3, cycle_momentum=False),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.05, 8, cycle_momentum=False),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)], [2]),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)], o),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, patience=0),
}


@everyone
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_sets_the_rate_of_the_next_step(make, scheduler):
    """As if it had been set by hand."""
    net, by_hand = model(), model()
    optimizer, other = make(net.parameters(), lr=0.05), make(by_hand.parameters(), lr=0.05)
    schedule = SCHEDULERS[scheduler](torch.optim.lr_scheduler, optimizer)
    rates = []
    for i in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        other.param_groups[0]["lr"] = rates[-1]
        train(net, optimizer, [i])
        train(by_hand, other, [i])
        schedule.step(*[float(i)] if scheduler == "ReduceLROnPlateau" else [])
    assert len(set(rates)) > 1
    assert same(numbers(net), numbers(by_hand))


@everyone
@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_schedulers_that_cycle_the_momentum(make, name):
    net = model()
    optimizer = make(net.parameters(), lr=0.05)

    def cycle():
        s = torch.optim.lr_scheduler
        return s.OneCycleLR(optimizer, 0.05, 8) if name == "OneCycleLR" else s.CyclicLR(optimizer, 0.001, 0.05, 3)

    if make is OURS["sgd"]:
        with pytest.raises(ValueError, match="must support momentum or beta1"):  # torch's own words
            cycle()
        return
    schedule = cycle()
    (group,) = optimizer.param_groups
    key = "momentum" if "beta" in group else "betas"
    seen = []
    for i in range(5):
        train(net, optimizer, [i])
        schedule.step()
        seen.append(group[key] if key == "momentum" else group[key][0])
        if isinstance(group, torch_optim.Group):
            assert key in make.rule.defaults or seen[-1] == group["beta" if key == "momentum" else "beta1"]
            assert (key in dict(group)) == (key in make.rule.defaults)
    assert len(set(seen)) > 2
    assert key == "momentum" or group[key][1] == (0.9 if make is OURS["aggmo"] else group.get("beta2", 0.999))


@everyone
def test_a_scaler_skips_steps_that_are_not_finite_and_unscales_the_others(make):
    net, plain = model(), model()
    optimizer, other = make(net.parameters(), lr=0.02), make(plain.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for i in range(4):
        optimizer.zero_grad()
        scaler.scale(loss_of(net, i)).backward()
        if i == 2:
            next(net.parameters()).grad[0] = torch.inf
        before = numbers(net)
        scaler.step(optimizer)
        assert same(before, numbers(net)) == (i == 2)
        scaler.update()
        if i != 2:
            train(plain, other, [i])
    assert same(numbers(net), numbers(plain))


@everyone
def test_autocast_and_clipping_of_the_norm(make):
    net = model()
    optimizer = make(net.parameters(), lr=0.02)
    for i in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(batch(i)).float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in net.parameters())


@everyone
def test_maximize_is_the_step_against_the_negated_gradient(make):
    up, down = with_grads((3,), (3,))
    down.data, down.grad = up.data.clone(), -up.grad
    grad = up.grad.clone()
    for _ in range(3):
        make([up], lr=0.1, maximize=True).step()
        make([down], lr=0.1).step()
    assert same([up.detach()], [down.detach()])
    assert torch.equal(grad, up.grad)


@everyone
def test_steps_within_a_backward_pass(make):
    """One optimizer a parameter, whose step its gradient sets off, as soon as it is there."""
    net, plain = model(), model()
    optimizers = {p: make([p], lr=0.02) for p in net.parameters()}

    def hook(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(hook)
    for i in range(3):
        loss_of(net, i).backward()
    assert all(p.grad is None for p in net.parameters())
    train(plain, make(plain.parameters(), lr=0.02), range(3))
    assert same(numbers(net), numbers(plain))


class Lookahead:
    """Every second step goes back half of the way: as people wrap optimizers, by sharing their groups and states."""

    def __init__(self, base):
        self.base, self.param_groups, self.state, self.zero_grad = base, base.param_groups, base.state, base.zero_grad
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]
        self.count = 0

    def step(self):
        self.base.step()
        self.count += 1
        for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
            if self.count % 2 == 0:
                p.data.copy_(slow.lerp_(p.detach(), 0.5))


def with_lookahead(make, net):
    return Lookahead(make(net.parameters(), lr=0.05))


def with_sharpness(make, net):
    """Its gradients are those at a point further up."""
    optimizer = make(net.parameters(), lr=0.05)

    def climb(one, args, kwargs):
        before = numbers(net)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(p.grad, alpha=0.05 / float(p.grad.norm()))
        net.zero_grad()
        with torch.enable_grad():
            loss_of(net, 0).backward()
        for p, x in zip(net.parameters(), before, strict=True):
            p.data = x

    optimizer.register_step_pre_hook(climb)
    return optimizer


@everyone
@pytest.mark.parametrize("wrapped", [with_lookahead, with_sharpness])
def test_optimizers_around_it(make, wrapped):
    net, start = model(), loss_of(model(), 0).item()
    optimizer = wrapped(make, net)
    train(net, optimizer, [0] * 12)
    assert loss_of(net, 0).item() < start
    assert {float(entry["step"]) for entry in optimizer.state.values()} == {12}


@everyone
def test_a_parameter_that_grows_takes_its_slots_along(make):
    """As where points are added to a scene: another parameter is put in its place, with longer slots."""
    (p,), (twin,) = with_grads((3, 2)), with_grads((3, 2))
    optimizer, other = make([p], lr=0.1), make([twin], lr=0.1)
    optimizer.step()
    entry = optimizer.state.pop(p)
    for key, x in entry.items():
        if isinstance(x, torch.Tensor) and x.shape == p.shape:
            entry[key] = torch.cat([x, torch.zeros(4, 2)])
    q = torch.nn.Parameter(torch.cat([p.detach(), torch.ones(4, 2)]))
    optimizer.param_groups[0]["params"][0], optimizer.state[q] = q, entry
    q.grad = torch.cat([p.grad, torch.ones(4, 2)])
    optimizer.step()
    for _ in range(2):
        other.step()
    assert same([q[:3].detach()], [twin.detach()])
    assert not torch.any(q[3:] == 1.0)


@everyone
def test_a_rate_may_be_a_tensor(make):
    net, plain = model(), model()
    optimizer, other = make(net.parameters(), lr=torch.tensor(0.5)), make(plain.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for i in range(3):
        train(net, optimizer, [i])
        other.param_groups[0]["lr"] = 0.5 ** (i + 1)
        train(plain, other, [i])
        schedule.step()
    for x, y in zip(numbers(net), numbers(plain), strict=True):
        assert torch.allclose(x, y)


@everyone
def test_a_function_that_torch_compiles_has_the_step_in_it(make):
    net, plain = model(), model()
    optimizer, other = make(net.parameters(), lr=0.02), make(plain.parameters(), lr=0.02)

    @torch.compile(backend="eager")
    def step(x):
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()

    for i in range(3):
        step(batch(i))
        train(plain, other, [i])
    torch._dynamo.reset()
    for x, y in zip(numbers(net), numbers(plain), strict=True):
        assert torch.allclose(x, y)


@everyone
def test_parameters_of_all_shapes_and_layouts(make):
    params = with_grads((), (0,), (1,), (3, 0, 2), (2, 3, 4, 5), (6, 4))
    last = torch.nn.Parameter(params[4].detach().to(memory_format=torch.channels_last))
    turned = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    gaps = torch.nn.Parameter(torch.arange(12.0)[::2].detach())
    for p in (last, turned, gaps):
        p.grad = torch.ones_like(p)
    params += [last, turned, gaps]
    contiguous = [torch.nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format)) for p in params]
    for p, q in zip(params, contiguous, strict=True):
        q.grad = p.grad.clone(memory_format=torch.contiguous_format)
    for some in (params, contiguous):
        optimizer = make(some, lr=0.1)
        for _ in range(2):
            optimizer.step()
    assert all(torch.allclose(p, q) for p, q in zip(params, contiguous, strict=True))


@everyone
def test_dtypes_in_one_group(make):
    params = [*with_grads((3,)), *with_grads((3,), dtype=torch.bfloat16), *with_grads((2, 2), dtype=torch.float64)]
    before = [p.detach().clone() for p in params]
    make(params, lr=0.1).step()
    assert not any(torch.equal(x, p) for x, p in zip(before, params, strict=True))


@everyone
def test_the_backward_pass_that_needs_old_numbers_fails(make):
    """A step says to autograd that it has written."""
    (p,) = with_grads((3,))
    loss = (p**2).sum()
    make([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@everyone
def test_gradients_that_have_a_graph_are_read_as_numbers(make):
    (p,) = with_grads((3,))
    p.grad = None
    loss = (p**3).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of create_graph, which torch advises against
        loss.backward(create_graph=True)
    make([p], lr=0.1).step()
    assert p.requires_grad
    assert p.is_leaf


@everyone
@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        (lambda p, q: p, TypeError, "iterable of Tensors or dicts"),
        (lambda p, q: [], ValueError, "empty parameter list"),
        (lambda p, q: {p, q}, None, ""),
        (lambda p, q: [{"params": {p}}], TypeError, "ordered collections"),
        (lambda p, q: [p, 3], TypeError, "can only optimize Tensors"),
        (lambda p, q: [p * 2], ValueError, "non-leaf Tensor"),
        (lambda p, q: [p, p], UserWarning, "duplicate parameters"),
        (lambda p, q: [{"params": p}, {"params": p}], ValueError, "more than one parameter group"),
        (lambda p, q: [("w", p), q], ValueError, "with/without names"),
        (lambda p, q: [{"params": [p]}, {"params": [("w", q)]}], ValueError, "with/without names"),
    ],
)
def test_parameters_that_are_refused(make, params, error, words):
    p, q = with_grads((2,), (2,))
    if error is None:
        make(params(p, q))
    else:
        with pytest.raises(error, match=words):
            make(params(p, q))


@everyone
@pytest.mark.parametrize(
    ("name", "value"), [("lr", -0.1), ("weight_decay", -1.0), ("betas", (1.0, 0.0)), ("lr", torch.ones(2))], ids=str
)
def test_numbers_that_are_refused(make, name, value):
    if name == "weight_decay" and make is OURS["adam"]:
        pytest.skip("Adam has no weight decay")
    if name == "betas" and make in OURS.values() and not {"beta1", "betas"} & set(make.rule.defaults):
        pytest.skip("it has no betas")
    with pytest.raises((ValueError, TypeError), match=r"lr|learning rate|weight_decay|beta"):
        make(with_grads((2,)), **{name: value})


# What is expected of ours.


@ours
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("fused", [True, False])
def test_the_parameters_are_those_of_the_step_of_the_rule(make, dtype, fused):
    """Fused steps have the bits of fused steps, plain ones those of plain ones."""
    net = model(dtype)
    optimizer = make(net.parameters(), lr=0.02, fused=fused)
    rule = make.rule
    state, step = rule.init(numbers(net)), fuse(rule) if fused else rule.step
    for i in range(4):
        optimizer.zero_grad()
        loss_of(net, i).backward()
        with torch.no_grad():
            state = step(state, [p.grad for p in net.parameters()], lr=0.02)
        optimizer.step()
        assert same(state.params, numbers(net))


def tied():
    """An embedding whose weights give the logits too."""
    net = torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.Linear(3, 7, bias=False))
    net[1].weight = net[0].weight
    return net


def of_norms():
    parametrizations = torch.nn.utils.parametrizations
    return torch.nn.Sequential(
        torch.nn.Embedding(7, 4),
        parametrizations.weight_norm(torch.nn.Linear(4, 3)),
        parametrizations.orthogonal(torch.nn.Linear(3, 3)),
    )


class Recomputed(torch.nn.Module):
    """Its activations are computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3), torch.nn.Tanh())

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=False)


def channels_last():
    net = torch.nn.Sequential(
        torch.nn.Embedding(7, 16), torch.nn.Unflatten(1, (1, 4, 4)), torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten()
    )
    net[2].weight = torch.nn.Parameter(torch.randn(3, 2, 3, 3).to(memory_format=torch.channels_last)[:, :1])
    return net


def built_without_memory():
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3))
    for p in net.to_empty(device="cpu").parameters():
        torch.nn.init.uniform_(p)
    return net


@pytest.mark.parametrize("build", [tied, of_norms, Recomputed, channels_last, built_without_memory])
def test_models_as_people_build_them(build):
    """The parameters that the rule's own step gives, fed with the gradients of the same model."""
    torch.manual_seed(3)
    net = build()
    twin = copy.deepcopy(net)
    optimizer, step = torch_optim.AdamW(net.parameters(), lr=0.02), fuse(xopt.adamw)
    state = xopt.adamw_init([p.detach().clone() for p in twin.parameters()])
    for i in range(3):
        for one in (net, twin):
            one.zero_grad()
            one((torch.arange(5) + i) % 7).square().mean().backward()
        optimizer.step()
        state = step(state, [p.grad for p in twin.parameters()], lr=0.02)
        with torch.no_grad():
            for p, x in zip(twin.parameters(), state.params, strict=True):
                p.copy_(x)
        assert same(numbers(net), state.params)


@ours
def test_a_state_is_one_array_a_key(make):
    net = model(torch.bfloat16)
    optimizer = make(net.parameters(), lr=0.02)
    train(net, optimizer, range(2))
    for p in net.parameters():
        entry = optimizer.state[p]
        assert type(entry["step"]) is int
        for key, x in entry.items():
            assert type(x) in (int, float) or (type(x) is torch.Tensor and x.shape == p.shape and x.dtype == torch.float32), key
    if make is OURS["aggmo"]:
        assert set(entry) == {"step", "v.1", "v.2"}


@ours
def test_what_is_loaded_keeps_its_dtype_and_is_a_copy(make):
    net = model()
    optimizer = make(net.parameters(), lr=0.02)
    train(net, optimizer, range(2))
    file = optimizer.state_dict()
    net.to(torch.bfloat16)
    other = make(net.parameters())
    other.load_state_dict(file)
    kept = copy.deepcopy(file)
    train(net, other, range(2))
    for k, entry in file["state"].items():
        assert same(values(entry), values(kept["state"][k]))
    assert all(x.dtype == torch.float32 for entry in other.state.values() for x in entry.values() if isinstance(x, torch.Tensor))


@ours
def test_no_hyperparameter_of_a_state_dict_goes_by_two_names(make):
    optimizer = make(with_grads((2,)))
    (group,) = optimizer.state_dict()["param_groups"]
    assert type(group) is dict
    assert set(group) == {*make.rule.defaults, "maximize", "fused", "params"}


def test_hyperparameters_by_torchs_names():
    params = with_grads((2,))
    optimizer = torch_optim.AdamW(params, betas=(0.8, 0.7))
    (group,) = optimizer.param_groups
    assert (group["beta1"], group["beta2"], group["betas"], group.get("betas")) == (0.8, 0.7, (0.8, 0.7), (0.8, 0.7))
    group["betas"] = (0.5, 0.25)
    assert (group["beta1"], group["beta2"]) == (0.5, 0.25)
    group.update(betas=(0.4, 0.3))
    assert (group["beta1"], group["beta2"]) == (0.4, 0.3)
    assert torch_optim.AdEMAMix(params, betas=(0.9, 0.99, 0.999)).param_groups[0]["beta3"] == 0.999
    assert torch_optim.Momentum(params, momentum=0.7).param_groups[0]["beta"] == 0.7
    assert torch_optim.Momentum([{"params": params, "momentum": 0.6}]).param_groups[0]["beta"] == 0.6
    assert "momentum" not in torch_optim.SGD(params).param_groups[0]
    assert torch_optim.SGD(params).param_groups[0].get("momentum", 3) == 3
    with pytest.raises(KeyError):
        group["momentum"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"lr": -1}, ValueError, r"torch_optim.AdamW: lr must be in \[0, inf\), got -1"),
        ({"beta1": 1.5}, ValueError, r"torch_optim.AdamW: beta1 must be in \[0, 1\), got 1.5"),
        ({"betas": (0.9, 1.5)}, ValueError, r"torch_optim.AdamW: beta2 must be in \[0, 1\), got 1.5"),
        ({"betas": (0.9,)}, ValueError, r"torch_optim.AdamW: betas must be 2 numbers, those of beta1, beta2, got \(0.9,\)"),
        ({"betas": 0.9}, ValueError, r"torch_optim.AdamW: betas must be 2 numbers"),
        ({"betas": (0.9, 0.9), "beta1": 0.8}, TypeError, "betas is another name of beta1 here; pass one of the two"),
        ({"eps": 1e-50}, ValueError, "eps=1e-50 is lost in float32"),
        ({"lr": "3"}, TypeError, "lr must be a number or a 0-d array, got '3'"),
        ({"learning_rate": 1}, TypeError, "unknown hyperparameter 'learning_rate'; did you mean lr?"),
        ({"momentum": 0.9}, TypeError, "unknown hyperparameter 'momentum'"),
        ({"amsgrad": True}, TypeError, "amsgrad is a keyword of torch's own optimizers; adamw takes lr"),
        ({"foreach": True}, TypeError, "foreach is a keyword of torch's own optimizers"),
        ({"fused": 1}, TypeError, "fused must be True or False, got 1"),
        ({"maximize": None}, TypeError, "maximize must be True or False, got None"),
    ],
)
def test_errors_name_the_optimizer_the_argument_and_the_range(given, error, words):
    params = with_grads((2,))
    with pytest.raises(error, match=words):
        torch_optim.AdamW(params, **given)
    optimizer = torch_optim.AdamW(params)
    more = {"params": with_grads((2,)), **given}
    if "learning_rate" in given:
        optimizer.add_param_group(more)  # as in torch, a group may have keys that are somebody else's
        return
    with pytest.raises(error, match=words.replace("torch_optim.AdamW:", "torch_optim.AdamW, group 1:")):
        optimizer.add_param_group(more)
    assert len(optimizer.param_groups) == 1


def test_a_module_in_place_of_its_parameters_is_refused():
    layer, several = torch.nn.Linear(2, 1), torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.ones(2))})
    for one, words in ((layer, "a Linear"), (torch.nn.Sequential(layer), "a Sequential"), (several, "a ParameterDict")):
        with pytest.raises(TypeError, match=rf"^torch_optim.Lion: params is {words}; pass its parameters\(\)"):
            torch_optim.Lion(one)
        with pytest.raises(TypeError, match=rf"^torch_optim.Lion, group 1: params is {words}"):
            torch_optim.Lion([{"params": layer.parameters()}, {"params": one}])
    assert len(torch_optim.Lion(torch.nn.ParameterList(several.values())).param_groups[0]["params"]) == 1


def test_a_group_has_no_hyperparameter_in_vain():
    """Trainers give each group a weight decay."""
    torch_optim.Adam([{"params": with_grads((2,)), "weight_decay": 0.0, "name": "head", "max_lr": 3}])
    with pytest.raises(TypeError, match=r"unknown hyperparameter 'weight_decay'; .* there is adamw"):
        torch_optim.Adam([{"params": with_grads((2,)), "weight_decay": 0.1}])


def test_a_number_that_is_set_later_is_checked_before_anything_is_written():
    first, second = with_grads((2,), (2,))
    optimizer = torch_optim.Lion([{"params": [first]}, {"params": [second]}])
    optimizer.param_groups[1]["lr"] = float("nan")
    before = first.detach().clone()
    with pytest.raises(ValueError, match=r"torch_optim.Lion, group 1: lr must be in \[0, inf\), got nan"):
        optimizer.step()
    assert torch.equal(first, before)
    optimizer.param_groups[1]["lr"] = 0.1
    optimizer.step()
    assert [optimizer.state[p]["step"] for p in (first, second)] == [1, 1]


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (lambda: torch.zeros(2, dtype=torch.complex64, requires_grad=True), r"torch_optim.Adam: params\[0\] is torch.complex64"),
        (lambda: torch.zeros(2, dtype=torch.int64), r"params\[0\] must be real floating-point, got torch.int64"),
        (lambda: torch.nn.LazyLinear(3).weight, "no numbers yet; let its module see a batch first"),
    ],
    ids=["complex", "integer", "lazy"],
)
def test_parameters_without_real_numbers(p, words):
    with pytest.raises(TypeError, match=words):
        torch_optim.Adam([p()])


def test_gradients_that_are_refused_are_named():
    table = torch.nn.Embedding(4, 2, sparse=True)
    head = torch.nn.Linear(2, 1)
    optimizer = torch_optim.AdamW([*table.named_parameters("table"), *head.named_parameters("head")])
    head(table(torch.tensor([1, 2]))).sum().backward()
    before = numbers(head)
    with pytest.raises(TypeError, match=r"grad\['table.weight'\] is a sparse or nested tensor.*make it dense"):
        optimizer.step()
    assert same(before, numbers(head))
    plain = torch_optim.AdamW(table.parameters(), fused=False)
    with pytest.raises(TypeError, match=r"grad\[0\] is a sparse"):
        plain.step()


def test_a_gradient_of_another_dtype_is_refused():
    (p,) = with_grads((3,), dtype=torch.bfloat16)
    p.grad = None
    p.grad_dtype = torch.float32
    p.grad = torch.ones(3)
    with pytest.raises(TypeError, match=r"grad\[0\] is torch.float32 but must be torch.bfloat16"):
        torch_optim.AdamW([p]).step()


def test_parameters_that_share_memory_are_refused():
    both = torch.zeros(4)
    first, second = torch.nn.Parameter(both[:3]), torch.nn.Parameter(both[1:])
    first.grad, second.grad = torch.ones(3), torch.ones(3)
    with pytest.raises(ValueError, match="shares memory with"):
        torch_optim.AdamW([first, second]).step()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda e: e | {"exp_avg": torch.zeros(3)}, ValueError, "parameter 0 has 'exp_avg', but that of adamw has step, m, v"),
        (lambda e: e | {"m.0": torch.zeros(3)}, ValueError, "has 'm.0'"),
        (lambda e: e | {"m": torch.zeros(4)}, ValueError, r"m must be a tensor of shape \(3,\)"),
        (lambda e: e | {"m": 3.0}, ValueError, "m must be a tensor"),
        (lambda e: e | {"m": torch.zeros(3, dtype=torch.float64)}, TypeError, "m is torch.float64 but must be torch.float32"),
        (lambda e: e | {"step": "3"}, TypeError, "step must be a number, got '3'"),
        (lambda e: {"m": e["m"]}, ValueError, "has no step"),
    ],
)
def test_a_state_that_is_none_of_this_rule_is_refused_whole(change, error, words):
    params = with_grads((3,), (2,))
    optimizer = torch_optim.AdamW(params, lr=0.1)
    optimizer.step()
    file = optimizer.state_dict()
    file["param_groups"][0]["lr"] = 7.0
    file["state"][0] = change(file["state"][0])
    before = optimizer.state[params[0]]
    with pytest.raises(error, match=words):
        optimizer.load_state_dict(file)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.state[params[0]] is before


def test_the_state_of_torchs_own_is_refused():
    params = with_grads((3,))
    theirs = torch.optim.AdamW(params)
    theirs.step()
    with pytest.raises(ValueError, match="it may be that of another optimizer"):
        torch_optim.AdamW(params).load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor(3.0), torch.tensor(3)], ids=repr)
def test_a_count_is_loaded_from_what_holds_it(step):
    (p,) = with_grads((3,))
    optimizer = torch_optim.Lion([p])
    optimizer.step()
    file = optimizer.state_dict()
    file["state"][0]["step"] = step
    optimizer.load_state_dict(file)
    assert optimizer.state[p]["step"] == 3
    assert type(optimizer.state[p]["step"]) is int


def test_a_wider_dtype_takes_a_narrower_state():
    (p,) = with_grads((3,))
    optimizer = torch_optim.Lion([p])
    optimizer.step()
    (q,) = with_grads((3,), dtype=torch.float64)
    other = torch_optim.Lion([q])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[q]["m"].dtype == torch.float64
    other.step()


def test_a_decay_of_0_keeps_no_array_and_one_that_comes_later_is_refused():
    (p,) = with_grads((3,))
    optimizer = torch_optim.AdEMAMix([p], beta1=0.0)
    optimizer.step()
    assert set(optimizer.state[p]) == {"step", "m2", "v"}
    optimizer.param_groups[0]["beta1"] = 0.9
    with pytest.raises(ValueError, match="remembers nothing"):
        optimizer.step()


@pytest.mark.parametrize(
    "name", ["SGD", "Momentum", "Nesterov", "QHM", "AggMo", "Adam", "AdamW", "NAdam", "QHAdam", "Lion", "AdEMAMix"]
)
def test_each_rule_has_a_class_by_its_own_name(name):
    import inspect

    made = getattr(torch_optim, name)
    assert (made.__name__, made.__module__) == (name, "xopt.backends.torch_optim")
    assert name in dir(torch_optim)
    assert made is torch_optim.of(made.rule) is torch_optim.of(made.rule.step)
    parameters = inspect.signature(made).parameters
    assert list(parameters) == ["params", *made.rule.defaults, "maximize", "fused"]
    assert {key: p.default for key, p in parameters.items() if key in made.rule.defaults} == made.rule.defaults
    assert made.rule.doc in made.__doc__


def test_there_is_a_class_for_each_rule_and_no_other():
    assert len({torch_optim.of(rule).__name__ for rule in xopt.RULES.values()}) == len(xopt.RULES)
    with pytest.raises(AttributeError, match="the optimizers are SGD, Momentum"):
        torch_optim.Adagrad  # noqa: B018
    for wrong in (3, None, xopt.adam_init, torch.optim.AdamW):
        with pytest.raises(TypeError, match=r"torch_optim.of: rule must be a rule or its step"):
            torch_optim.of(wrong)


class SignsState(NamedTuple):
    params: Any
    m: Any
    step: int


def update(params, m, grad, c):
    return xopt.lion.elementwise(params, m, grad, c)


def signs():
    return Rule("signs", SignsState, xopt.lion.coefficients, update, memory={"m": "beta2"})


own = signs()


def test_a_rule_of_ones_own_is_copied_by_its_own_name():
    """Its class is in no module, the rule is in this one."""
    (p,) = with_grads((3,))
    optimizer = torch_optim.of(own)([p])
    optimizer.step()
    assert type(optimizer).__name__ == "Signs"
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(other) is type(optimizer)
    with pytest.raises(pickle.PicklingError, match="make it one"):
        pickle.dumps(torch_optim.of(signs())([p]))


def test_plain_states_are_loaded_by_torch_without_running_code(tmp_path):
    """In a process that has never made one: their classes are among those that torch may make, once this module is there."""
    states = {name: rule.step(rule.init({"w": torch.zeros(3)}), {"w": torch.ones(3)}) for name, rule in xopt.RULES.items()}
    torch.save(states, tmp_path / "states.pt")
    program = """
        import sys, torch, xopt
        from xopt.backends import torch_optim
        states = torch.load(sys.argv[1])
        for name, rule in xopt.RULES.items():
            assert rule.step(states[name], {"w": torch.ones(3)}).step == 2, name
            new = rule.step(rule.init({"w": torch.zeros(3)}), {"w": torch.ones(3)})
            assert torch.equal(states[name].params["w"], new.params["w"])
    """
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(program), str(tmp_path / "states.pt")], check=True)


def test_slots_stay_the_objects_that_they_are():
    """What holds on to them, such as a checkpoint that is written beside the run, sees the numbers of now."""
    (p,) = with_grads((3,))
    optimizer = torch_optim.AdamW([p])
    optimizer.step()
    m = optimizer.state[p]["m"]
    optimizer.step()
    assert optimizer.state[p]["m"] is m


def test_a_step_that_cannot_be_fused_is_taken_plainly_and_says_so_once():
    class Marked(torch.Tensor):
        pass

    base.say_once.cache_clear()
    p = torch.ones(3).as_subclass(Marked).requires_grad_()
    p.grad = torch.ones(3).as_subclass(Marked)
    q = torch.ones(3, requires_grad=True)
    q.grad = torch.ones(3)
    optimizer = torch_optim.Lion([p], lr=0.5)
    with pytest.warns(UserWarning, match=r"torch_optim.Lion takes plain steps, as .*params\[0\].*subclass of torch's tensors"):
        optimizer.step()
    optimizer.step()
    plain = torch_optim.Lion([q], lr=0.5)
    for _ in range(2):
        plain.step()
    assert p.tolist() == q.tolist()


def test_steps_without_numba_have_the_same_bits(monkeypatch):
    """Through torch.compile, and where that fails too, plainly."""
    from xopt.backends.compilers import torch_compile
    from xopt.backends.fused.fallback import CompileError

    def fails(*args, **kwargs):
        msg = "no compiler today"
        raise CompileError(msg)

    base.say_once.cache_clear()
    monkeypatch.setattr("xopt.backends._torch.numba_or_reason", lambda: "numba is away")
    monkeypatch.setattr(torch_compile.TorchCompileFuser, "_launch", fails)
    params, others = with_grads((3,), (2, 2)), with_grads((3,), (2, 2))
    groups = [{"params": params[:1]}, {"params": params[1:]}]  # both of which were prepared before the first one fails
    optimizer, other = torch_optim.Lion(groups), torch_optim.Lion(others, fused=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            optimizer.step()
    reasons = ("numba is away", "no compiler today", "torch_optim.Lion takes plain steps")
    assert [reason in str(one.message) for reason, one in zip(reasons, said, strict=True)] == [True] * 3
    for _ in range(2):
        other.step()
    assert same([p.detach() for p in params], [p.detach() for p in others])


# Histories.


class Reference:
    """Plain steps of a rule, parameter by parameter: what the optimizer must be equal to."""

    def __init__(self, rule, params):
        self.rule = rule
        self.params = params
        self.slots = {}

    def step(self, grads, hyper):
        for i, (p, grad) in enumerate(zip(self.params, grads, strict=True)):
            if grad is not None:
                state = self.slots.get(i) or self.rule.init(p)
                with torch.no_grad():
                    state = fuse(self.rule)(state._replace(params=p), grad, **hyper[i])
                self.slots[i] = state
                self.params[i] = state.params


actions = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.lists(st.booleans(), min_size=5, max_size=5)),
        st.tuples(st.just("lr"), st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5])),
        st.tuples(st.just("group")),
        st.tuples(st.just("data"), st.integers(0, 4)),
        st.tuples(st.just("freeze"), st.integers(0, 4)),
        st.tuples(st.just("reload")),
        st.tuples(st.just("copy")),
        st.tuples(st.just("slot"), st.integers(0, 4)),
        st.tuples(st.just("half"), st.integers(0, 4)),
    ),
    min_size=3,
    max_size=12,
)


@given(actions, st.sampled_from(sorted(xopt.RULES)), st.integers(0, 2**20))
@settings(max_examples=60)
def test_histories_are_those_of_single_parameters(history, name, seed):
    """Groups that are added, data that is replaced, gradients that are missing, states that are loaded, rates that are changed."""
    draw = np.random.default_rng(seed)

    def fresh(shape):
        return torch.from_numpy(np.asarray(draw.standard_normal(shape), np.float32))

    shapes = [(3,), (2, 2), (), (4,), (1, 3)]
    params = [torch.nn.Parameter(fresh(shape)) for shape in shapes]
    make = OURS[name]
    optimizer = make(params[:3], lr=0.1)
    known = 3
    reference = Reference(make.rule, [p.detach().clone() for p in params])
    rates = [0.1, 0.1]
    for what, *how in [*history, ("step", [True] * 5)]:
        if what == "step":
            for i, p in enumerate(params):
                p.grad = fresh(p.shape).to(p.dtype) if how[0][i] else None
            optimizer.step()
            grads = [p.grad if i < known else None for i, p in enumerate(params)]
            reference.step(grads, [{"lr": rates[0 if i < 3 else 1]} for i in range(5)])
        elif what == "lr" and how[0] < len(optimizer.param_groups):
            optimizer.param_groups[how[0]]["lr"] = rates[how[0]] = how[1]
        elif what == "group" and known == 3:
            optimizer.add_param_group({"params": params[3:], "lr": rates[1]})
            known = 5
        elif what == "data":
            params[how[0]].data = fresh(shapes[how[0]]).to(params[how[0]].dtype)
            reference.params[how[0]] = params[how[0]].detach().clone()
        elif what == "freeze":
            params[how[0]].requires_grad_(not params[how[0]].requires_grad)
        elif what == "reload":
            groups = [{"params": params[:3]}, {"params": params[3:]}][: len(optimizer.param_groups)]
            other = make(groups)
            other.load_state_dict(saved(optimizer.state_dict()))
            optimizer = other
        elif what == "copy":
            params, optimizer = copy.deepcopy((params, optimizer))
        elif what == "slot" and how[0] in reference.slots:  # set by hand, by another object
            entry, state = optimizer.state[params[how[0]]], reference.slots[how[0]]
            for key, x in entry.items():
                if isinstance(x, torch.Tensor):
                    entry[key] = x * 2
            double = [
                tuple(None if x is None else x * 2 for x in slot)
                if isinstance(slot, tuple)
                else slot * 2
                if isinstance(slot, torch.Tensor)
                else slot
                for slot in state[1:-1]
            ]
            reference.slots[how[0]] = state._replace(**dict(zip(make.rule.slots, double, strict=True)))
        elif what == "half":
            p = params[how[0]]
            p.data = p.data.to(torch.bfloat16)
            reference.params[how[0]] = p.detach().clone()
        assert same([p.detach() for p in params], reference.params)
    for i, state in reference.slots.items():
        assert optimizer.state[params[i]]["step"] == state.step


@pytest.mark.filterwarnings("ignore:.*takes plain steps")
@pytest.mark.parametrize("shared", ["overlapping", "columns", "gradient", "nothing"])
def test_groups_that_share_memory_step_alike_fused_and_not(shared):
    def stepped(fused):
        base = torch.arange(12.0)
        views = {"overlapping": (base[:6], base[3:9]), "columns": base.view(3, 4).split(2, 1)}.get(shared, base.split(6))
        params = list(map(torch.nn.Parameter, views))
        groups = [{"params": [params[0]], "lr": 0.5}, {"params": [params[1]], "lr": 0.25, "weight_decay": 0.5}]
        optimizer = torch_optim.SGD(groups, fused=fused)
        for _ in range(3):
            for p in params:
                p.grad = torch.ones_like(p)
            if shared == "gradient":
                params[1].grad = params[0].detach()
            optimizer.step()
        return base, optimizer._said

    (one, plain), (other, _) = stepped(fused=True), stepped(fused=False)
    assert torch.equal(one, other)
    assert plain == (shared != "nothing")

"""Rules as optimizers of torch on tensors that several processes share, by FSDP2, DTensor and DDP, in real processes here."""

import contextlib
import os
import sys
import traceback
import warnings

import numpy as np
import pytest

import xopt
from xopt.backends import fuse

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo, by which processes on CPUs talk", allow_module_level=True)

SHAPES = {"0.weight": (5, 3), "0.bias": (5,), "1.weight": (2, 5), "1.bias": (2,)}  # none of which 2 or 4 processes divide evenly


def net():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))


def grad_of(name, t):
    """That of all processes together, at a step."""
    draw = np.random.default_rng([t, *name.encode()])
    return torch.from_numpy(draw.standard_normal(SHAPES[name]).astype(np.float32))


def alone(rule, start, steps, fused):
    """The parameters of one process that has everything."""
    params = {name: p.detach().clone() for name, p in start.named_parameters()}
    state, step = rule.init(params), fuse(rule) if fused else rule.step
    for t in steps:
        state = step(state, {name: grad_of(name, t) for name in params}, lr=0.1)
    return state.params


def assert_same(model, params, equal=torch.equal):
    for name, p in model.named_parameters():
        assert equal(p.full_tensor().detach(), params[name]), name


def traced(step):
    """What is sent in a step, by torch's profiler: its CommDebugMode would have the step taken plainly, to see each operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trace:
        step()
    names = [event.name for event in trace.events()]
    assert any("Optimizer.step" in name for name in names)
    return [name for name in names if name.startswith(("c10d::", "gloo:", "_c10d_functional"))]


def steps(model, optimizer, counts):
    """Steps with gradients that are distributed as their parameters are. Returns what is sent."""
    from torch.distributed.tensor import distribute_tensor

    sent = []
    for t in counts:
        for name, p in model.named_parameters():
            p.grad = distribute_tensor(grad_of(name, t), p.device_mesh, p.placements)
        sent += traced(optimizer.step)
    return sent


def sharded(mesh):
    from torch.distributed.fsdp import fully_shard

    model = net()
    for layer in model:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def distributed(mesh, placement):
    from torch.distributed.tensor import distribute_tensor

    model = net()
    for layer in model:
        for name, p in list(layer.named_parameters()):
            layer.register_parameter(name, torch.nn.Parameter(distribute_tensor(p.detach(), mesh, [placement])))
    return model


# What the processes do.


def check_bits(mesh, folder):
    """Every rule, fused and plain, sharded by FSDP2 and by hand, replicated: the bits of one process, and nothing sent."""
    from torch.distributed.tensor import Replicate, Shard

    from xopt.backends import torch_optim

    makers = [lambda: sharded(mesh), lambda: distributed(mesh, Shard(0)), lambda: distributed(mesh, Replicate())]
    few = [xopt.aggmo, xopt.ademamix]
    for rule in xopt.RULES.values() if mesh.size() == 2 else few:
        for fused in (True, False):
            expected = alone(rule, net(), range(3), fused)
            for make in makers:
                model = make()
                optimizer = torch_optim.of(rule)(model.named_parameters(), lr=0.1, fused=fused)
                assert steps(model, optimizer, range(3)) == [], rule
                # torch's own root on a CPU depends on where in memory a number is
                roots = any(operation == "sqrt" for _, operation, _ in rule.program.operations)
                assert_same(model, expected, torch.allclose if roots and not fused else torch.equal)
                for entry in optimizer.state.values():
                    for x in entry.values():
                        assert not isinstance(x, torch.Tensor) or type(x).__name__ == "DTensor"


def check_training(mesh, folder):
    """A loop with a loss; the gradients that FSDP2 has formed, stepped by one process, give the same parameters."""
    from xopt.backends import torch_optim

    model, state = sharded(mesh), None
    optimizer = torch_optim.AdEMAMix(model.parameters(), lr=0.05, alpha_warmup=10)
    step = fuse(xopt.ademamix)
    for t in range(3):
        optimizer.zero_grad()
        draw = np.random.default_rng([t, torch.distributed.get_rank()])
        x = torch.from_numpy(draw.standard_normal((4, 3)).astype(np.float32))
        (model(x) ** 2).mean().backward()
        params = dict(model.named_parameters())
        grads = {name: p.grad.full_tensor() for name, p in params.items()}
        with torch.no_grad():
            state = state or xopt.ademamix_init({name: p.full_tensor().clone() for name, p in params.items()})
            state = step(state, grads, lr=0.05, alpha_warmup=10)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e6)
        optimizer.step()
        assert_same(model, state.params)


def check_partial(mesh, folder):
    """A gradient that is still to be summed is summed first, which is seen; a parameter that is, is refused."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    from xopt.backends import torch_optim

    model = distributed(mesh, Replicate())
    expected = alone(xopt.lion, net(), range(1), fused=True)
    optimizer = torch_optim.Lion(model.parameters(), lr=0.1)
    for name, p in model.named_parameters():
        share = grad_of(name, 0) if mesh.get_local_rank() == 0 else torch.zeros(SHAPES[name])
        p.grad = DTensor.from_local(share, mesh, [Partial()])
    assert traced(optimizer.step)
    assert_same(model, expected)
    p = torch.nn.Parameter(DTensor.from_local(torch.ones(3), mesh, [Partial()]))
    p.grad = DTensor.from_local(torch.ones(3), mesh, [Partial()])
    with pytest.raises(ValueError, match=r"params\[0\] is a sum that is still to be formed"):
        torch_optim.Lion([p]).step()


class Sometimes(torch.nn.Module):
    """A part of it has no gradient in every other step."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes = net(), torch.nn.Linear(3, 2)

    def forward(self, x, both):
        return self.always(x) + (self.sometimes(x) if both else 0.0)


def check_ddp(mesh, folder):
    """DistributedDataParallel: optimizer, plain steps and donated ones take the gradients of its buckets, alike everywhere."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    from xopt.backends import torch_optim

    rank = torch.distributed.get_rank()
    for rule in (xopt.adamw, xopt.nadam, xopt.aggmo, xopt.ademamix):
        torch.manual_seed(3)
        model = torch.nn.parallel.DistributedDataParallel(Sometimes(), find_unused_parameters=True, gradient_as_bucket_view=True)
        if rule is xopt.adamw:  # each process keeps the slots of a part
            optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=torch_optim.AdamW, lr=0.1)
        else:
            optimizer = torch_optim.of(rule)(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        plain, donated = (rule.init({n: p.detach().clone() for n, p in model.named_parameters()}) for _ in range(2))
        step, donate = fuse(rule), fuse(rule, donate=True)
        for t in range(4):
            optimizer.zero_grad()
            x = torch.from_numpy(np.random.default_rng([t, rank]).standard_normal((6, 3)).astype(np.float32))
            with model.no_sync() if t == 2 else contextlib.nullcontext():
                model(x, t % 2).square().mean().backward()
            if t == 2:  # the gradients are summed in the second of two passes
                model(x, 1).square().mean().backward()
            grads, lr = {n: p.grad for n, p in model.named_parameters()}, optimizer.param_groups[0]["lr"]
            plain, donated = step(plain, grads, lr=lr), donate(donated, grads, lr=lr)
            optimizer.step()
            schedule.step()
        for name, p in model.named_parameters():
            everywhere = [torch.empty_like(p) for _ in range(mesh.size())]
            torch.distributed.all_gather(everywhere, p.detach())
            for x in (plain.params[name], donated.params[name], *everywhere):
                assert torch.equal(x, p), (rule, name)
        assert plain.step["module.always.0.bias"] == 4
        assert plain.step["module.sometimes.bias"] == 3


def saved_runs():
    """Every rule, and those whose slots are several arrays or numbers in the flat form of a checkpoint too."""
    for name, rule in xopt.RULES.items():
        yield False, name, rule
        if rule.carried or any(slot.several for slot in rule.schema):
            yield True, name, rule


def check_save(mesh, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    from xopt.backends import torch_optim

    for flat, name, rule in saved_runs():
        model = sharded(mesh)
        optimizer = torch_optim.of(rule)(model.parameters(), lr=0.1)
        steps(model, optimizer, range(3))
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        params, slots = get_state_dict(model, optimizer, options=options)
        dcp.save({"model": params, "optimizer": slots}, checkpoint_id=folder / f"{name}-{flat}")


def check_load(mesh, folder):
    """By whatever number of processes it was saved."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    from xopt.backends import torch_optim

    for flat, name, rule in saved_runs():
        model = sharded(mesh)
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        optimizer = torch_optim.of(rule)(model.parameters(), lr=9.0)
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        params, slots = get_state_dict(model, optimizer, options=options)
        found = {"model": params, "optimizer": slots}
        dcp.load(found, checkpoint_id=folder / f"{name}-{flat}")
        set_state_dict(model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"], options=options)
        assert {entry["step"] for entry in optimizer.state.values()} == {3}
        steps(model, optimizer, range(3, 6))
        assert_same(model, alone(rule, net(), range(6), fused=True))


def work(rank, folder, parts):
    """Takes part in each group of processes that is large enough, one after the other: starting one takes seconds."""
    warnings.simplefilter("ignore")  # torch's own, of its checkpoints
    warnings.filterwarnings("error", message=".*takes plain steps")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        from torch.distributed.device_mesh import init_device_mesh

        for size, checks in parts.items():
            if rank < size:
                torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/{size}", rank=rank, world_size=size)
                mesh = init_device_mesh("cpu", (size,))
                for check in checks:
                    globals()[check](mesh, folder)
                torch.distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise


def test_two_and_four_processes_step_as_one_does_and_four_resume_what_two_have_saved(tmp_path):
    parts = {
        2: ("check_bits", "check_training", "check_partial", "check_ddp", "check_save"),
        4: ("check_load", "check_bits", "check_training"),
    }
    torch.multiprocessing.start_processes(work, (tmp_path, parts), nprocs=4, start_method="spawn")

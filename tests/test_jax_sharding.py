"""Steps of arrays that four devices share, by every engine of JAX: the bits of one device, the same sharding, nothing sent."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="jax is not installed")

PROGRAM = """
import json, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import xopt
from xopt.backends import fuse

SENT = re.compile("all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter")
host = {"w": np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8), "b": np.linspace(-2, 1, 8, dtype=np.float32)}
grads = {name: np.random.default_rng(len(name)).standard_normal(x.shape, np.float32) for name, x in host.items()}
layouts = {
    "data parallel": {"w": P(), "b": P()},
    "FSDP": {"w": P("model", None), "b": P("model")},
    "tensor parallel": {"w": P(None, "model"), "b": P("model")},
    "both": {"w": P("data", "model"), "b": P("data")},
}
here, found = jax.tree.map(jnp.asarray, grads), {}
for rule in (xopt.aggmo, xopt.ademamix):
    alone = rule.init(jax.tree.map(jnp.asarray, host))
    jitted, eager = jax.jit(rule.step), rule.step(alone, here)
    compiled = jitted(alone, here)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind, kind))
        for name, specs in layouts.items():
            places = {leaf: NamedSharding(mesh, spec) for leaf, spec in specs.items()}
            state, grad = rule.init(jax.device_put(host, places)), jax.device_put(grads, places)

            def same(new, expected):
                pairs = zip(jax.tree.leaves(new[:-1]), jax.tree.leaves(expected[:-1]), strict=True)
                kept = all(new.params[leaf].sharding.is_equivalent_to(places[leaf], host[leaf].ndim) for leaf in host)
                return kept and all(np.array_equal(x, y) for x, y in pairs)

            key = f"{rule.name}, {name}, {kind.name}"
            found[key] = {
                "eager": same(rule.step(state, grad), eager),
                "fused": same(fuse(rule)(state, grad), fuse(rule)(alone, here)),
                "jit": same(jitted(state, grad), compiled),
                "sent": SENT.findall(jitted.lower(state, grad).compile().as_text()),
            }
            if kind is AxisType.Auto:
                if name == "FSDP":  # jit(grad) places what it makes where it likes
                    elsewhere = jax.device_put(grads, NamedSharding(mesh, P("data")))
                    found[key]["elsewhere"] = same(rule.step(state, elsewhere), eager)
                    found[key]["elsewhere, fused"] = same(fuse(rule)(state, elsewhere), fuse(rule)(alone, here))
                spec = jax.tree.map(lambda x: x.sharding.spec, state._replace(step=jax.device_put(0, NamedSharding(mesh, P()))))
                mapped = jax.jit(jax.shard_map(rule.step, mesh=mesh, in_specs=(spec, specs), out_specs=spec))
                with_array = state._replace(step=jnp.int32(0))
                traced = jitted(alone._replace(step=jnp.int32(0)), grads)
                found[key]["shard_map"] = same(mapped(with_array, grad), traced)
                found[key]["sent"] += SENT.findall(mapped.lower(with_array, grad).compile().as_text())

# what must be sent is seen: here the sum over all shards
total = jax.jit(lambda s, g: xopt.lion_step(s, jax.tree.map(lambda x: x - jnp.sum(x), g)))
arguments = xopt.lion_init(jax.device_put(host, places)), jax.device_put(grads, places)
found["control"] = SENT.findall(total.lower(*arguments).compile().as_text())
print(json.dumps(found))
"""


def test_four_devices_step_as_one_does_and_send_nothing() -> None:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("control"), "what must be sent is seen"
    assert len(found) == 2 * 2 * 4
    for layout, said in found.items():
        assert said.pop("sent") == [], layout
        assert said == dict.fromkeys(said, True), layout
        assert {"eager", "fused", "jit"} <= said.keys()

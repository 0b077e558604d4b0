"""Dask with several processes: a run of many steps with the bits of one process, and no chunk that needs another.

An optional job: ``pip install -e '.[distributed]'`` brings dask.distributed; without it these are skipped.
"""

import numpy as np
import pytest

import xopt

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

import dask.array as da  # noqa: E402
import dask.base  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # of its own
SIZE, CHUNK, STEPS, TARGET = 6000, 1000, 12, np.random.default_rng(0).standard_normal(6000).astype(np.float32)


@pytest.fixture(scope="module")
def client():
    """Of two processes beside this one."""
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def reached(x):
    """Of each chunk of an array that is still to be computed, which chunks of the data and of the state it is made of."""
    graph = x.__dask_graph__()
    needs, found = graph.get_all_dependencies(), {}
    for chunk in range(x.npartitions):
        todo, seen = [(x.name, chunk) if x.ndim else (x.name,)], set()
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                todo += needs[key]
        found[chunk] = {key[1] for key in seen if len(key) == 2}
    return found


def trained(rule, zeros, target, keep=lambda state: state):
    """A step uses the counts of leaves that differ: one has no gradient at first."""
    state = keep(rule.init({"w": zeros, "b": zeros[:CHUNK]}))
    for t in range(STEPS):
        grads = {"w": state.params["w"] - target, "b": state.params["b"] * 2 - target[:CHUNK] if t > 1 else None}
        state = rule.step(state, grads, lr=0.01 / (1 + t))
        if t % 4 == 3:
            state = keep(state)
    return state


def arrays(state):
    """Without the count, which ends a state: those that there are."""
    columns = [x for column in state[:-1] for x in column.values()]
    return [x for column in columns for x in (column if isinstance(column, tuple) else (column,)) if hasattr(x, "dtype")]


def test_a_run_over_processes_has_the_bits_of_one(rule, client):
    """Which process has a chunk is dask's choice, and it may move some; none needs another."""
    target = client.persist(da.from_array(TARGET, chunks=CHUNK))
    last = []

    def keep(state):
        last.append(state)
        return dask.base.persist(state)[0]

    state = trained(rule, da.zeros(SIZE, chunks=CHUNK, dtype="float32"), target, keep)
    assert len(last) == 1 + STEPS // 4
    assert reached(last[-1].params["w"]) == {i: {i} for i in range(SIZE // CHUNK)}
    distributed.wait(arrays(state))
    workers = {worker for places in client.who_has(state.params["w"]).values() for worker in places}
    assert workers == set(client.scheduler_info()["workers"])
    assert len(workers) == 2
    alone = trained(rule, np.zeros(SIZE, np.float32), TARGET)
    assert state.step == alone.step == {"w": STEPS, "b": STEPS - 2}
    pairs = list(zip(arrays(state), arrays(alone), strict=True))
    assert len(pairs) >= 2
    for x, y in pairs:
        assert x.dtype == y.dtype
        assert np.array_equal(x.compute(), y)


def test_a_norm_needs_all_chunks_and_has_the_bits_of_one_process(client):
    norm = xopt.tree.global_norm([client.persist(da.from_array(TARGET, chunks=CHUNK))])
    assert reached(norm)[0] >= set(range(SIZE // CHUNK))
    assert norm.compute() == xopt.tree.global_norm([TARGET])

"""What a pure step does with bad and with odd input. Each test names the row of the table that it proves.

ELSEWHERE has the rows that are not about a pure step on a machine like this one.
"""

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree
import pytest
from libraries import LIBRARIES, assert_same_bits, busy, leaves, normal, run, to_numpy

import xopt
from xopt.backends import fuse
from xopt.checks import Interval

ELSEWHERE = {
    "BI-05": "a second moment saved in float16: checkpoints",
    "BI-06": "subnormals that a library flushes: the probes of the suite",
    "BI-18": "a truncated checkpoint: checkpoints",
    "BI-19": "a malicious checkpoint: checkpoints",
    "BI-21": "more than 2**31 elements: evidence from a large machine",
    "BI-22": "float64 on JAX without x64: the session and the probes of the suite",
    "BI-23": "threads: test_purity.py",
}

SLOTS = [pytest.param(rule, "grad", id=f"{rule.name}-grad") for rule in xopt.RULES.values()]
SLOTS += [pytest.param(rule, slot, id=f"{rule.name}-{slot}") for rule in xopt.RULES.values() for slot in rule.memory]
HYPERS = [pytest.param(rule, name, id=f"{rule.name}-{name}") for rule in xopt.RULES.values() for name in rule.defaults]


def test_every_row_is_tested_or_elsewhere():
    tested = {row for name, f in globals().items() if name.startswith("test_") for row in re.findall(r"BI-\d\d", f.__doc__ or "")}
    assert tested | ELSEWHERE.keys() == {f"BI-{row:02}" for row in range(1, 24)}
    assert not tested & ELSEWHERE.keys()


# What does not go with the parameters.


def corrupt(slot, change):
    """A slot of one leaf, with every array in it changed."""
    if isinstance(slot, tuple):
        return tuple(corrupt(one, change) for one in slot)
    return None if slot is None else change(slot)


def stepped_with(rule, params, grad, name, path, change):
    """Steps ``rule`` on a tree, after ``change`` of one leaf of grad or of a slot."""
    state, grad = rule.init(params), dict(grad)
    if name == "grad":
        grad[path] = change(grad[path])
        return rule.step(state, grad)
    slot = dict(getattr(state, name))
    slot[path] = corrupt(slot[path], change)
    return rule.step(state._replace(**{name: slot}), grad)


def refused(kind, rule, name, change, *say, dtype="float32", library):
    """Asserts that a changed leaf is refused, alone and in a tree, by an error that says where and ``say``."""
    p, g = library.array(normal(0, 3), dtype), library.array(normal(1, 3), dtype)
    full = "grad" if name == "grad" else f"state.{name}"
    with pytest.raises(kind) as error:
        stepped_with(rule, {"a": p, "b": p}, {"a": g, "b": g}, name, "b", change)
    for text in (f"{rule.name}_step: ", f"{full}['b']", "params['b']", *say):
        assert text in str(error.value)
    state = rule.init(p)
    if name != "grad":
        state, grad = state._replace(**{name: corrupt(getattr(state, name), change)}), g
    else:
        grad = change(g)
    with pytest.raises(kind) as error:
        rule.step(state, grad)
    for text in (f"{rule.name}_step: {full}", *say):
        assert text in str(error.value)


@pytest.mark.parametrize(("rule", "name"), SLOTS)
def test_shape(rule, name, library):
    """BI-07: a mismatched shape is a ValueError with both shapes; nothing is broadcast."""
    for shape in ((), (1,), (4,), (3, 1), (1, 3), (0,)):
        wrong, say = library.array(np.ones(shape)), (f" {shape} ", " (3,)", "nothing is broadcast")
        refused(ValueError, rule, name, lambda _: wrong, *say, library=library)  # noqa: B023


def test_shape_the_other_way(rule, library):
    """BI-07: parameters that would broadcast to their gradient."""
    for ours, theirs in itertools.permutations([(), (1,), (3,), (3, 1)], 2):
        with pytest.raises(ValueError, match="shape"):
            rule.step(rule.init(library.array(np.ones(ours))), library.array(np.ones(theirs)))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("float32", "float64"), ("float64", "float32"), ("float32", "int32"), ("float64", "bool")]
)
@pytest.mark.parametrize(("rule", "name"), SLOTS)
def test_dtype(rule, name, ours, theirs, library):
    """BI-08: another dtype is a TypeError with both; nothing is promoted or cast."""
    refused(TypeError, rule, name, lambda x: library.array(to_numpy(x), theirs), theirs, ours, dtype=ours, library=library)


@pytest.mark.parametrize("name", [row.name for row in LIBRARIES.values() if row.half])
def test_half_precision_dtypes(rule, name):
    """BI-08: float16 parameters have a float16 gradient and float32 slots."""
    library = LIBRARIES[name]
    pytest.importorskip(library.module)
    for dtype in library.half:
        p = library.array(normal(0, 3), dtype)
        with pytest.raises(TypeError, match=f"grad is .*float32 but must be .*{dtype}"):
            rule.step(rule.init(p), library.array(normal(1, 3), "float32"))
        for slot in rule.memory:
            state = rule.init(p)
            wrong = corrupt(getattr(state, slot), lambda x: library.array(to_numpy(x), dtype))  # noqa: B023
            with pytest.raises(TypeError, match=rf"state\.{slot} is .*{dtype} but must be .*float32"):
                rule.step(state._replace(**{slot: wrong}), p)


@pytest.mark.parametrize("other", LIBRARIES)
@pytest.mark.parametrize(("rule", "name"), SLOTS)
def test_library(rule, name, other, library):
    """BI-08: libraries are not mixed: a TypeError that names both."""
    if other == library.name:
        assert run(rule, library.array(normal(0, 3)), [LIBRARIES[other].array(normal(1, 3))]).step == 1
        return
    pytest.importorskip(LIBRARIES[other].module)
    refused(
        TypeError,
        rule,
        name,
        lambda x: LIBRARIES[other].array(to_numpy(x)),
        f"is a {other}",
        f"is a {library.name}",
        library=library,
    )


@pytest.mark.parametrize("junk", [1.0, 0, "g", b"g", ..., [1.0, 2.0, 3.0], ()], ids=repr)
def test_no_array(rule, junk, library):
    """BI-08: a gradient that is no array."""
    p = library.array(normal(0, 3))
    with pytest.raises(TypeError, match="grad must be an array like params, got"):
        rule.step(rule.init(p), junk)
    with pytest.raises((TypeError, ValueError), match=r"grad.*\['b'\]"):
        rule.step(rule.init({"b": p}), {"b": junk})


@pytest.mark.parametrize(("rule", "name"), SLOTS)
def test_device(rule, name):
    """BI-12: a leaf of the gradient or of a slot on another device is a ValueError with both devices."""
    strict = pytest.importorskip("array_api_strict")
    library = LIBRARIES["array_api_strict"]

    def moved(x):
        return strict.asarray(x, device=strict.Device("device1"), copy=True)

    refused(ValueError, rule, name, moved, "device1", "CPU_DEVICE", "move", library=library)


def test_devices_may_differ_from_leaf_to_leaf(rule):
    """BI-12: one tree, two devices, each leaf stays where it is."""
    strict = pytest.importorskip("array_api_strict")
    devices = {name: strict.Device(name) for name in ("CPU_DEVICE", "device1", "device2")}
    params, grad = (
        {k: strict.asarray(normal(seed, 3), dtype=strict.float32, device=v) for k, v in devices.items()} for seed in (0, 1)
    )
    state = run(rule, params, [grad] * 2, **busy(rule))
    for field in ("params", *rule.memory):
        for key, device in devices.items():
            for x in optree.tree_leaves(getattr(state, field)[key]):
                assert x.device == device
    alone = run(rule, params["CPU_DEVICE"], [grad["CPU_DEVICE"]] * 2, **busy(rule))
    assert_same_bits(state.params["CPU_DEVICE"], alone.params)


BAD_TREES = {
    "missing key": (lambda x: {"a": {"w": x}}, "['a']['b']"),
    "extra key": (lambda x: {"a": {"w": x, "b": x, "c": x}}, "['a']['c']"),
    "other key": (lambda x: {"a": {"w": x, "B": x}}, "['a']['b']"),
    "other container": (lambda x: {"a": [x, x]}, "['a']"),
    "tuple": (lambda x: {"a": (x, x)}, "['a']"),
    "shallow": (lambda x: {"a": x}, "['a']"),
    "bare": (lambda x: x, ""),
    "empty": (lambda _: {}, "['a']"),
    "None": (lambda _: None, "['a']"),
}


@pytest.mark.parametrize("tree", BAD_TREES)
def test_tree(rule, tree, library):
    """BI-07: another tree than that of the parameters, in the gradient or in a slot, is a ValueError with both trees."""
    x = library.array(normal(0, 3))
    make, place = BAD_TREES[tree]
    params = {"a": {"w": x, "b": x}}
    state = rule.init(params)
    for name in ("grad", *(f"state.{slot}" for slot in rule.slots)):
        bad = state if name == "grad" else state._replace(**{name.removeprefix("state."): make(x)})
        with pytest.raises(ValueError, match="must have the tree of params") as error:
            rule.step(bad, make(x) if name == "grad" else params)
        for text in (f"{rule.name}_step: {name} ", "{'a': {'b': *, 'w': *}}", place):
            assert text in str(error.value)


def test_no_leaf_is_lost_where_none_stands(rule, library):
    """BI-07: an array where params have none."""
    x = library.array(normal(0, 3))
    with pytest.raises((TypeError, ValueError), match=r"\['b'\]"):
        rule.step(rule.init({"w": x, "b": None}), {"w": x, "b": x})


# Parameters.


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_parameters_that_would_be_truncated(rule, dtype, library):
    """BI-09: integer and bool parameters are a TypeError at init, and at a step that finds them."""
    good, bad = library.array(np.ones(3)), library.array(np.ones(3), dtype)
    for attempt in (lambda: rule.init(bad), lambda: rule.step(rule.init(good)._replace(params=bad), bad)):
        with pytest.raises(TypeError, match=f"params must be real floating-point, got .*{dtype}.*truncated"):
            attempt()
    with pytest.raises(TypeError, match=rf"{rule.name}_init: params\['b'\]\[1\] must be real"):
        rule.init({"a": good, "b": [good, bad]})


def test_records_are_refused_and_their_fields_are_parameters():
    """A structured array: numbers that stand between one another's are stepped like any strided ones."""
    records = np.zeros(4, [("a", "float32"), ("b", "float64")])
    for refused in (xopt.lion_init, xopt.tree.global_norm):
        with pytest.raises(TypeError, match=r"has fields, .*; pass a dict of them, each an array: \{'a': x\['a'\], \.\.\.\}"):
            refused(records)
    fields = {name: records[name] for name in "ab"}
    grad = {name: x + 1 for name, x in fields.items()}
    alone = xopt.adamw_step(xopt.adamw_init({name: x.copy() for name, x in fields.items()}), grad).params
    for step in (xopt.adamw_step, fuse(xopt.adamw)):
        new = step(xopt.adamw_init(fields), grad).params
        assert all(np.array_equal(new[name], alone[name]) for name in "ab")


def test_what_torch_keeps_parameters_in():
    """A module, a container of parameters, a generator of them and a buffer are refused, with what to pass."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    one = {"w": torch.nn.Parameter(torch.ones(2))}
    for given, what in (
        (model, "params must be an array, got a Sequential; pass dict(module.named_parameters())"),
        ({"a": [model]}, "params['a'][0] must be an array, got a Sequential; pass dict(module.named_parameters())"),
        (torch.nn.ParameterDict(one), "params must be an array, got a ParameterDict; pass dict(module.named_parameters())"),
        (torch.nn.ParameterList(one.values()), "got a ParameterList; pass dict(module.named_parameters())"),
        (model.parameters(), "got a generator, which gives its items once; pass a list or a dict of them"),
        (model.named_parameters(), "got a generator, which gives its items once; pass a list or a dict of them"),
        (
            model.state_dict(),
            "params['1.num_batches_tracked'] must be real floating-point, got torch.int64; an update would be truncated; ",
        ),
    ):
        for init in (xopt.lion_init, xopt.adamw.bind(lr=0.1).init):
            with pytest.raises(TypeError, match=re.escape(what)):
                init(given)
    ways = dict(model.named_parameters()), list(model.parameters()), dict(torch.nn.ParameterDict(one).named_parameters())
    assert all(xopt.lion_init(way).step == 0 for way in ways)


@dataclass
class Layer:
    w: Any
    b: Any


def test_a_dataclass_is_refused_with_what_to_pass():
    layer = Layer(np.ones(2), np.zeros(1))
    words = (
        r"params\['a'\] must be an array, got a Layer, a dataclass that is not registered.*or pass vars\(it\), a dict of its fields"
    )
    with pytest.raises(TypeError, match=words):
        xopt.lion_init({"a": layer})
    assert xopt.lion_init({"a": vars(layer)}).m["a"]["b"].shape == (1,)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_parameters(rule, dtype, library):
    """BI-09: complex parameters are a TypeError that names the two conventions."""
    bad = library.array(np.ones(3), dtype)
    with pytest.raises(TypeError, match=rf"params is .*{dtype}; two conventions.*\(torch\).*\(optax\).*pass the two parts"):
        rule.init(bad)


@pytest.mark.parametrize(
    ("bad", "where"),
    [(1.0, ""), (3, ""), ("abc", ""), ([1.0, 2.0], "[0]"), ({"w": [1.0]}, "['w'][0]"), (..., "")],
    ids=repr,
)
def test_parameters_that_are_no_arrays(rule, bad, where):
    """BI-09: Python numbers and lists of them are no parameters."""
    with pytest.raises(TypeError, match=re.escape(f"{rule.name}_init: params{where} must be an array, got ")):
        rule.init(bad)


# Hyperparameters.


def rejected(function, name, kind, *say, **hyper):
    with pytest.raises(kind) as error:
        function(**hyper)
    for text in (name, *say):
        assert text in str(error.value)


def begun(rule, tree, **hyper):
    """A state, of what init takes; other hyperparameters are checked by it, and belong to the step."""
    try:
        return rule.init(tree, **hyper)
    except TypeError as error:
        if " belongs to " not in str(error):
            raise
        return rule.init(tree, **{name: x for name, x in hyper.items() if name in rule.of_init})


def both(rule, library, dtype="float32"):
    """init and step as functions of the hyperparameters alone, on an array and on a tree; with the names in their messages."""
    p = library.array(normal(0, 3), dtype)
    for tree in (p, {"w": p}):
        state = rule.init(tree, **{name: (0.5,) * 3 for name in rule.defaults if rule.ranges[name].sequence})
        yield lambda tree=tree, **hyper: begun(rule, tree, **hyper), f"{rule.name}_init: "
        yield lambda tree=tree, state=state, **hyper: rule.step(state, tree, **hyper), f"{rule.name}_step: "


NUMPY = LIBRARIES["numpy"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.5, -0.1, -1e-300, 1.0, 1.5, 1e300], ids=repr)
@pytest.mark.parametrize(("rule", "name"), HYPERS)
def test_value_out_of_range(rule, name, value):
    """BI-15, BI-16: NaN, infinity and what is out of range are a ValueError that shows the value and the range."""
    interval = rule.ranges[name]
    given, full = ([0.5, value, 0.5], f"{name}[1]") if interval.sequence else (value, name)
    low, high = (float(end) for end in interval.text[1:-1].split(","))  # the test of a value is not asked about itself
    inside = low <= value <= high and math.isfinite(value) and (value != high or interval.text[-1] == "]")
    for call, function in both(rule, NUMPY, "float64"):
        if inside:
            assert call(**{name: value}) is not None
        else:
            rejected(call, function, ValueError, full, interval.text, repr(value), **{name: given})


@pytest.mark.parametrize(
    "value", [True, False, np.True_, np.timedelta64(0), np.timedelta64(0, "s"), "0.5", b"x", 1j, ...], ids=repr
)
@pytest.mark.parametrize(("rule", "name"), HYPERS)
def test_value_of_the_wrong_kind(rule, name, value):
    """BI-15: bool, string, complex and other objects are a TypeError."""
    given = [0.5, value, 0.5] if rule.ranges[name].sequence else value
    for call, function in both(rule, NUMPY):
        rejected(call, function, TypeError, name, **{name: given})


@pytest.mark.parametrize(("rule", "name"), HYPERS)
def test_none_is_for_warmups_only(rule, name):
    """BI-15: None."""
    for call, function in both(rule, NUMPY):
        if rule.ranges[name].optional:
            assert call(**{name: None}) is not None
        else:
            rejected(call, function, TypeError, name, "None", **{name: None})


@pytest.mark.parametrize(("rule", "name"), HYPERS)
def test_value_of_the_wrong_shape(rule, name, library):
    """BI-15: an array that is not 0-d, even with one element."""
    for values in ([0.5], [0.5, 0.5, 0.5], [[0.5]], []):
        bad = library.array(np.asarray(values, float))
        for call, function in both(rule, library):
            rejected(call, function, TypeError, name, **{name: bad})


@pytest.mark.parametrize(("rule", "name"), HYPERS)
def test_0d_array_out_of_range(rule, name, library):
    """BI-15, BI-16: a 0-d array is checked by its value when it has one."""
    for value in (-1.5, math.nan, math.inf):
        bad = library.array(value, "float64")
        for call, function in both(rule, library):
            if value in rule.ranges[name]:
                call(**{name: bad})
            else:
                given = [0.5, bad, 0.5] if rule.ranges[name].sequence else bad
                rejected(call, function, ValueError, name, rule.ranges[name].text, **{name: given})


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_0d_array_of_the_wrong_kind(rule, dtype, library):
    """BI-15: a 0-d bool or complex array is no more a number than True or 1j."""
    for call, function in both(rule, library):
        rejected(call, function, TypeError, "lr", lr=library.array(0, dtype))


BETAS = [
    pytest.param(rule, name, id=f"{rule.name}-{name}")
    for rule in xopt.RULES.values()
    for name in rule.defaults
    if rule.ranges[name].text.endswith("1)")
]


@pytest.mark.parametrize(("rule", "name"), BETAS)
def test_beta_that_rounds_to_1(rule, name, library):
    """BI-16, BI-03: a beta that is 1 in the dtype of the arithmetic is refused, with the nearest usable one; float64 takes it."""
    many = rule.ranges[name].sequence
    largest = np.nextafter(np.float32(1), np.float32(0))
    for beta in (1 - 1e-9, 1 - 2.0**-25):
        given = (beta, beta, beta) if many else beta
        for call, function in both(rule, library, "float64"):
            assert call(**{name: given}) is not None, function
        for call, function in both(rule, library, "float32"):
            rejected(call, function, ValueError, name, "rounds out of", "1) in float32", repr(beta), **{name: given})
    for beta in (float(largest), 1 - 2.0**-24.9):
        for call, _ in both(rule, library, "float32"):
            assert call(**{name: (beta,) * 3 if many else beta}) is not None
    with pytest.raises(ValueError, match="usable") as error:
        rule.init(library.array(np.ones(2)), **{name: (1 - 1e-9,) if many else 1 - 1e-9})
    usable = float(re.search(r"usable value is (\S+)", str(error.value))[1])
    assert np.float32(usable) == largest
    assert np.float32(math.nextafter(usable, 2)) == 1


@pytest.mark.parametrize(("rule", "name"), BETAS)
def test_beta_in_half_precision(rule, name):
    """BI-03: beside float16 and bfloat16 parameters, where 0.9999 would be 1, the arithmetic is float32 and things move."""
    for row in LIBRARIES.values():
        for dtype in row.half:
            pytest.importorskip(row.module)
            beta = (0.9999,) * 3 if rule.ranges[name].sequence else 0.9999
            p, g = row.array(np.ones(4), dtype), row.array(normal(1, 4), dtype)
            state = run(rule, p, [g] * 2, {name: beta}, lr=0.5, **{name: beta})
            assert np.all(to_numpy(state.params) != to_numpy(p))
            with pytest.raises(ValueError, match="in float32"):
                rule.step(state, g, **{name: (1 - 1e-9,) * 3 if rule.ranges[name].sequence else 1 - 1e-9})


def test_interval_is_what_it_says():
    """BI-16: the text of a range and what it accepts are one."""
    for text, inside, outside in (
        ("[0, 1)", (0, 0.5), (-0.1, 1)),
        ("(-1, 1)", (-0.9, 0), (-1, 1)),
        ("[0, 1]", (0, 1), (1.1, -0.1)),
    ):
        interval = Interval(text)
        assert all(x in interval for x in inside)
        assert not any(x in interval for x in outside)


WITH_EPS = [rule for rule in xopt.RULES.values() if "eps" in rule.defaults]


@pytest.mark.parametrize("rule", WITH_EPS, ids=lambda rule: rule.name)
def test_eps_that_rounds_to_0(rule, library):
    """BI-02: an eps lost in the dtype of the arithmetic is refused, naming the smallest usable one; 0 asks for none."""
    smallest = {"float32": float(np.finfo(np.float32).smallest_normal), "float64": float(np.finfo(float).smallest_normal)}
    for dtype, lost in (("float32", (1e-60, 1e-46, 1e-40)), ("float64", (5e-324, 1e-310))):
        for call, function in both(rule, library, dtype):
            for eps in lost:
                rejected(
                    call, function, ValueError, "eps", repr(eps), dtype, f"smallest usable value is {smallest[dtype]!r}", eps=eps
                )
            for eps in (0, 0.0, smallest[dtype], 1e-8):
                assert call(eps=eps) is not None


@pytest.mark.parametrize("rule", WITH_EPS, ids=lambda rule: rule.name)
def test_zero_gradient(rule, library):
    """BI-02: a gradient of 0 moves nothing, in float16 too, where eps = 1e-8 would be 0; with eps = 0 it is 0/0 = NaN."""
    for dtype in ("float32", *library.half):
        p = library.array(normal(0, 3), dtype)
        zero = library.array(np.zeros(3), dtype)
        assert_same_bits(run(rule, p, [zero] * 2, weight_decay=0.0).params if "weight_decay" in rule.defaults else p, p)
        with np.errstate(invalid="ignore"):
            assert np.all(np.isnan(to_numpy(run(rule, p, [zero], eps=0.0).params)))


def test_unknown_hyperparameter(rule, library):
    """BI-15: a hyperparameter that the rule does not have is a TypeError that says which it may be."""
    for call, function in both(rule, library):
        rejected(call, function, TypeError, "'lrr'", "did you mean lr?", lrr=0.1)
        rejected(call, function, TypeError, "'zzz'", f"it takes {', '.join(rule.defaults)}", zzz=0.1)
        for name in rule.defaults:
            if len(name) > 3:
                rejected(call, function, TypeError, f"did you mean {name}?", **{name[:-2] + name[-1] + "_": 0.1})


def test_hyperparameters_go_by_name_only(rule):
    """BI-15: lr cannot be given by position."""
    state = rule.init(normal(0, 3))
    with pytest.raises(TypeError, match="positional"):
        rule.step(state, normal(0, 3), 0.1)
    with pytest.raises(TypeError, match="positional"):
        rule.init(normal(0, 3), 0.1)


def test_tree_of_hyperparameters_that_is_no_prefix(rule, library):
    """BI-15: parameter groups that do not fit the parameters."""
    p = library.array(normal(0, 3))
    params = {"w": p, "b": (p, p)}
    for bad in ({"w": 0.1}, {"w": 0.1, "b": 0.1, "c": 0.1}, [0.1, 0.1], {"w": 0.1, "b": (0.1,)}, {"w": {"x": 0.1}, "b": 0.1}):
        for call in (lambda **h: begun(rule, params, **h), lambda **h: rule.step(rule.init(params), params, **h)):
            rejected(call, rule.name, ValueError, "lr must be", "prefix of params", lr=bad)


def test_bad_value_in_one_group(rule, library):
    """BI-15: one bad number among parameter groups."""
    p = library.array(normal(0, 3))
    params = {"w": p, "b": p}
    state = rule.init(params)
    for call in (lambda **h: begun(rule, params, **h), lambda **h: rule.step(state, params, **h)):
        for values in ({"w": 0.1, "b": -0.1}, {"w": -0.1, "b": 0.1}):
            rejected(call, rule.name, ValueError, "lr", "-0.1", lr=values)


@pytest.mark.parametrize(
    ("betas", "kind"),
    [
        ((), TypeError),
        ([], TypeError),
        (0.9, TypeError),
        ("0.9", TypeError),
        (None, TypeError),
        ({0.9}, TypeError),
        (np.asarray(0.9), TypeError),
        ((0.5, None, 0.5), TypeError),
        (((0.5,), 0.9, 0.9), TypeError),
        ((0.5, 1.0, 0.5), ValueError),
        ((0.5, math.nan, 0.5), ValueError),
    ],
    ids=repr,
)
def test_betas(betas, kind):
    """BI-16: betas is a sequence of one or more decays."""
    for call, function in both(xopt.aggmo, NUMPY):
        rejected(call, function, kind, "betas", "[0, 1)" if kind is ValueError else "must be a", betas=betas)


@pytest.mark.parametrize("betas", [(0.9,), (0.0, 0.9), (0.0, 0.9, 0.99, 0.999)])
def test_number_of_betas(betas, library):
    """BI-16: a step with more or fewer betas than init had."""
    p = library.array(normal(0, 3))
    for params, where in ((p, "state.v "), ({"w": p}, "state.v['w'] ")):
        with pytest.raises(ValueError, match=f"3 buffers but .* needs {len(betas)}; give init the same") as error:
            xopt.aggmo_step(xopt.aggmo_init(params), params, betas=betas)
        assert where in str(error.value)


# States.


def test_state_of_another_rule(rule, library):
    """BI-17: a TypeError at once, which names both; no state that merely looks alike."""
    p = library.array(normal(0, 3))
    for other in xopt.RULES.values():
        if other is not rule:
            with pytest.raises(TypeError, match=f"{rule.name}_step: .*{rule.state.__name__}.*{other.state.__name__}"):
                rule.step(other.init(p), p)
    for junk in (p, tuple(rule.init(p)), None, rule.init(p)._asdict()):
        with pytest.raises(TypeError, match=f"{rule.name}_step: state must be the {rule.state.__name__}"):
            rule.step(junk, p)


def test_negative_step(rule, library):
    """BI-20: a step count below 0."""
    p = library.array(normal(0, 3))
    for tree in (p, {"w": p}):
        for step in (-1, -2, np.int64(-7)):
            with pytest.raises(ValueError, match=f"{rule.name}_step: state.step must be 0 or more, got {step}"):
                rule.step(rule.init(tree)._replace(step=step), tree)


def test_a_count_beyond_all_floats_is_refused():
    for state in (xopt.nadam_init(np.ones(2)), xopt.nadam_init({"w": np.ones(2)})):
        for count in (10**309, 10**5000):
            with pytest.raises(ValueError, match=r"nadam_step: state.step must be a count that a float holds, got"):
                xopt.nadam_step(state._replace(step=count), state.params)


@pytest.mark.parametrize("step", [2**24 - 1, 2**24, 2**31 - 1, 2**53, 2**70])
def test_step_count_does_not_saturate(rule, step, library):
    """BI-20: the count is exact, the corrections have reached their limits, and the parameters still move."""
    p, g = library.array(normal(0, 3)), library.array(normal(1, 3))
    state = run(rule, p, [g])
    new = rule.step(state._replace(step=step), g, **busy(rule))
    assert new.step == step + 1
    assert np.all(np.isfinite(to_numpy(new.params)))
    assert np.all(to_numpy(new.params) != to_numpy(state.params))


# What must work.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_inf_stay_in_their_element(rule, bad, dtype, library):
    """BI-01: one bad element of one gradient reaches that element of the state, and every other element keeps its bits."""
    n, at = 70, 65  # beyond a vector register, and in a tail
    grads = [normal(seed, n) for seed in (1, 2, 3)]
    params = {"x": library.array(normal(0, n), dtype), "y": library.array(normal(5, 3), dtype)}
    states = []
    for value in (0.5, bad):
        grads[1][at] = value
        with np.errstate(invalid="ignore"):
            states.append(run(rule, params, [{"x": library.array(g, dtype), "y": params["y"]} for g in grads], **busy(rule)))
    clean, poisoned = states
    reached = False
    for one, other in zip(leaves(clean), leaves(poisoned), strict=True):
        if one.shape != (n,):
            assert one.tobytes() == other.tobytes()
            continue
        assert np.delete(one, at).tobytes() == np.delete(other, at).tobytes()
        reached = reached or not np.isfinite(other[at])
    assert reached
    if math.isnan(bad):
        assert np.isnan(to_numpy(poisoned.params["x"])[at])


@pytest.mark.parametrize("rule", WITH_EPS, ids=lambda rule: rule.name)
def test_square_that_overflows(rule, library):
    """BI-04: g = 2e19 in float32: v is inf by IEEE rules, the element stands still (or is NaN), every other one keeps its bits.

    NaN is QHAdam with nu2 = 1, whose 0 * g^2 is 0 * inf.
    """
    p, small, large = (library.array(x) for x in (np.ones(4), np.full(4, 0.5), [0.5, 2e19, 0.5, 0.5]))
    hyper = {"weight_decay": 0.0} if "weight_decay" in rule.defaults else {}
    with np.errstate(over="ignore", invalid="ignore"):
        clean, over = (run(rule, p, [g], **hyper) for g in (small, large))
    assert to_numpy(over.v)[1] == math.inf
    np.testing.assert_equal(to_numpy(over.params)[1], math.nan if rule is xopt.qhadam else 1.0)
    for one, other in zip(leaves(clean), leaves(over), strict=True):
        if one.ndim:
            assert np.delete(one, 1).tobytes() == np.delete(other, 1).tobytes()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
def test_empty_arrays(rule, shape, library):
    """BI-10: an empty array is stepped like any other, and its neighbours too."""
    empty, x = library.array(np.ones(shape)), library.array(normal(0, 3))
    state = run(rule, [x, empty, x], [[x, empty, x]] * 2, **busy(rule))
    assert to_numpy(state.params[1]).shape == shape
    alone = run(rule, x, [x] * 2, **busy(rule))
    assert_same_bits((state.params[0], state.params[2]), (alone.params, alone.params))
    assert_same_bits(run(rule, empty, [empty]).params, empty)


@pytest.mark.parametrize("dtype", ["float32", "float64", "half"])
def test_0d_arrays(rule, dtype, library):
    """BI-11: 0-d arrays stay 0-d arrays of their library (NumPy alone would make them scalars) and equal an element of an array."""
    for name in library.half if dtype == "half" else (dtype,):
        p, g = library.array(0.75, name), library.array(-0.3, name)
        one, g1 = library.array([0.75], name), library.array([-0.3], name)
        state, reference = run(rule, p, [g] * 3, **busy(rule)), run(rule, one, [g1] * 3, **busy(rule))
        for x, y in zip(optree.tree_leaves(state), optree.tree_leaves(reference), strict=True):
            assert type(x) is type(y)
            if hasattr(y, "shape"):
                assert (x.shape, x.dtype) == ((), y.dtype)
            assert to_numpy(x).tobytes() == to_numpy(y).tobytes()


VIEWS = {
    "reversed": lambda x: x[::-1],
    "every other": lambda x: x[::2],
    "transposed": lambda x: x.reshape(6, 7).T,
    "column": lambda x: x.reshape(6, 7)[:, 3],
    "broadcast": lambda x: np.broadcast_to(x[:1], (5,)),
    "offset": lambda x: x[3:],
}


VIEWS_OF_CUPY = {"broadcast": lambda x: LIBRARIES["cupy"].xp.broadcast_to(x[:1], (5,))}
WITH_VIEWS = [(row.name, view) for row in LIBRARIES.values() for view in VIEWS if row.views]
WITH_VIEWS.remove(("torch", "reversed"))  # torch has no negative strides


@pytest.mark.parametrize(("name", "view"), WITH_VIEWS)
def test_views(rule, name, view):
    """BI-13: views, strided, transposed or reversed, give the same bits as copies of them."""
    library = LIBRARIES[name]
    pytest.importorskip(library.module)
    make = VIEWS[view]
    p, grads = normal(0, 42), [normal(seed, 42) for seed in (1, 2, 3)]
    if name == "torch":
        torch = library.xp
        views = {"transposed": lambda x: x.reshape(6, 7).T, "broadcast": lambda x: x[:1].expand(5)}
        arrays = [views.get(view, make)(torch.tensor(x)) for x in (p, *grads)]
        copies = [x.clone(memory_format=torch.contiguous_format) for x in arrays]
        assert view == "offset" or arrays[0].stride() != copies[0].stride()
    else:
        arrays = [make(x.astype("float32")) for x in (p, *grads)]
        copies = [x.copy() for x in map(np.ascontiguousarray, arrays)]
        assert view == "offset" or arrays[0].strides != copies[0].strides
        if name == "array_api_strict":
            arrays, copies = ([library.xp.asarray(x, copy=False) for x in group] for group in (arrays, copies))
        if name == "cupy":
            arrays = [VIEWS_OF_CUPY.get(view, make)(library.array(x)) for x in (p, *grads)]
            copies = [library.xp.ascontiguousarray(x) for x in arrays]
    assert_same_bits(run(rule, arrays[0], arrays[1:], **busy(rule)), run(rule, copies[0], copies[1:], **busy(rule)))


def test_slots_that_are_views(rule):
    """BI-13: a state whose slots are strided too."""
    state = run(rule, normal(0, 6), [normal(1, 6)])
    strided = optree.tree_map(lambda x: np.repeat(x, 2)[::2] if hasattr(x, "shape") else x, state)
    assert_same_bits(rule.step(strided, normal(2, 6)), rule.step(state, normal(2, 6)))


def test_the_same_array_twice(rule, library):
    """BI-14: one array in two places of a tree is two parameters."""
    x, y = library.array(normal(0, 3)), library.array(normal(1, 3))
    shared = run(rule, [x, x], [[y, x]] * 2, **busy(rule))
    apart = [run(rule, x, [g] * 2, **busy(rule)).params for g in (y, x)]
    assert_same_bits(shared.params, apart)


def test_gradient_is_the_parameters(rule, library):
    """BI-14: grad may be the very array that params is, and that the slots are."""
    x = library.array(normal(0, 3))
    copy = library.array(to_numpy(x))
    assert_same_bits(run(rule, x, [x], **busy(rule)), run(rule, x, [copy], **busy(rule)))
    state = rule.init(x)
    own = state._replace(**{slot: corrupt(getattr(state, slot), lambda _: x) for slot in rule.memory})
    other = state._replace(**{slot: corrupt(getattr(state, slot), lambda _: library.array(to_numpy(x))) for slot in rule.memory})
    with np.errstate(invalid="ignore"):  # a negative second moment
        assert_same_bits(rule.step(own, x), rule.step(other, copy))

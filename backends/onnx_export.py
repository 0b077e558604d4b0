"""to_onnx: a rule's update as an ONNX model, made of the recorded program, for runtimes without Python."""

import importlib
import importlib.util
from typing import Any

import numpy as np

from xopt.program import Program, asked, names_of, numbers_of, record
from xopt.rule import Rule
from xopt.typed import Call

OPERATORS = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "negative": "Neg",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "sign": "Sign",
    "maximum": "Max",
    "minimum": "Min",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "equal": "Equal",
    "where": "Where",
}
"""ONNX's name of each operation of a program; ``not_equal`` takes two."""

TYPES = {"float16": "FLOAT16", "bfloat16": "BFLOAT16", "float32": "FLOAT", "float64": "DOUBLE"}
OPSET, IR = 18, 10
"""Of 2022 and 2024, so that runtimes of today know them."""


def to_onnx(rule: Any, dtype: str = "float32", **hyper: Any) -> Any:
    """A model of the step of one array of parameters, flat and of any length: an update is elementwise, and ONNX wants a rank.

    Its inputs are ``params`` and ``grad``, in ``dtype``; the slots, by their names (``m``; ``v_0``, ``v_1`` of a tuple), in
    the dtype of the arithmetic, float32 or float64; and the coefficients, 0-d, in that of the arithmetic: ``c_<name>`` for each
    field of what ``rule.coefficients(t, **hyper)`` returns. Those are computed in Python's numbers, as in every step of xopt,
    so that one model serves for every step and schedule, with NumPy's bits where the runtime rounds correctly. Its outputs are
    ``new_params`` and ``new_<slot>``.

    Parameters
    ----------
    rule
        A rule such as ``xopt.lion``, or one with hyperparameters, ``xopt.lion.bind(beta1=0.0)``.
    dtype
        Of the parameters: float16, bfloat16, float32 or float64.
    hyper
        Those that the state's form follows from, as in ``init``: a decay of 0 keeps no memory, so that its slot is no input.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ImportError
        Where the package onnx is not installed.
    TypeError
        What is no rule; an unknown hyperparameter, or one that is no number.
    ValueError
        An unknown dtype; a hyperparameter that is out of its range; a warm-up that begins at a decay of 0, at which the step does
        other operations than later.
    """
    given, rule = rule, getattr(rule, "rule", rule)
    if not isinstance(rule, Rule):
        msg = f"to_onnx: rule must be a rule such as xopt.lion, got {given!r}"
        raise TypeError(msg)
    if dtype not in TYPES:
        msg = f"to_onnx: dtype must be one of {', '.join(TYPES)}, got {dtype!r}"
        raise ValueError(msg)
    if importlib.util.find_spec("onnx") is None:
        msg = "to_onnx needs the package onnx, which is not installed: pip install onnx"
        raise ImportError(msg)
    program = _program(rule, getattr(given, "hyper", {}) | hyper, "float64" if dtype == "float64" else "float32")
    return _model(program, dtype)


def _program(rule: Rule[Any, Any], hyper: dict[str, Any], compute: str) -> Program:
    """The operations of every step with these hyperparameters."""
    state = rule.bind(**hyper).init(np.zeros(1, compute))
    typed, slots = rule.typed(Call("to_onnx"), 0, state.params), state[1:-1]
    carried = list(rule.carried.values())

    def ones(t: int) -> list[str]:
        """The coefficients that are 1 and, being that, change what the update does."""
        c, _ = typed.host_coefficients(Call("to_onnx", t), carried, dict(hyper))
        numbers = dict(zip(names_of(c), numbers_of(c), strict=True))
        return [name for name in asked(rule, slots, c) if numbers[name] == 1.0]

    first, last = ones(1), ones(2**40)
    if first != last:
        way_out = "make a model of each, without warm-up"
        msg = f"to_onnx: {rule.name} begins at a decay of 0, where a step is another one than later; {way_out}"
        raise ValueError(msg)
    c, _ = typed.host_coefficients(Call("to_onnx", 1), carried, dict(hyper))
    return record(rule, slots, c, first)


def _model(program: Program, dtype: str) -> Any:
    onnx: Any = importlib.import_module("onnx")
    helper = onnx.helper
    compute = "float64" if dtype == "float64" else "float32"
    types = {name: getattr(onnx.TensorProto, TYPES[name]) for name in (dtype, compute)}
    own = {name: types[dtype if name in ("params", "grad") else compute] for name in program.arrays}
    inputs = [helper.make_tensor_value_info(name, own[name], ["n"]) for name in program.arrays]
    inputs += [helper.make_tensor_value_info(name, types[compute], []) for name in program.coefficients]
    outputs = [helper.make_tensor_value_info(f"new_{name}", own[name], ["n"]) for name in program.writes]
    nodes: list[Any] = []
    constants: dict[str, Any] = {}

    def node(kind: str, operands: list[str], result: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, operands, [result], **attributes))

    def operand(x: str | float) -> str:
        if isinstance(x, str):
            return f"{x}_wide" if own.get(x, types[compute]) != types[compute] else x
        name = f"constant_{len(constants)}"
        constants[name] = helper.make_tensor(name, types[compute], [], [x])
        return name

    for name in ("params", "grad"):
        if dtype != compute:
            node("Cast", [name], f"{name}_wide", to=types[compute])
    for result, name, operands in program.operations:
        texts = [operand(x) for x in operands]
        if name == "not_equal":
            node("Equal", texts, f"{result}_equal")
            node("Not", [f"{result}_equal"], result)
        elif name == "sign":  # ONNX does not say that of NaN it is NaN
            node("Sign", texts, f"{result}_sign")
            node("Equal", [*texts, *texts], f"{result}_number")
            node("Where", [f"{result}_number", f"{result}_sign", *texts], result)
        else:
            node(OPERATORS[name], texts, result)
    for name, new in program.writes.items():
        kind, attributes = ("Cast", {"to": own[name]}) if own[name] != types[compute] else ("Identity", {})
        node(kind, [operand(new)], f"new_{name}", **attributes)
    graph = helper.make_graph(nodes, f"{program.rule}_step", inputs, outputs, list(constants.values()))
    model = helper.make_model(
        graph,
        producer_name="xopt",
        ir_version=IR,
        opset_imports=[helper.make_opsetid("", OPSET)],
        doc_string=f"{program.rule}_step",
    )
    onnx.checker.check_model(model)
    return model

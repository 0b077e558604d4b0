"""The text of CuPy's kernels. That it gives the right numbers is shown where CuPy runs it: in ``tests/cupy_on_cpu``."""

import re

import xopt
from xopt.backends.compilers.c_source import body
from xopt.backends.compilers.elementwise_kernel import text_of_dense, text_of_many, text_of_one
from xopt.program import asked, record


def programs(rule):
    """Programs of a rule: with all its slots, and with the gains that may be 1 so."""
    c = rule.coefficients(1, *rule.carried.values())

    def slot(name):
        if name in rule.carried:
            return rule.carried[name]
        decay = rule.memory[name]
        return (True,) * len(rule.defaults[decay]) if rule.ranges[decay].sequence else True

    slots = [slot(name) for name in rule.slots]
    return [record(rule, slots, c, literal) for literal in dict.fromkeys([(), asked(rule, slots, c)])]


def test_one_operation_a_line(rule):
    for program in programs(rule):
        lines = body(program, "float32", "in_{}", "out_{}").splitlines()
        for line, operation in zip(lines[len(program.reads) :], program.operations, strict=False):
            value = line.partition("= ")[2]
            if operation.name != "sign":
                assert len(re.findall(r" [-+*/<>=]+ |sqrtf|fabsf", f" {value}")) <= 1, line


def test_arguments_are_in_the_declared_order():
    program = programs(xopt.ademamix)[0]
    one, dense, many = (text(program, "float16") for text in (text_of_one, text_of_dense, text_of_many))
    coefficients = ["lr", "gain1", "gain2", "gain3", "debias1", "debias2", "alpha", "eps", "eps_root", "weight_decay"]
    assert one.inputs.split(", ") == [
        "float16 in_params",
        *(f"float32 in_{name}" for name in ("m1", "m2", "v")),
        "float16 in_grad",
        *(f"float32 c_{name}" for name in coefficients),
    ]
    assert one.outputs.split(", ") == ["float16 out_params", *(f"float32 out_{name}" for name in ("m1", "m2", "v"))]
    assert dense.inputs == re.sub(r"float(\d+) in_", r"raw float\1 from_", one.inputs)
    assert dense.outputs == re.sub(r"float(\d+) out_", r"raw float\1 to_", one.outputs)
    assert many.inputs == "int64 leaves, raw int64 table, raw float32 coefficients, raw float16 example"
    assert many.outputs == ""

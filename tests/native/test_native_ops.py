"""Operators beyond ONNX's own cases: dtypes to their edges, indices out of range, fused forms."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from native_cases import HERE, RUNNABLE, Built
from onnx import TensorProto, helper, numpy_helper, shape_inference
from scipy import special

from hasten.errors import UnsupportedOpError
from hasten.graph import reference
from hasten.native.compile import program_of
from hasten.native.expr import VECTOR
from hasten.native.isa import ISAS, isa
from hasten.native.vectors import helpers


def model(nodes, inputs: dict, outputs: list, weights: dict | None = None, opset: int = 21) -> ir.Model:
    """A graph whose inputs are given as name → example array; the types of outputs are inferred."""
    given = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()
    ]
    made = helper.make_graph(
        nodes, "case", given, [helper.make_empty_tensor_value_info(n) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (weights or {}).items()],
    )  # fmt: skip
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(shape_inference.infer_shapes(proto, data_prop=True))


def unary(op: str, x: np.ndarray, target: str = HERE.name, **attributes) -> np.ndarray:
    return Built(model([helper.make_node(op, ["x"], ["y"], **attributes)], {"x": x}, ["y"]), isa(target))(x)[0]


def binary(op: str, a: np.ndarray, b: np.ndarray, **attributes) -> np.ndarray:
    graph = model([helper.make_node(op, ["a", "b"], ["y"], **attributes)], {"a": a, "b": b}, ["y"])
    return Built(graph, HERE)(a, b)[0]


@pytest.mark.parametrize("name", sorted(ISAS))
def test_every_vector_function_is_there(name):
    """Emitting can never ask for a function that no header holds, and a form asks for all that it calls."""
    target = isa(name)
    for op, (template, needs) in VECTOR.items():
        text = "\n".join(helpers(target, needs))
        for called in re.findall(r"\bv_\w+(?=\()", template):
            assert re.search(rf"\b{called}\(", text), f"{op} calls {called} and does not ask for it"


@pytest.mark.parametrize("target", RUNNABLE)
def test_float16_of_every_bit_pattern(target):
    bits = np.arange(65536, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            unary("Cast", bits.view(np.float16), target, to=1), bits.view(np.float16).astype(np.float32)
        )
        wide = np.concatenate(
            [np.float32(np.float16([0, 1, 65504, 6e-8, 6e-5])), np.geomspace(1e-9, 1e6, 20000, dtype=np.float32)]
        )
        wide = np.concatenate([wide, -wide, [np.inf, -np.inf, np.nan, 65519.9, 65520]]).astype(np.float32)
        np.testing.assert_array_equal(unary("Cast", wide, target, to=10), wide.astype(np.float16))


def test_bfloat16_of_every_bit_pattern():
    bits = np.arange(65536, dtype=np.uint16).view(ml_dtypes.bfloat16)
    found, expected = unary("Cast", bits, to=1), bits.astype(np.float32)
    # A call counts denormals as zero; as bits they pass through.
    normal = ~(np.abs(expected) < np.finfo(np.float32).tiny)
    np.testing.assert_array_equal(found[normal], expected[normal])
    wide = np.geomspace(1e-30, 1e30, 20000, dtype=np.float32)
    np.testing.assert_array_equal(unary("Cast", wide, to=16), wide.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_floats_outside_an_integers_range_are_held_to_it(dtype):
    x, info = np.array([1e30, -1e30, np.nan, np.inf, -np.inf, 1.9, -0.9, 3.0], np.float32), np.iinfo(dtype)
    for source in (x, x.astype(np.float64)):
        found = unary("Cast", source, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        np.testing.assert_array_equal(found, np.array([info.max, info.min, 0, info.max, info.min, 1, 0, 3], dtype))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_wrap_and_never_trap(dtype):
    info = np.iinfo(dtype)
    a = np.array([info.max, info.min, info.max, info.min, 7, 0], dtype)
    b = np.array([info.max, 1, 0, info.max if info.min == 0 else -1, 2, 0], dtype)
    with np.errstate(over="ignore", divide="ignore"):
        for op, function in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply)):
            np.testing.assert_array_equal(binary(op, a, b), function(a, b))
    found = binary("Div", a, b)
    assert (found[b == 0] == 0).all(), "division by zero gives zero"
    assert found[4] == 3
    assert (binary("Mod", a, b)[b == 0] == 0).all()
    np.testing.assert_array_equal(unary("Abs", a)[[0, 4, 5]], a[[0, 4, 5]])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_indices_out_of_range_are_held_to_the_axis(dtype):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    index = np.array([3, -1, -4, 100, -100, 0], dtype)
    graph = model([helper.make_node("Gather", ["x", "i"], ["y"])], {"x": x, "i": index}, ["y"])
    np.testing.assert_array_equal(Built(graph, HERE)(x, index)[0], x[[3, 3, 0, 3, 0, 0]])
    rows = np.array([[2], [99]], dtype).astype(np.int64)
    updates = np.full((2, 3), -1, np.float32)
    graph = model([helper.make_node("ScatterND", ["x", "i", "u"], ["y"])], {"x": x, "i": rows, "u": updates}, ["y"])
    np.testing.assert_array_equal(Built(graph, HERE)(x, rows, updates)[0], np.concatenate([x[:2], -np.ones((2, 3))]))


def test_gather_with_a_bad_constant_index_is_refused():
    graph = model(
        [helper.make_node("Gather", ["x", "i"], ["y"])], {"x": np.ones((2, 2), np.float32)}, ["y"], {"i": np.array([2])}
    )
    with pytest.raises(UnsupportedOpError, match="Gather"):
        program_of(graph, "case", HERE)


def test_comparison_and_choice_are_one_vector_loop():
    x = np.linspace(-3, 3, 37, dtype=np.float32)
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Greater", ["s", "half"], ["g"]),
        helper.make_node("Less", ["x", "two"], ["l"]),
        helper.make_node("And", ["g", "l"], ["b"]),
        helper.make_node("Cast", ["b"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["g", "x", "f"], ["y"]),
    ]
    graph = model(nodes, {"x": x}, ["y"], {"half": np.float32(0.5), "two": np.float32(2)})
    program = program_of(graph, "case", HERE)
    assert all(v.dtype == "float32" for s in program.steps for v in s.writes()) or len(program.steps) <= 3
    for target in RUNNABLE:
        np.testing.assert_allclose(Built(graph, isa(target))(x)[0], reference.run(graph, [x])[0], rtol=1e-5)
    simple = model(
        [nodes[1], helper.make_node("Where", ["g", "x", "s"], ["y"])],
        {"x": x, "s": x},
        ["y"],
        {"half": np.float32(0.5)},
    )
    assert [s.kernel for s in program_of(simple, "case", HERE).steps] == ["elementwise"]
    assert "v_select" in Built(simple, HERE).emitted.source


def test_parts_of_a_concatenation_are_written_in_place():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 8)).astype(np.float32)
    weights = {"w": rng.standard_normal((8, 5)).astype(np.float32), "v": rng.standard_normal((8, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "v"], ["b"]),
        helper.make_node("Tanh", ["x"], ["c"]),
        helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=1),
    ]
    graph = model(nodes, {"x": x}, ["y"], weights)
    assert [s.kernel for s in program_of(graph, "case", HERE).steps] == ["dense", "dense", "elementwise"]
    for target in RUNNABLE:
        np.testing.assert_allclose(Built(graph, isa(target))(x)[0], reference.run(graph, [x])[0], rtol=1e-5, atol=1e-6)


def test_what_is_read_twice_moves_with_its_copy():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Concat", ["a", "r"], ["y"], axis=1),
        helper.make_node("MatMul", ["a", "w"], ["z"]),
    ]
    graph = model(nodes, {"x": x}, ["y", "z"], {"w": rng.standard_normal((8, 8)).astype(np.float32)})
    assert [s.kernel for s in program_of(graph, "case", HERE).steps].count("elementwise") == 1, "the Relu alone"
    for found, expected in zip(Built(graph, HERE)(x), reference.run(graph, [x]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", RUNNABLE)
def test_if_takes_the_branch_of_the_call(target):
    def branch(name: str, op: str):
        node = helper.make_node(op, ["x"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [5])])

    x = np.linspace(0, 2, 5, dtype=np.float32)
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", "Exp"), else_branch=branch("e", "Neg"))
    graph = model([node], {"c": np.array(True), "x": x}, ["y"])
    built = Built(graph, isa(target))
    np.testing.assert_allclose(built(np.array(True), x)[0], np.exp(x), rtol=1e-6)
    np.testing.assert_array_equal(built(np.array(False), x)[0], -x)


@pytest.mark.parametrize(
    "op", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL2", "ReduceLogSumExp", "ReduceProd"]
)
@pytest.mark.parametrize("axes", [[0], [1], [2], [0, 2], [0, 1], [1, 2], [0, 1, 2]])
def test_reductions_over_any_axes(op, axes):
    x = np.random.default_rng(3).standard_normal((5, 19, 37)).astype(np.float32)
    x = x * 0.1 + 1 if op == "ReduceProd" else x
    graph = model([helper.make_node(op, ["x", "axes"], ["y"], keepdims=0)], {"x": x}, ["y"], {"axes": np.array(axes)})
    (expected,) = reference.run(graph, [x])
    np.testing.assert_allclose(Built(graph, HERE)(x)[0], expected, rtol=2e-5, atol=2e-5)


REDUCED = {
    "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
    "ReduceL1": lambda x, **how: np.abs(x).sum(**how), "ReduceL2": lambda x, **how: np.sqrt(np.square(x).sum(**how)),
}  # fmt: skip


@pytest.mark.parametrize("op", REDUCED)
@pytest.mark.parametrize(("few", "alone"), [(2, False), (3, False), (4, False), (5, True)])
def test_a_few_neighbours_are_combined_by_vectors_of_results(op, few, alone):
    x = np.random.default_rng(few).standard_normal((3, 90, few)).astype(np.float32)
    x[0, :4] = np.array([np.nan, np.inf, -np.inf, -0.0])[:, None]
    x[1, 7, 1] = np.nan
    graph = model([helper.make_node(op, ["x", "a"], ["y"])], {"x": x}, ["y"], {"a": np.array([-1])})
    built = Built(graph, HERE)
    assert any(step.kernel == "reduce" for step in built.program.steps) is alone
    np.testing.assert_allclose(built(x)[0], REDUCED[op](x, axis=-1, keepdims=True), rtol=1e-6, atol=1e-6)


def test_extremes_keep_nan():
    x = np.ones((3, 70), np.float32)
    x[1, 33] = np.nan
    for op in ("ReduceMax", "ReduceMin"):
        for axis in (0, 1):
            graph = model(
                [helper.make_node(op, ["x", "a"], ["y"], keepdims=0)], {"x": x}, ["y"], {"a": np.array([axis])}
            )
            np.testing.assert_array_equal(np.isnan(Built(graph, HERE)(x)[0]), np.isnan(x).any(axis=axis))


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 7), (17, 33, 65), (1, 64, 100), (50, 3, 2), (2, 70, 1)])
def test_products_of_run_time_operands(target, m, k, n):
    rng = np.random.default_rng(m * n)
    a, b = rng.standard_normal((2, 1, m, k)).astype(np.float32), rng.standard_normal((3, n, k)).astype(np.float32)
    nodes = [helper.make_node("Transpose", ["b"], ["t"], perm=[0, 2, 1]), helper.make_node("MatMul", ["a", "t"], ["p"])]
    nodes.append(helper.make_node("Relu", ["p"], ["y"]))
    found = Built(model(nodes, {"a": a, "b": b}, ["y"]), isa(target))(a, b)[0]
    np.testing.assert_allclose(found, np.maximum(a @ b.transpose(0, 2, 1), 0), rtol=1e-5, atol=2e-5)


def test_half_precision_is_computed_in_float32():
    x = np.random.default_rng(0).standard_normal((4, 33)).astype(np.float16)
    nodes = [helper.make_node("Softmax", ["x"], ["s"]), helper.make_node("Mul", ["s", "x"], ["y"])]
    found = Built(model(nodes, {"x": x}, ["y"]), HERE)(x)[0]
    wide = x.astype(np.float64)
    soft = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, soft * wide, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_of_half_precision_may_leave_results_unread(op, gates):
    rng = np.random.default_rng(0)
    given = {
        n: rng.standard_normal(s) / 2 for n, s in (("x", (6, 1, 4)), ("w", (1, 5 * gates, 4)), ("r", (1, 5 * gates, 5)))
    }
    names = [["y", "last", "cell"][: 3 if op == "LSTM" else 2], ["", "y"]]
    for read in names:
        nodes = [helper.make_node(op, ["x", "w", "r"], read, hidden_size=5)]
        found, expected = (
            Built(graph, HERE)(arrays["x"])[0]
            for arrays in ({n: a.astype(t) for n, a in given.items()} for t in (np.float16, np.float32))
            for graph in [model(nodes, {"x": arrays["x"]}, ["y"], {n: arrays[n] for n in "wr"})]
        )
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_float64_stays_float64():
    x = np.linspace(-2, 2, 41)
    for op, function in (("Tanh", np.tanh), ("Exp", np.exp), ("Softplus", lambda v: np.log1p(np.exp(v)))):
        np.testing.assert_allclose(unary(op, x), function(x), rtol=1e-13)


def test_float64_keeps_its_digits_where_the_terms_of_an_activation_would_cancel():
    x = np.concatenate([np.linspace(-12, 2, 57), np.linspace(-2.9999999, -2.99, 9)])
    np.testing.assert_allclose(unary("Gelu", x), x * special.ndtr(x), rtol=1e-12)
    tail = x / (1 + np.exp(-1.5957691216057307 * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(unary("Gelu", x, approximate="tanh"), tail, rtol=1e-12)
    np.testing.assert_allclose(unary("HardSwish", x), x * np.clip(x + 3, 0, 6) / 6, rtol=1e-14)


@pytest.mark.parametrize(
    ("nodes", "inputs"),
    [
        ([helper.make_node("NonZero", ["x"], ["y"])], {"x": np.ones(3, np.float32)}),
        ([helper.make_node("Compress", ["x", "c"], ["y"])], {"x": np.ones(3, np.float32), "c": np.ones(3, bool)}),
        ([helper.make_node("Unique", ["x"], ["y"])], {"x": np.ones(3, np.float32)}),
        ([helper.make_node("Dropout", ["x", "", "t"], ["y"])], {"x": np.ones(3, np.float32), "t": np.array(True)}),
        ([helper.make_node("Shrink", ["x"], ["y"])], {"x": np.ones(3, np.int32)}),
        ([helper.make_node("RandomNormalLike", ["x"], ["y"])], {"x": np.ones(3, np.float32)}),
    ],
)
def test_what_has_no_kernel_is_named(nodes, inputs):
    with pytest.raises(UnsupportedOpError, match=nodes[0].op_type):
        program_of(model(nodes, inputs, ["y"]), "case", HERE)


_TRAPPED = """
import re, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from backend_cases import node_cases, run_all
from native_cases import HERE
flags = ("-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined")
cases = node_cases(HERE, lambda name: bool(re.match({pattern!r}, name)) and "expanded" not in name)
print(len(cases), run_all(cases, HERE, flags))
"""
_UNDEFINED = (
    r"test_(add|sub|mul|div|mod|pow|bitshift|cast_.*(INT|FLOAT16|BFLOAT16)|gather|scatter|cumsum|"
    r"top_k|reduce_.*int|pad|tile)"
)


@pytest.mark.skipif(HERE.arch == "any", reason="needs the host's own instruction set")
def test_typed_loops_do_nothing_undefined(tmp_path):
    """With traps in place of undefined behaviour; a shift too far, as control, must trap."""
    from hasten.native.build import compiler

    control = tmp_path / "control.c"
    control.write_text("int main(int argc, char **argv) { (void)argv; return 1 << (argc + 40) ? 0 : 1; }\n")
    tool = compiler()
    flags = [f for f in tool.flags(HERE) if "f-visibility" not in f]
    sanitize = ["-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"]
    subprocess.run(
        [*tool.command, *flags, *sanitize, "-o", "control", "control.c"], cwd=tmp_path, check=True, capture_output=True
    )
    assert subprocess.run([tmp_path / "control"], check=False).returncode < 0, "the control must be stopped"
    script = _TRAPPED.format(tests=str(Path(__file__).parent), pattern=_UNDEFINED)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"stopped by signal {-done.returncode}: {done.stderr[-500:]}"
    count, wrong = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert int(count) > 100
    assert wrong == "{}"

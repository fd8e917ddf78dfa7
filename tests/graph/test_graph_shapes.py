"""Shapes of every value, free dimensions and the checker."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from hasten import graph
from hasten.errors import PassError
from hasten.graph import reference, shapes
from hasten.graph.check import check, compatible, signature


def parse(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> g {text}'))


def shape_of(model: ir.Model, name: str) -> list[int | str | None]:
    value = next(v for n in model.graph.all_nodes() for v in n.outputs if v.name == name)
    return [d if isinstance(d, int) else d.value for d in value.shape]


def test_free_dimensions_are_named_and_placed() -> None:
    model = parse("(float[batch,time,4] x, float[batch,2] z) => (float[batch,time,4] y) { y = Relu (x) }")
    assert shapes.free_dims(model) == {"batch": (("x", 0), ("z", 0)), "time": (("x", 1),)}


def test_a_nameless_dimension_is_called_after_its_place() -> None:
    model = parse("(float[?,4] x) => (float[?,4] y) { y = Relu (x) }")
    assert shapes.free_dims(model) == {"x_0": (("x", 0),)}
    assert shapes.fix(model, {"x_0": 3}) == 1
    assert shape_of(model, "y") == [3, 4]


def test_fixing_reaches_every_value_and_the_outputs() -> None:
    model = parse("(float[N,4] x) => (float[N,2,2] y) <int64[3] s = {-1,2,2}> { a = Relu (x) y = Reshape (a, s) }")
    assert shapes.fix(model, {"N": 5, "unheard of": 2}) == 1
    assert shape_of(model, "a") == [5, 4] and shape_of(model, "y") == [5, 2, 2]
    assert [spec.shape for spec in graph.specs(model)[1]] == [(5, 2, 2)]


def test_a_reshape_keeps_the_name_of_the_free_dimension() -> None:
    model = parse("(float[N,6] x) => (y) <int64[3] s = {-1,2,3}> { a = Reshape (x, s) y = Relu (a) }")
    shapes.infer(model)
    assert shape_of(model, "a") == ["N", 2, 3]


def test_a_reshape_that_changes_the_free_dimension_gives_it_a_new_name() -> None:
    model = parse("(float[N,6] x) => (y) <int64[2] s = {-1,3}> { a = Reshape (x, s) y = Relu (a) }")
    shapes.infer(model)
    assert shape_of(model, "a")[0] not in ("N", 6)


def test_what_inference_cannot_tell_is_observed() -> None:
    """The shape goes through float arithmetic, which no inference follows."""
    text = """(float[4,3] x) => (float[a,b] y) <float half = {0.5}> {
        s = Shape (x) f = Cast <to = 1> (s) g = Mul (f, half) c = Ceil (g) t = Cast <to = 7> (c)
        o = ConstantOfShape (t) y = Neg (o) }"""
    model = parse(text)
    shapes.complete(model)
    assert shape_of(model, "y") == [2, 2]


@pytest.mark.parametrize("chosen", ["n = NonZero (x)", "p = Greater (x, zero) n = Compress (some, p)"])
def test_a_shape_that_depends_on_the_data_stays_unknown(chosen: str) -> None:
    weights = "<float zero = {0}, int64[4] some = {1, 2, 3, 4}>"
    text = f"(float[4] x) => (int64[a,b] y) {weights} {{ {chosen} y = Neg (n) }}"
    model = parse(text)
    shapes.complete(model)
    assert not any(isinstance(d, int) and d == 4 for d in shape_of(model, "y"))


def test_bodies_of_branches_are_inferred_too() -> None:
    model = parse("""(bool c, float[2,3] x) => (float[3,2] y) {
        y = If (c) <then_branch = a () => (float[3,2] p) { p = Transpose (x) },
                    else_branch = b () => (float[3,2] q) { n = Neg (x) q = Transpose (n) }> }""")
    shapes.infer(model)
    assert shape_of(model, "n") == [2, 3]


BODIES = """(bool c, float[2,3] x{more}) => (float[a,b] y) <int64[2] s = {{3,2}}> {{
    y = If (c) <then_branch = f () => (float[a,b] p) {{
                    p = If (c) <then_branch = g () => (float[a,b] q) {{ r = Reshape (x, s) q = Neg (r) }},
                                else_branch = h () => (float[a,b] u) {{ u = Transpose (x) }}> }},
                else_branch = i () => (float[a,b] v) <int64[2] s = {{6,1}}> {{ t = Reshape (x, s) v = Abs (t) }}> }}"""


def test_constants_are_followed_into_bodies_of_bodies() -> None:
    model = parse(BODIES.format(more=""))
    check(model)
    assert shape_of(model, "q") == [3, 2]
    assert shape_of(model, "v") == [6, 1], "a body's own constant hides one around it"
    assert not any(body.initializers for body in model.graph.subgraphs() if body.name != "i"), "the graph is as it was"


def test_what_the_caller_may_give_anew_is_no_constant_in_a_body() -> None:
    model = parse(BODIES.format(more=", int64[2] s"))
    shapes.infer(model)
    assert not all(isinstance(d, int) for d in shape_of(model, "q"))


def test_inference_leaves_weights_and_answers_alone() -> None:
    weights = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    model = parse("(float[2,3] x, float[3,1000] w) => (float[a,b] y) { y = MatMul (x, w) }")
    w = model.graph.inputs.pop()
    w.const_value = ir.tensor(weights, name="w")
    model.graph.register_initializer(w)
    check(model)
    assert shape_of(model, "y") == [2, 1000]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(reference.run(model, [x])[0], x @ weights)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(float[2,3] x) => (float[2,3] y) { y = NoSuchOperator (x) }", "NoSuchOperator"),
        ("(float[2,3] x) => (float[2,3] y) { y = Relu (z) }", "z"),
        ("(float[2,3] x, float[4,5] w) => (float[2,5] y) { y = MatMul (x, w) }", "MatMul"),
        ("(float[2,3] x, int64[3] w) => (float[2,3] y) { y = Add (x, w) }", "Add"),
    ],
)
def test_what_no_engine_would_accept_is_refused(text: str, says: str) -> None:
    with pytest.raises(PassError, match=says) as caught:
        check(parse(text))
    assert "\n" not in str(caught.value)


def test_signatures_may_become_sharper_but_not_other() -> None:
    free = signature(parse("(float[N,4] x) => (float[N,4] y) { y = Relu (x) }"))
    fixed = signature(parse("(float[2,4] x) => (float[2,4] y) { y = Relu (x) }"))
    other = signature(parse("(float[2,4] x) => (float[2,4] z) { z = Relu (x) }"))
    assert compatible(free, fixed) and not compatible(fixed, free) and not compatible(fixed, other)


def test_observing_inner_values() -> None:
    model = parse("(float[2] x) => (float[2] y) { a = Neg (x) y = Relu (a) }")
    inner = next(iter(model.graph)).outputs[0]
    np.testing.assert_array_equal(reference.observe(model, [np.float32([1, -2])], [inner])[0], np.float32([-1, 2]))

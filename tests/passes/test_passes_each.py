"""Each rewrite where it applies and, as important, where it must not. Every case also compares answers (``apply``)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import apply, model_of, ops, optimise, probe_of, same_answers

from hasten.passes import Pass
from hasten.passes.drop_noops import drop_noops
from hasten.passes.fold_affine import fold_affine_after, fold_affine_before
from hasten.passes.fold_constants import fold_constants
from hasten.passes.fuse_linear import fuse_bias, fuse_padding
from hasten.passes.opset import raise_opset, raise_to
from hasten.passes.phases import OPTIMISE, TIDY
from hasten.passes.precision import single_precision
from hasten.passes.quantised import views_as_integers
from hasten.passes.recognise import recognise_activations
from hasten.passes.recognise_normalisation import recognise_normalisation
from hasten.passes.reroll import reroll
from hasten.passes.simplify_recurrence import simplify_recurrence
from hasten.passes.sink_views import sink_views
from hasten.passes.standard import dead_nodes
from hasten.passes.surgery import opset
from hasten.passes.transposes import cancel_transposes
from hasten.passes.views import merge_views
from hasten.passes.views_into_weights import views_into_weights


def given(text: str, *, version: int = 18, **weights: np.ndarray) -> ir.Model:
    """The graph, with those weights filled in (drawn when only a shape is given)."""
    rng = np.random.default_rng(5)
    declared = []
    for name, value in weights.items():
        array = rng.uniform(0.3, 1.2, value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        kind = {"f": "float", "b": "bool"}.get(array.dtype.kind, array.dtype.name)
        numbers = ",".join(str(x) for x in (array * 1).reshape(-1).tolist())
        declared.append(f"{kind}{list(array.shape) if array.ndim else ''} {name} = {{{numbers}}}")
    head, body = text.split("{", 1)
    return model_of(f"{head} <{', '.join(declared)}> {{{body}" if declared else text, version)


F, Q = np.float32, np.int64

# name → (model, passes, operators after)
APPLIES: dict[str, tuple[ir.Model, tuple[Pass, ...], dict[str, int]]] = {
    "identity, dropout, cast to the same": (
        given("""(float[2,3] x) => (float[2,3] y) { a = Identity (x) b = Dropout (a) c = Cast <to = 1> (b) y =
            Relu (c) }"""),
        (drop_noops,),
        {"Relu": 1},
    ),
    "a cast there and back": (
        given("""(float[2] x) => (float[2] y) { a = Cast <to = 11> (x) b = Cast <to = 1> (a) y = Relu (b) }"""),
        (drop_noops,),
        {"Relu": 1},
    ),
    "plus nothing, times one": (
        given(
            """(float[2,3] x) => (float[2,3] y) { a = Add (x, z) b = Mul (o, a) c = Div (b, o) y = Relu (c) }""",
            z=np.zeros(3, F),
            o=np.ones((1, 3), F),
        ),
        (drop_noops,),
        {"Relu": 1},
    ),
    "slice of all, pad by nothing, concat of one": (
        given(
            """(float[2,3] x) => (float[2,3] y) { a = Slice (x, s, e) b = Pad (a, p) c = Concat <axis=0> (b) y
            = Relu (c) }""",
            s=Q([0, 0]),
            e=Q([9, 3]),
            p=Q([0] * 4),
        ),
        (drop_noops,),
        {"Relu": 1},
    ),
    "relu after what is never negative": (
        given("""(float[2,3] x) => (float[2,3] y) { a = Sigmoid (x) b = Relu (a) c = Relu (b) y = Neg (c) }"""),
        (drop_noops,),
        {"Sigmoid": 1, "Neg": 1},
    ),
    "integers dequantised and quantised alike": (
        given(
            """(int8[4] x) => (int8[4] y) { a = DequantizeLinear (x, s, z) b = QuantizeLinear (a, s, z) y =
            Identity (b) }""",
            s=F(0.1),
            z=np.int8(3),
        ),
        (drop_noops,),
        {"Identity": 1},
    ),
    "weights cast and transposed": (
        given(
            """(float[2,3] x) => (float[2,4] y) { a = Cast <to = 1> (w) b = Transpose (a) y = MatMul (x, b) }""",
            w=np.arange(12).reshape(4, 3),
        ),
        (fold_constants,),
        {"MatMul": 1},
    ),
    "arithmetic on a partly free shape": (
        given(
            """(float[N,6,4] x) => (float[N,3,8] y) { s = Shape (x) n = Slice (s, i0, i1) m = Gather (s, one) h
            = Div (m, two) f = Mul (four, two) k = Concat <axis = 0> (n, h, f) y = Reshape (x, k) }""",
            i0=Q([0]),
            i1=Q([1]),
            one=Q([1]),
            two=Q([2]),
            four=Q([4]),
        ),
        (fold_constants, drop_noops),
        {"Reshape": 1},
    ),
    "weights stored as integers for a float layer": (
        given(
            "(float[2,4] x) => (float[2,64] y) { a = DequantizeLinear (w, s, z) y = MatMul (x, a) }",
            w=np.ones((4, 64), np.int8),
            s=F(0.5),
            z=np.int8(0),
        ),
        (fold_constants,),
        {"MatMul": 1},
    ),
    "batch norm after a grouped convolution": (
        given(
            """(float[1,4,5,5] x) => (y) { c = Conv <group = 2> (x, w, b) y = BatchNormalization (c, g, o, m,
            v) }""",
            w=(6, 2, 3, 3),
            b=(6,),
            g=(6,),
            o=(6,),
            m=(6,),
            v=(6,),
        ),
        (fold_affine_after,),
        {"Conv": 1},
    ),
    "batch norm after a grouped transposed convolution": (
        given(
            """(float[1,4,5,5] x) => (y) { c = ConvTranspose <group = 2, strides = [2,2]> (x, w) y =
            BatchNormalization (c, g, o, m, v) }""",
            w=(4, 3, 3, 3),
            g=(6,),
            o=(6,),
            m=(6,),
            v=(6,),
        ),
        (fold_affine_after,),
        {"ConvTranspose": 1},
    ),
    "scale, shift and difference after a dense layer": (
        given(
            """(float[2,4] x) => (y) { a = Gemm <transB = 1, beta = 0.5> (x, w, b) c = Mul (s, a) d = Sub (t,
            c) y = Div (d, s) }""",
            w=(3, 4),
            b=(3,),
            s=(3,),
            t=(1, 3),
        ),
        (fold_affine_after,),
        {"Gemm": 1},
    ),
    "scale after a plain product": (
        given("(float[2,5,4] x) => (y) { a = MatMul (x, w) y = Mul (a, s) }", w=(4, 3), s=(3,)),
        (fold_affine_after,),
        {"MatMul": 1},
    ),
    "batch norm before an unpadded convolution": (
        given(
            """(float[1,4,5,5] x) => (y) { c = BatchNormalization (x, g, o, m, v) y = Conv <group = 2> (c, w) }""",
            w=(6, 2, 3, 3),
            g=(4,),
            o=(4,),
            m=(4,),
            v=(4,),
        ),
        (fold_affine_before,),
        {"Conv": 1},
    ),
    "scale without shift before a padded convolution": (
        given(
            "(float[1,4,5,5] x) => (y) { c = Mul (x, s) y = Conv <pads = [1,1,1,1]> (c, w) }",
            w=(6, 4, 3, 3),
            s=(4, 1, 1),
        ),
        (fold_affine_before,),
        {"Conv": 1},
    ),
    "normalised input before a dense layer": (
        given(
            """(float[2,4] x) => (y) { a = Sub (x, m) c = Div (a, s) y = Gemm <transB = 1, alpha = 2.0> (c, w,
            b) }""",
            w=(3, 4),
            b=(3,),
            m=(4,),
            s=(4,),
        ),
        (fold_affine_before,),
        {"Gemm": 1},
    ),
    "product and bias": (
        given("(float[N,4] x) => (y) { a = MatMul (x, w) y = Add (b, a) }", w=(4, 3), b=(1, 3)),
        (fuse_bias,),
        {"Gemm": 1},
    ),
    "padding before a convolution": (
        given(
            "(float[1,2,5,5] x) => (y) { p = Pad (x, n, z) y = Conv <pads = [0,1,0,0]> (p, w) }",
            n=Q([0, 0, 1, 0, 0, 0, 2, 1]),
            z=F(0),
            w=(3, 2, 3, 3),
        ),
        (fuse_padding,),
        {"Conv": 1},
    ),
    "padding before an average that counts it": (
        given(
            "(float[1,2,5,5] x) => (y) { p = Pad (x, n) y = AveragePool <kernel_shape = [3,3]> (p) }",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
        {"AveragePool": 1},
    ),
    "zeros around positive numbers before a maximum": (
        given(
            """(float[1,2,5,5] x) => (y) { r = Relu (x) p = Pad (r, n) y = MaxPool <kernel_shape = [3,3]> (p) }""",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
        {"Relu": 1, "MaxPool": 1},
    ),
    "activation between reshapes": (
        given(
            """(float[1,2,1,5] x) => (y) { c = Conv (x, w) q = Squeeze (c, a) r = Relu (q) u = Unsqueeze (r, a)
            y = Conv (u, w) }""",
            w=(2, 2, 1, 1),
            a=Q([2]),
        ),
        (sink_views, merge_views, drop_noops),
        {"Conv": 2, "Relu": 1},
    ),
    "residual between reshapes": (
        given(
            """(float[1,2,1,5] x) => (y) { c = Conv (x, w) d = Neg (x) q = Squeeze (c, a) p = Squeeze (d, a) r
            = Add (q, p) u = Unsqueeze (r, a) y = Conv (u, w) }""",
            w=(2, 2, 1, 1),
            a=Q([2]),
        ),
        (sink_views, merge_views, drop_noops),
        {"Conv": 2, "Neg": 1, "Add": 1},
    ),
    "columns of a dense layer before a transpose": (
        given(
            """(float[N,4] x) => (y) { a = Gemm (x, w, b) r = Relu (a) s = Reshape (r, k) t = Transpose
            <perm=[0,3,1,2]> (s) y = Neg (t) }""",
            w=(4, 24),
            b=(24,),
            k=Q([-1, 2, 3, 4]),
        ),
        (merge_views, views_into_weights),
        {"Gemm": 1, "Relu": 1, "Reshape": 1, "Neg": 1},
    ),
    "per-channel weights transposed after dequantising": (
        given(
            """(uint8[1,4] x) => (y) { d = DequantizeLinear (x, s, u) e = DequantizeLinear <axis = 0> (w, t, z)
            f = Transpose (e) y = MatMul (d, f) }""",
            s=F(0.1),
            u=np.uint8(7),
            w=np.arange(12, dtype=np.int8).reshape(3, 4),
            t=F([0.1, 0.2, 0.3]),
            z=np.zeros(3, np.int8),
        ),
        (views_as_integers, fold_constants),
        {"DequantizeLinear": 2, "MatMul": 1},
    ),
    "gelu by tanh": (
        given(
            """(float[2,8] x) => (y) { p = Pow (x, three) a = Mul (k, p) b = Add (x, a) c = Mul (b, q) t = Tanh
            (c) u = Add (one, t) h = Mul (half, x) y = Mul (h, u) }""",
            three=F(3),
            k=F(0.044715),
            q=F(0.7978845608),
            one=F(1),
            half=F(0.5),
        ),
        (recognise_activations,),
        {"Gelu": 1},
    ),
    "hard swish": (
        given(
            """(float[2,8] x) => (y) { a = Add (x, t) b = Clip (a, z, s) c = Mul (x, b) y = Div (c, s) }""",
            t=F(3),
            z=F(0),
            s=F(6),
        ),
        (recognise_activations,),
        {"HardSwish": 1},
    ),
    "hard sigmoid": (
        given(
            "(float[2,8] x) => (y) { a = Add (x, t) b = Clip (a, z, s) y = Mul (b, i) }",
            t=F(3),
            z=F(0),
            s=F(6),
            i=F(1 / 6),
        ),
        (recognise_activations,),
        {"HardSigmoid": 1},
    ),
    "mish": (
        given(
            """(float[2,8] x) => (y) { a = Exp (x) b = Add (a, one) c = Log (b) d = Tanh (c) y = Mul (d, x) }""",
            one=F(1),
        ),
        (recognise_activations,),
        {"Mish": 1},
    ),
    "softmax": (
        given(
            """(float[2,8] x) => (y) { m = ReduceMax (x, l) d = Sub (x, m) e = Exp (d) s = ReduceSum (e, l) y =
            Div (e, s) }""",
            l=Q([1]),
        ),
        (recognise_activations,),
        {"Softmax": 1},
    ),
    "layer norm as Keras writes it": (
        given(
            """(float[2,8] x) => (y) { m = ReduceMean (x, l) d = Sub (x, m) q = Mul (d, d) v = ReduceMean (q,
            l) e = Add (v, eps) r = Sqrt (e) i = Reciprocal (r) g = Mul (i, gamma) a = Mul (x, g) n = Mul
            (m, g) b = Sub (beta, n) y = Add (a, b) }""",
            l=Q([-1]),
            eps=F(0.001),
            gamma=(8,),
            beta=(8,),
        ),
        (recognise_normalisation,),
        {"LayerNormalization": 1},
    ),
    "layer norm without scale over two axes": (
        given(
            """(float[2,3,4] x) => (y) { m = ReduceMean (x, l) d = Sub (x, m) q = Pow (d, two) v = ReduceMean
            (q, l) e = Add (v, eps) r = Sqrt (e) y = Div (d, r) }""",
            l=Q([1, 2]),
            eps=F(0.001),
            two=F(2),
        ),
        (recognise_normalisation,),
        {"LayerNormalization": 1},
    ),
    "root mean square norm": (
        given(
            """(float[2,8] x) => (y) { q = Pow (x, two) v = ReduceMean (q, l) e = Add (v, eps) r = Sqrt (e) d =
            Div (x, r) y = Mul (g, d) }""",
            l=Q([-1]),
            eps=F(0.001),
            two=F(2),
            g=(8,),
        ),
        (recognise_normalisation,),
        {"RMSNormalization": 1},
    ),
    "the last step of a reversed layer": (
        given(
            """(float[3,1,2] x) => (y) { o = RNN <hidden_size = 4, direction = "reverse"> (x, w, r) y = Gather
            (o, i) }""",
            w=(1, 4, 2),
            r=(1, 4, 4),
            i=Q(0),
        ),
        (simplify_recurrence,),
        {"RNN": 1, "Reshape": 1},
    ),
    "a single step": (
        given(
            """(float[1,1,2] x) => (y) { o, h = GRU <hidden_size = 4> (x, w, r) a = Neg (o) b = Neg (h) c =
            Squeeze (a, one) y = Add (b, c) }""",
            w=(1, 12, 2),
            r=(1, 12, 4),
            one=Q([1]),
        ),
        (simplify_recurrence, sink_views, merge_views, drop_noops, dead_nodes),
        {"GRU": 1},
    ),
    "a transpose through reductions": (
        given(
            """(float[2,4,4,3] x) => (y) { t = Transpose <perm=[0,3,1,2]> (x) r = Relu (t) y = ReduceMean
            <keepdims = 0> (r, a) }""",
            a=Q([2, 3]),
        ),
        (cancel_transposes,),
        {"Relu": 1, "ReduceMean": 1},
    ),
    "transposes through quantisation per channel": (
        given(
            """(float[2,4,4,3] x) => (y) { t = Transpose <perm=[0,3,1,2]> (x) q = QuantizeLinear <axis = 1> (t,
            s, z) d = DequantizeLinear <axis = 1> (q, s, z) y = Transpose <perm=[0,2,3,1]> (d) }""",
            s=F([0.1, 0.2, 0.3]),
            z=np.zeros(3, np.int8),
        ),
        (cancel_transposes,),
        {"QuantizeLinear": 1, "DequantizeLinear": 1},
    ),
}


@pytest.mark.parametrize("name", APPLIES)
def test_applies(name: str) -> None:
    model, passes, expected = APPLIES[name]
    result = apply(model, *passes)
    found = ops(result)
    if name == "a single step":
        assert not next(n for n in result.graph if n.op_type == "GRU").outputs[0].uses()
        return
    assert found == expected
    same_answers(model, result, probe_of(model, 9), 2e-5)


# name → (model, passes): nothing may change but, possibly, constants
STAYS: dict[str, tuple[ir.Model, tuple[Pass, ...]]] = {
    "a cast that loses digits": (
        given("""(float[2] x) => (float[2] y) { a = Cast <to = 7> (x) b = Cast <to = 1> (a) y = Relu (b) }"""),
        (drop_noops,),
    ),
    "dropout in training": (
        given("(float[2] x) => (float[2] y) { a = Dropout (x, r, t) y = Relu (a) }", r=F(0.0), t=np.array(True)),
        (drop_noops,),
    ),
    "adding zeros that broadcast": (
        given("(float[3] x) => (float[2,3] y) { a = Add (x, z) y = Relu (a) }", z=np.zeros((2, 3), F)),
        (drop_noops,),
    ),
    "an identity that carries an output's name": (
        given("(float[2] x) => (float[2] y) { y = Identity (x) }"),
        (drop_noops,),
    ),
    "weights that would grow": (
        given("(float[1000,1000] x) => (y) { a = Expand (w, k) y = Mul (x, a) }", w=F([2]), k=Q([1000, 1000])),
        (fold_constants,),
    ),
    "random numbers": (
        given("""(float[2] x) => (y) { a = RandomNormal <shape = [2], seed = 1.0> () b = Sub (a, a) y = Add (x,
            b) }"""),
        (fold_constants,),
    ),
    "weights dequantised for an integer kernel": (
        given(
            """(uint8[2,4] x) => (y) { d = DequantizeLinear (x, s, u) e = DequantizeLinear (w, s, z) y = MatMul
            (d, e) }""",
            w=np.ones((4, 3), np.int8),
            s=F(0.5),
            z=np.int8(0),
            u=np.uint8(3),
        ),
        (fold_constants,),
    ),
    "batch norm after a convolution that others read": (
        given(
            """(float[1,4,5,5] x) => (y, z) { c = Conv (x, w) y = BatchNormalization (c, g, o, m, v) z = Relu
            (c) }""",
            w=(4, 4, 1, 1),
            g=(4,),
            o=(4,),
            m=(4,),
            v=(4,),
        ),
        (fold_affine_after,),
    ),
    "shift before a padded convolution": (
        given(
            "(float[1,4,5,5] x) => (y) { c = Add (x, s) y = Conv <pads = [1,1,1,1]> (c, w) }",
            w=(6, 4, 3, 3),
            s=(4, 1, 1),
        ),
        (fold_affine_before,),
    ),
    "shift before a convolution padded automatically": (
        given(
            '(float[1,4,5,5] x) => (y) { c = Add (x, s) y = Conv <auto_pad = "SAME_UPPER"> (c, w) }',
            w=(6, 4, 3, 3),
            s=(4, 1, 1),
        ),
        (fold_affine_before,),
    ),
    "a large shift, which would cancel digits": (
        given("(float[2,4] x) => (y) { a = Sub (x, m) y = Gemm (a, w) }", w=(4, 3), m=F([1000, 1000, 1000, 1000])),
        (fold_affine_before,),
    ),
    "a scale along the width": (
        given("(float[1,4,5,5] x) => (y) { c = Conv (x, w) y = Mul (c, s) }", w=(6, 4, 1, 1), s=(5,)),
        (fold_affine_after,),
    ),
    "a division by the layer": (
        given("(float[2,4] x) => (y) { a = Gemm (x, w) y = Div (s, a) }", w=(4, 3), s=(3,)),
        (fold_affine_after,),
    ),
    "a bias for each row": (
        given("(float[2,4] x) => (y) { a = MatMul (x, w) y = Add (a, b) }", w=(4, 3), b=(2, 3)),
        (fuse_bias,),
    ),
    "padding before an average that leaves it out": (
        given(
            """(float[1,2,5,5] x) => (y) { p = Pad (x, n) y = AveragePool <kernel_shape = [3,3], pads =
            [1,1,1,1]> (p) }""",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
    ),
    "zeros around any numbers before a maximum": (
        given(
            "(float[1,2,5,5] x) => (y) { p = Pad (x, n) y = MaxPool <kernel_shape = [3,3]> (p) }",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
        ),
        (fuse_padding,),
    ),
    "padding with ones, reflection, or of channels": (
        given(
            """(float[1,2,5,5] x) => (y) { p = Pad (x, n, one) a = Conv (p, w) r = Pad <mode = "reflect"> (a,
            n) b = Conv (r, w) c = Pad (b, m) y = Conv (c, v) }""",
            n=Q([0, 0, 1, 1, 0, 0, 1, 1]),
            m=Q([0, 1, 0, 0, 0, 0, 0, 0]),
            one=F(1),
            w=(2, 2, 3, 3),
            v=(2, 3, 3, 3),
        ),
        (fuse_padding,),
    ),
    "almost gelu": (
        given(
            """(float[2,8] x) => (y) { r = Div (x, s) e = Erf (r) a = Add (e, one) b = Mul (x, a) y = Mul (b,
            h) }""",
            s=F(1.5),
            one=F(1),
            h=F(0.5),
        ),
        (recognise_activations,),
    ),
    "gelu whose inside is read elsewhere": (
        given(
            """(float[2,8] x) => (y, z) { r = Div (x, s) e = Erf (r) a = Add (e, one) b = Mul (x, a) y = Mul
            (b, h) z = Neg (e) }""",
            s=F(1.4142135),
            one=F(1),
            h=F(0.5),
        ),
        (recognise_activations,),
    ),
    "exponentials over their sum, which overflow": (
        given("(float[2,8] x) => (y) { e = Exp (x) s = ReduceSum (e, l) y = Div (e, s) }", l=Q([1])),
        (recognise_activations,),
    ),
    "a normalisation over the first axis": (
        given(
            """(float[2,8] x) => (y) { m = ReduceMean (x, l) d = Sub (x, m) q = Pow (d, two) v = ReduceMean (q,
            l) e = Add (v, eps) r = Sqrt (e) y = Div (d, r) }""",
            l=Q([0]),
            eps=F(0.001),
            two=F(2),
        ),
        (recognise_normalisation,),
    ),
    "steps that depend on the one before": (
        given(
            """(float[3,4] x) => (y) { a = Gather (x, i0) b = Gather (x, i1) c = Gather (x, i2) ha = Tanh (a)
            hb0 = Add (b, ha) hb = Tanh (hb0) hc0 = Add (c, hb) hc = Tanh (hc0) y = Concat <axis = 0> (ha,
            hb, hc) }""",
            i0=Q(0),
            i1=Q(1),
            i2=Q(2),
        ),
        (reroll,),
    ),
    "lanes with an inner value read elsewhere": (
        given(
            """(float[3,4] x) => (y, z) { a = Gather (x, i0) b = Gather (x, i1) c = Gather (x, i2) p = Tanh (a)
            q = Tanh (b) r = Tanh (c) s = Neg (p) t = Neg (q) u = Neg (r) y = Concat <axis = 0> (s, t, u) z
            = Abs (q) }""",
            i0=Q(0),
            i1=Q(1),
            i2=Q(2),
        ),
        (reroll,),
    ),
    "lanes that differ in an attribute": (
        given(
            """(float[3,4] x) => (y) { a = Gather (x, i0) b = Gather (x, i1) c = Gather (x, i2) p = Elu <alpha
            = 0.5> (a) q = Elu <alpha = 0.6> (b) r = Elu <alpha = 0.5> (c) y = Concat <axis = 0> (p, q, r) }""",
            i0=Q(0),
            i1=Q(1),
            i2=Q(2),
        ),
        (reroll,),
    ),
    "a state that is not zero, and the first step": (
        given(
            """(float[3,1,2] x, float[1,1,4] h) => (y) { o = RNN <hidden_size = 4> (x, w, r, , , h) y = Gather
            (o, i) }""",
            w=(1, 4, 2),
            r=(1, 4, 4),
            i=Q(0),
        ),
        (simplify_recurrence,),
    ),
    "a transpose that a border needs": (
        given(
            """(float[1,4,4,3] x) => (y) { t = Transpose <perm=[0,3,1,2]> (x) c = Conv (t, w) y = Relu (c) }""",
            w=(2, 3, 3, 3),
        ),
        (cancel_transposes, merge_views),
    ),
    "a transpose where its only use is wanted both ways": (
        given("(float[2,3] x) => (y, z) { t = Transpose (x) y = Relu (t) z = Relu (x) }"),
        (cancel_transposes, merge_views),
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str) -> None:
    model, passes = STAYS[name]
    assert ops(apply(model, *passes)) == ops(model)


def test_reshape_targets_become_numbers() -> None:
    model = given("(float[2,6] x) => (float[2,2,3] y) { y = Reshape (x, k) }", k=Q([0, -1, 3]))
    node = next(iter(apply(model, fold_constants).graph))
    assert node.inputs[1].const_value.numpy().tolist() == [2, 2, 3]


@pytest.mark.parametrize("version", [9, 11, 13, 15])
def test_old_operator_sets_are_raised(version: int) -> None:
    axes = "Squeeze <axes = [1]> (x)" if version < 13 else "Squeeze (x, k)"
    text = f"(float[2,1,3] x) => (float[2,3] y) {{ a = {axes} y = Softmax <axis = 1> (a) }}"
    model = given(text, version=version, **({} if version < 13 else {"k": Q([1])}))
    result = apply(model, raise_opset)
    assert opset(result) == 18 and not raise_to(result, 18)
    same_answers(model, result, probe_of(model))


def test_a_pass_reaches_into_branches() -> None:
    model = model_of("""(bool[1] c, float[2,3] x) => (float[3,2] y) {
        s = Squeeze (c)
        y = If (s) <then_branch = a () => (float[3,2] p) { i = Identity (x) j = Dropout (i) p = Transpose (j) },
                    else_branch = b () => (float[3,2] q) { n = Neg (x) q = Transpose (n) }> }""")
    result = apply(model, drop_noops)
    assert ops(result) == {"Squeeze": 1, "If": 1, "Transpose": 2, "Neg": 1}


def test_unused_branches_let_go_of_what_they_read() -> None:
    model = model_of("""(bool c, float[2,3] x) => (float[2,3] y) { r = Relu (x)
        z = If (c) <then_branch = a () => (float[2,3] p) { p = Neg (r) },
                    else_branch = b () => (float[2,3] q) { q = Abs (r) }>
        y = Exp (x) }""")
    assert ops(optimise(model)) == {"Exp": 1}


def test_an_output_keeps_its_name_when_its_node_goes() -> None:
    model = given("""(float[2] x) => (float[2] y, float[2] z) { a = Relu (x) y = Identity (a) z = Identity (a) }""")
    result = optimise(model)
    assert [value.name for value in result.graph.outputs] == ["y", "z"]
    assert ops(result)["Relu"] == 1


def test_a_constant_output_stays_an_output() -> None:
    model = given("(float[2] x) => (float[2] y, float[2] z) { y = Relu (x) z = Neg (w) }", w=F([1, 2]))
    result = optimise(model)
    assert [value.name for value in result.graph.outputs] == ["y", "z"]
    same_answers(model, result, probe_of(model))


def test_an_input_that_is_an_output() -> None:
    model = model_of("(float[2] x) => (float[2] y, float[2] x) { y = Relu (x) }")
    assert [value.name for value in optimise(model).graph.outputs] == ["y", "x"]


def test_double_becomes_single_inside_and_stays_at_the_border() -> None:
    model = model_of("""(double[2,3] x, float[3] b) => (double[2,3] y, float[2,3] z) <double[3] w = {0.1, 0.2, 0.3}> {
        a = Mul (x, w) c = Cast <to = 11> (b) y = Add (a, c) z = Cast <to = 1> (y) }""")
    result = apply(model, single_precision, drop_noops)
    kinds = {value.name: str(value.dtype) for value in (*result.graph.inputs, *result.graph.outputs)}
    assert kinds == {"x": "DOUBLE", "b": "FLOAT", "y": "DOUBLE", "z": "FLOAT"}
    inner = [value for node in result.graph if node.op_type != "Cast" for value in node.outputs]
    assert all(value.dtype == ir.DataType.FLOAT for value in inner)
    assert ops(result) == {"Cast": 2, "Mul": 1, "Add": 1}
    assert all(pass_.name != single_precision.name for phase in (TIDY, OPTIMISE) for pass_ in phase), "by name only"

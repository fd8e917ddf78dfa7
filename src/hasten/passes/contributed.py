"""Operators of ONNX Runtime's own domain become standard ones, so that every engine runs what its quantiser wrote.

A node that asks for what the standard cannot say (a past, packed heads) stays as it is; those that round activations on
the way are ``contributed_rounding``'s.

Source: ONNX Runtime, docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from hasten.graph.walk import all_nodes
from hasten.passes import Pass
from hasten.passes.contributed_place import DOMAIN, FLOAT, Place, Results, Rewrite, Value, rewrite_all
from hasten.passes.opset import raise_to
from hasten.passes.surgery import constant, dims, rank, static_dims
from hasten.types import Array

__all__ = ["ROUNDED_ACTIVATIONS", "contributed_operators", "weight_of_few_bits"]

ROUNDED_ACTIVATIONS = 4  # to bytes: what that answers is not what a float32 product would
# As float32, weights take up to sixteen times their memory: more of them than this are left to kernels that unpack.
_MOST_UNPACKED = 1 << 20
# Where the standard has had what is meant from this operator set on: 16 bits and blocks, and attention.
_SINCE = {"QuantizeLinear": 21, "DequantizeLinear": 21, "Attention": 23, "MultiHeadAttention": 23}
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _binary(op_type: str) -> Rewrite:
    def rewrite(at: Place) -> Results:
        a, b = (at.dequantised(at.given(i), at.given(i + 1), at.given(i + 2)) for i in (0, 3))
        return (at.quantised(at.op(op_type, a, b), at.given(6), at.given(7), at.given(0)),)

    return rewrite


def _unary(op_type: str, *names: str) -> Rewrite:
    """Bytes to bytes by way of one operator, which takes these attributes; channels may lie last."""

    def rewrite(at: Place) -> Results:
        last, count = bool(at.setting("channels_last", 0)), rank(at.given(0))
        if last and count is None:
            return ()
        x = at.dequantised(at.given(0), at.given(1), at.given(2))
        x = at.channels_first(x, count) if last and count else x
        y = at.op(op_type, x, **at.kept(*names))
        y = at.channels_last(y, count) if last and count else y
        return (at.quantised(y, at.given(3), at.given(4), at.given(0)),)

    return rewrite


def _softmax(at: Place) -> Results:
    axis, count = at.setting("axis", -1), rank(at.given(0))
    if at.setting("opset", 13) < 13 and (count is None or axis % count != count - 1):
        return ()  # over all axes behind this one
    return _unary("Softmax", "axis")(at)


def _concat(at: Place) -> Results:
    starts = range(2, len(at.node.inputs), 3)
    parts = [at.dequantised(at.given(i), at.given(i + 1), at.given(i + 2)) for i in starts]
    return (at.quantised(at.op("Concat", *parts, axis=at.setting("axis", 0)), at.given(0), at.given(1), at.given(2)),)


def _quantised_gemm(at: Place) -> Results:
    """alpha · (A·B + C), C counted in steps of a's scale times b's."""
    scales = [constant(at.given(i)) for i in (1, 4)]
    if scales[0] is None or scales[1] is None:
        return ()
    turned, alpha, c = at.setting("transB", 0), at.setting("alpha", 1.0), at.given(6)
    a = at.dequantised(at.given(0), at.given(1), at.given(2))
    b = at.dequantised(at.given(3), at.given(4), at.given(5), axis=0 if turned else 1)
    if c is not None:
        steps = at.editor.weight((scales[0].reshape(()) * scales[1]).astype(np.float32), f"{at.node.name}_steps")
        whole = at.op("Cast", c, to=int(FLOAT))
        whole.dtype = FLOAT
        c = at.op("Mul", whole, steps)
    y = at.op("Gemm", a, b, c, alpha=alpha, beta=alpha, **at.kept("transA", "transB"))
    return (y if at.given(7) is None else at.quantised(y, at.given(7), at.given(8), at.given(0)),)


def _integers_to_float(at: Place) -> Results:
    scale = at.op("Mul", at.given(2), at.given(3))
    sums = (at.given(0), at.given(1), at.given(4), at.given(5))
    return (at.scaled_product(sums, scale, at.given(6)),)


def _dynamic_product(at: Place) -> Results:
    x, step, zero = at.dynamically_quantised(at.given(0))
    scale = at.op("Mul", step, at.given(2))
    return (at.scaled_product((x, at.given(1), zero, at.given(3)), scale, at.given(4)),)


def _product(at: Place) -> Results:
    sides, turned = [at.given(0), at.given(1)], [at.setting(f"trans{side}", 0) for side in "AB"]
    counts = [rank(side) for side in sides]
    if any(at.setting(f"transBatch{side}", 0) for side in "AB"):
        return ()
    if any(turn and (count is None or count < 2) for turn, count in zip(turned, counts, strict=True)):
        return ()
    for i, count in enumerate(counts):
        if turned[i] and count is not None:
            sides[i] = at.op("Transpose", sides[i], perm=[*range(count - 2), count - 1, count - 2])
    y, alpha = at.op("MatMul", *sides), at.setting("alpha", 1.0)
    return (y if alpha == 1.0 else at.op("Mul", y, at.number(alpha, sides[0])),)


def _activated(at: Place, x: ir.Value, parameters: Sequence[float]) -> ir.Value:
    name = at.setting("activation", "")
    if name == "Clip":
        return at.op("Clip", x, *(at.number(bound, x) for bound in parameters))
    taken = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",)}.get(name, ())
    given = dict(zip(taken, map(float, parameters), strict=False))
    return at.op(name, x, **given) if name else x


def _gemm(at: Place) -> Results:
    y = at.op("Gemm", at.given(0), at.given(1), at.given(2), **at.kept("alpha", "beta", "transA", "transB"))
    names = (f"activation_{name}" for name in ("alpha", "beta", "gamma"))
    return (_activated(at, y, [at.setting(n, 0.0) for n in names if n in at.node.attributes]),)


def _conv(at: Place) -> Results:
    y = at.op("Conv", at.given(0), at.given(1), at.given(2), **at.kept(*_CONV))
    y = y if at.given(3) is None else at.op("Add", y, at.given(3))
    return (_activated(at, y, at.node.attributes.get_floats("activation_params", ())),)


def _conv_last(at: Place) -> Results:
    """A convolution whose image, not whose weights, has its channels last."""
    count = rank(at.given(1))
    x = at.given(0)
    if count is None or x is None:
        return ()
    y = at.op("Conv", at.channels_first(x, count), at.given(1), at.given(2), **at.kept(*_CONV))
    y = y if at.given(3) is None else at.op("Add", y, at.channels_first(at.node.inputs[3], count))  # type: ignore[arg-type]
    return (at.channels_last(_activated(at, y, at.node.attributes.get_floats("activation_params", ())), count),)


def _gelu(at: Place) -> Results:
    """With the error function; of a sum where there is a bias."""
    x = at.given(0) if at.given(1) is None else at.op("Add", at.given(0), at.given(1))
    inner = at.op("Add", at.op("Erf", at.op("Mul", x, at.number(0.5**0.5, x))), at.number(1.0, x))
    return (at.op("Mul", at.op("Mul", x, at.number(0.5, x)), inner),)


def _fast_gelu(at: Place) -> Results:
    x = at.given(0) if at.given(1) is None else at.op("Add", at.given(0), at.given(1))
    cube = at.op("Mul", at.op("Mul", x, at.op("Mul", x, x)), at.number(0.044715, x))
    bent = at.op("Tanh", at.op("Mul", at.op("Add", x, cube), at.number(0.7978845608028654, x)))
    return (at.op("Mul", at.op("Mul", x, at.number(0.5, x)), at.op("Add", bent, at.number(1.0, x))),)


def _quick_gelu(at: Place) -> Results:
    x, alpha = at.given(0), at.setting("alpha", 1.702)
    return (at.op("Mul", x, at.op("Sigmoid", at.op("Mul", x, at.number(alpha, x)))),)


def _summed(at: Place, bias: Value) -> ir.Value:
    total = at.op("Add", at.given(0), at.given(1))
    return total if bias is None else at.op("Add", total, bias)


def _skip_norm(at: Place) -> Results:
    if any(v.uses() or v.is_graph_output() for v in at.node.outputs[1:3]):
        return ()
    total = _summed(at, at.given(4))
    epsilon = at.setting("epsilon", 1e-12)
    y = at.op("LayerNormalization", total, at.given(2), at.given(3), axis=-1, epsilon=epsilon)
    return (y, None, None, total)


def _embedded(at: Place) -> Results:
    """Words, places and segments looked up, summed and normalised; and how many places of each row count."""
    words, segments, padding, places = (at.given(i) for i in (0, 1, 7, 8))
    table = at.given(3)
    if places is None:  # as many as there are words in a row
        length = at.op("Shape", words, start=1, end=2)
        length.dtype = ir.DataType.INT64
        rows = at.op("Slice", table, at.editor.ints([0]), length)
    else:
        rows = at.op("Gather", table, places)
    total = at.op("Add", at.op("Gather", at.given(2), words), rows)
    if segments is not None:
        total = at.op("Add", total, at.op("Gather", at.given(4), segments))
    epsilon = at.setting("epsilon", 1e-12)
    y = at.op("LayerNormalization", total, at.given(5), at.given(6), axis=-1, epsilon=epsilon)
    counted = at.op("Equal", words if padding is None else padding, at.number(1, words))
    counted.dtype = ir.DataType.BOOL
    kept = at.op("Cast", counted, to=int(ir.DataType.INT32))
    kept.dtype = ir.DataType.INT32
    kept = at.op("Mul", kept, at.number(0, kept)) if padding is None else kept
    return (y, at.op("ReduceSum", kept, at.editor.ints([1]), keepdims=0), total)


def _skip_root_norm(at: Place) -> Results:
    if any(v.uses() or v.is_graph_output() for v in at.node.outputs[1:3]):
        return ()
    total, epsilon = _summed(at, at.given(3)), at.setting("epsilon", 1e-12)
    return (_root_normalised(at, total, at.given(2), epsilon), None, None, total)


def _root_norm(at: Place) -> Results:
    count, axis = rank(at.given(0)), at.setting("axis", -1)
    if not at.answers_only(1) or (axis != -1 and (count is None or axis != count - 1)):
        return ()
    return (_root_normalised(at, at.given(0), at.given(1), at.setting("epsilon", 1e-5)),)


def _root_normalised(at: Place, x: Value, scale: Value, epsilon: float) -> ir.Value:
    mean = at.op("ReduceMean", at.op("Mul", x, x), at.editor.ints([-1]), keepdims=1)
    root = at.op("Sqrt", at.op("Add", mean, at.number(epsilon, x)))
    return at.op("Mul", at.op("Div", x, root), scale)


def _unpacked(data: Array, bits: int, count: int) -> Array:
    """Numbers of few bits, the first in the lowest, along the last axis."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (data[..., None] >> shifts & ((1 << bits) - 1)).reshape(*data.shape[:-1], -1)[..., :count].astype(np.float32)


def weight_of_few_bits(at: Place) -> ir.Value | None:
    """Weights of 2, 4 or 8 bits, a scale a block of each column: as the float32 matrix meant, where that is small."""
    packed, scale, zero = (constant(at.given(i)) for i in (1, 2, 3))
    depth, columns, size, bits = (int(at.setting(name, 4)) for name in ("K", "N", "block_size", "bits"))
    hidden, many = at.given(3) is not None and zero is None, depth * columns > _MOST_UNPACKED
    if packed is None or scale is None or hidden or at.given(4) or bits not in (2, 4, 8) or many:
        return None
    blocks = -(-depth // size)
    levels = _unpacked(packed.reshape(columns, blocks, -1), bits, size)
    factor = scale.reshape(columns, blocks, 1).astype(np.float32)
    offset = np.full(factor.shape, 2.0 ** (bits - 1), np.float32)
    if zero is not None and zero.dtype == np.uint8:
        offset = _unpacked(zero.reshape(columns, -1), bits, blocks)[..., None]
    elif zero is not None:
        offset = zero.reshape(factor.shape).astype(np.float32)
    weight = ((levels - offset) * factor).reshape(columns, -1)[:, :depth].T.astype(scale.dtype)
    return at.editor.weight(weight, f"{at.node.name}_weight")


def _product_of_few_bits(at: Place) -> Results:
    weight = None if at.setting("accuracy_level", 0) == ROUNDED_ACTIVATIONS else weight_of_few_bits(at)
    if weight is None:
        return ()
    y = at.op("MatMul", at.given(0), weight)
    return (y if at.given(5) is None else at.op("Add", y, at.given(5)),)


def _attention(at: Place) -> Results:
    """Queries, keys and values from one product."""
    shape, bias = static_dims(at.given(1)), at.given(2)
    if shape is None or any(at.given(i) is not None for i in (4, 6)) or at.setting("do_rotary", 0):
        return ()
    if not _is_plain(at, at.given(3), at.given(0)):
        return ()
    y = at.op("MatMul", at.given(0), at.given(1))
    y = y if bias is None else at.op("Add", y, bias)
    return _attended(at, at.parts(y, at.setting("qkv_hidden_sizes", (shape[1] // 3,) * 3)), at.given(3), at.given(5))


def _many_heads(at: Place) -> Results:
    sides, bias = [at.given(i) for i in range(3)], at.given(3)
    shapes = [dims(side) for side in sides]
    widths = [d[2] for d in shapes if d is not None and len(d) == 3 and isinstance(d[2], int)]
    past = any(at.given(i) is not None for i in range(6, 10))
    if len(widths) < 3 or past or not _is_plain(at, at.given(4), *sides[:2]):
        return ()
    if bias is not None:
        sides = [at.op("Add", x, part) for x, part in zip(sides, at.parts(bias, widths), strict=True)]
    return _attended(at, sides, at.given(4), at.given(5))


def _is_plain(at: Place, padding: Value, *sides: Value) -> bool:
    """True where only the result is asked for, a mask is one of rows, and rows look back from their own places."""
    shapes = [dims(side) for side in sides]
    lengths = {d[1] for d in shapes if d is not None and len(d) == 3}
    masks = padding is None or (rank(padding) == 2 and static_dims(sides[0]) is not None)
    return at.answers_only(1) and masks and bool(lengths) and (len(lengths) == 1 or not at.setting("unidirectional", 0))


def _attended(at: Place, sides: Sequence[Value], padding: Value, mask: Value) -> Results:
    """Attention of heads side by side; padding: whom to look at (batch, length), mask: what to add to the scores."""
    rows, heads = static_dims(at.given(0)), at.setting("num_heads", 1)
    if padding is not None and rows is not None:
        seen = at.op("Greater", padding, at.number(0, padding))
        seen.dtype = ir.DataType.BOOL
        less = at.op("Where", seen, at.number(0, None), at.number(at.setting("mask_filter_value", -1e4), None))
        less.dtype = FLOAT
        less = at.op("Unsqueeze", less, at.editor.ints([1, 2]))
        less = at.op("Expand", less, at.editor.ints([1, 1, rows[1], 1]))  # ONNX Runtime wants a row for each query
        mask = less if mask is None else at.op("Add", mask, less)
    options = {"q_num_heads": heads, "kv_num_heads": heads, "is_causal": at.setting("unidirectional", 0)}
    options |= {"scale": at.setting("scale", 0.0)} if at.setting("scale", 0.0) else {}
    return (at.op("Attention", *sides, mask, **options),)


def _same(op_type: str, dtype: ir.DataType | None) -> Rewrite:
    """The standard operator of this name, which has learnt what the older one was for."""

    def rewrite(at: Place) -> Results:
        zero, y = at.given(2), at.op(op_type, *at.node.inputs, **at.kept("axis", "block_size"))
        y.dtype = dtype or (None if zero is None else zero.dtype) or ir.DataType.UINT8
        return (y,)

    return rewrite


_REWRITES: dict[str, Rewrite] = {
    "QLinearAdd": _binary("Add"), "QLinearMul": _binary("Mul"), "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"), "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearAveragePool": _unary("AveragePool", *_POOL), "QLinearSoftmax": _softmax,
    "QLinearConcat": _concat, "QGemm": _quantised_gemm,
    "MatMulIntegerToFloat": _integers_to_float, "DynamicQuantizeMatMul": _dynamic_product,
    "FusedMatMul": _product, "TransposeMatMul": _product, "FusedGemm": _gemm, "FusedConv": _conv,
    "NhwcConv": _conv_last, "NhwcFusedConv": _conv_last, "Gelu": _gelu, "BiasGelu": _gelu, "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu, "SkipLayerNormalization": _skip_norm,
    "EmbedLayerNormalization": _embedded, "SkipSimplifiedLayerNormalization": _skip_root_norm,
    "SimplifiedLayerNormalization": _root_norm,
    "Attention": _attention, "MultiHeadAttention": _many_heads, "MatMulNBits": _product_of_few_bits,
    "QuantizeLinear": _same("QuantizeLinear", None), "DequantizeLinear": _same("DequantizeLinear", FLOAT),
}  # fmt: skip


def _apply(model: ir.Model) -> int:
    for node in list(all_nodes(model.graph)):
        if node.domain == DOMAIN and raise_to(model, _SINCE.get(node.op_type, 0)):
            return 1 + _apply(model)  # other nodes now
    return rewrite_all(model, _REWRITES)


contributed_operators = Pass(
    "contributed operators in standard ones",
    _apply,
    ensures="no operator of ONNX Runtime's own domain that the standard can spell out",
)

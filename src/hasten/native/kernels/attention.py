"""Attention (opset 23 on) and RotaryEmbedding, put together from products, softmax and element-wise loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import ACC, Expr, call, const, load
from hasten.native.kernels.arithmetic import apply, cast, compute
from hasten.native.kernels.attend import Attend, worth
from hasten.native.kernels.attend_chain import scores, squeezed, with_views
from hasten.native.kernels.gather import along
from hasten.native.kernels.matmul import product
from hasten.native.kernels.movement import joined
from hasten.native.kernels.reduce import reduce
from hasten.native.kernels.rows import softmax
from hasten.native.program import View

if TYPE_CHECKING:
    from hasten.native.lower import Lowering

__all__ = ["LOWER"]


@dataclass(frozen=True)
class _Scores:
    """What is added to or cut from the scores.

    Shapes:  scores (B, KV heads, query heads per KV head, Sq, Skv)
    """

    shape: tuple[int, ...]
    mask: View | None
    lengths: View | None
    """Keys that are there, a number a batch row; those behind are padding."""
    past: int
    causal: bool
    left: int
    right: int

    @property
    def cuts(self) -> bool:
        """True where a query may be left with no key at all."""
        return self.mask is not None or self.lengths is not None or self.left >= 0 or self.right >= 0

    def allowed(self, low: Lowering) -> Expr | None:
        """Which keys each query may see by position; None: all."""
        rows, keys = self.shape[-2:]
        if self.lengths is None:
            return self._fixed(low, rows, keys)
        j = load(low.data(np.arange(keys)).broadcast(self.shape))
        n = load(low.reshape(self.lengths, (self.shape[0], 1, 1, 1, 1)).broadcast(self.shape))
        n = n if n.dtype == "int64" else call("cast", n, dtype="int64")
        found = call("lt", j, n, dtype="bool")
        i = load(low.data(np.arange(rows).reshape(rows, 1) - rows).broadcast(self.shape))
        at = call("add", i, n, dtype="int64")
        if self.causal:
            found = call("and", found, call("le", j, at, dtype="bool"), dtype="bool")
        for bound, sign, op in ((self.left, "sub", "ge"), (self.right, "add", "le")):
            if bound >= 0:
                edge = call(sign, at, const(bound, "int64"), dtype="int64")
                found = call("and", found, call(op, j, edge, dtype="bool"), dtype="bool")
        return found

    def _fixed(self, low: Lowering, rows: int, keys: int) -> Expr | None:
        at, j = np.arange(rows)[:, None] + self.past, np.arange(keys)
        seen = np.ones((rows, keys), bool)
        if self.causal:
            seen &= j <= at
        if self.left >= 0:
            seen &= j >= at - self.left
        if self.right >= 0:
            seen &= j <= at + self.right
        return None if seen.all() else load(low.data(seen).broadcast(self.shape))


def _heads(low: Lowering, view: View, count: int) -> View:
    """(B, S, H · D) as (B, H, S, D); four dimensions stay."""
    if view.rank == 4:
        return view
    batch, steps, wide = view.shape
    return low.reshape(view, (batch, steps, count, wide // count)).transpose((0, 2, 1, 3))


def _sides(low: Lowering, node: ir.Node, given: list[View | None]) -> tuple[View, View, View]:
    """Queries, and keys and values behind those of the past. Shapes: (B, heads, rows, depth) each"""
    q, k, v, _, past_k, past_v, _ = given
    assert q is not None
    assert k is not None
    assert v is not None
    q = _heads(low, q, node.attributes.get_int("q_num_heads", 1))
    k, v = (_heads(low, x, node.attributes.get_int("kv_num_heads", 1)) for x in (k, v))
    if past_k is not None and past_v is not None:
        k, v = joined(low, [past_k, k], 2), joined(low, [past_v, v], 2)
    return q, k, v


def _attention(low: Lowering, node: ir.Node) -> None:
    attributes = node.attributes
    given = [
        low.view(v) if v is not None and low.has(v) else None for v in (*node.inputs, *(None,) * (7 - len(node.inputs)))
    ]
    flat = given[0] is not None and given[0].rank == 3
    mask, past_k, past_v, lengths = given[3:]
    past = 0 if past_k is None or past_v is None else past_k.shape[2]
    q, k, v = _sides(low, node, given)
    batch, heads, rows, depth = q.shape
    kv, keys = k.shape[1:3]
    shape = (batch, kv, heads // kv, rows, keys)
    if heads % kv:
        raise UnsupportedOpError(f"op Attention (node '{node.name}') of {heads} heads over {kv} has no native kernel")
    if mask is not None:
        mask = _grouped(low, mask, shape, batch, heads)
    rule = _Scores(
        shape, mask, lengths, past, bool(attributes.get_int("is_causal", 0)),
        attributes.get_int("left_window_size", -1), attributes.get_int("right_window_size", -1),
    )  # fmt: skip
    scale = attributes.get_float("scale", 1.0 / np.sqrt(depth))
    left = low.reshape(q, (batch, kv, heads // kv, rows, depth))
    right = low.reshape(k, (batch, kv, 1, keys, depth)).transpose((0, 1, 2, 4, 3))
    wide = low.reshape(v, (batch, kv, 1, keys, v.shape[-1]))
    asked = any(o.name and (o.uses() or o.is_graph_output()) for o in node.outputs[3:])
    found = None if asked else _at_once(low, node, (left, right, wide), rule, scale)
    if found is None:
        stages = _scores(low, node, (left, right), rule, scale)
        found = product(low, stages[3], wide)
        stage = low.reshape(stages[attributes.get_int("qk_matmul_output_mode", 0)], (batch, heads, rows, keys))
        if len(node.outputs) > 3 and node.outputs[3].name:
            low.set(node.outputs[3], stage)
    y = low.reshape(found, (batch, heads, rows, v.shape[-1]))
    if flat:
        y = low.reshape(y.transpose((0, 2, 1, 3)), (batch, rows, heads * v.shape[-1]))
    for output, view in zip(node.outputs, (y, k, v), strict=False):
        if output.name:
            low.set(output, view)


def _grouped(low: Lowering, mask: View, shape: tuple[int, ...], batch: int, heads: int) -> View:
    """The mask as the scores lie; keys behind its end are not allowed."""
    keys = shape[-1]
    if mask.shape[-1] < keys and mask.shape[-1] != 1:
        fill = const(0, "bool") if mask.dtype == "bool" else const(-np.inf, mask.dtype)
        room = compute(low, fill, (*mask.shape[:-1], keys - mask.shape[-1]))
        mask = joined(low, [mask, room], -1)
    mask = mask.broadcast((batch, heads, *np.broadcast_shapes(mask.shape[-2:], shape[-2:])))
    parts = (*mask.shape[:1], shape[1], shape[2], *mask.shape[2:])
    return View(mask.tensor, parts, (mask.strides[0], mask.strides[1] * shape[2], *mask.strides[1:]), mask.offset)


def _at_once(
    low: Lowering, node: ir.Node, operands: tuple[View, View, View], rule: _Scores, scale: float
) -> View | None:
    """All in one step, where that pays and all is float32."""
    sizes = (operands[0].shape[-1], operands[2].shape[-1])
    if {x.dtype for x in operands} != {"float32"} or not worth(rule.shape[-2:], sizes, low.isa.lanes):
        return None
    scaled = call("mul", ACC, const(scale))
    cap = node.attributes.get_float("softcap", 0.0)
    taken = scores(with_views(_combined(low, rule, _capped(scaled, cap) if cap else scaled, "float32"), squeezed))
    if taken is None:
        return None
    batch = rule.shape[:-2]
    y = low.new((*batch, rule.shape[-2], sizes[1]))
    q, k, v = (squeezed(x.broadcast((*batch, *x.shape[-2:]))) for x in operands)
    for step in taken.steps:
        low.add(step)
    low.add(Attend(q, k, v, squeezed(y), taken.scale, taken.expr, "masked" if rule.cuts else "nan"))
    return y


def _capped(expr: Expr, cap: float) -> Expr:
    return call("mul", call("tanh", call("mul", expr, const(1.0 / cap))), const(cap))


def _combined(low: Lowering, rule: _Scores, expr: Expr, own: str) -> Expr:
    """Scores with all that is added to them or cut from them."""
    if rule.mask is not None and rule.mask.dtype != "bool":
        expr = call("add", expr, load(cast(low, rule.mask, own)), dtype=own)
    tests = [] if rule.mask is None or rule.mask.dtype != "bool" else [load(rule.mask)]
    seen = rule.allowed(low)
    for test in [*tests, *([] if seen is None else [seen])]:
        expr = call("where", test, expr, const(-np.inf, own), dtype=own)
    return expr


def _scores(low: Lowering, node: ir.Node, pair: tuple[View, View], rule: _Scores, scale: float) -> list[View]:
    """Scores raw, capped, masked, and their softmax."""
    (left, right), own = pair, pair[0].dtype
    raw = apply(low, "mul", product(low, left, right), scale)
    capped, cap = raw, node.attributes.get_float("softcap", 0.0)
    if cap:
        capped = apply(low, "mul", apply(low, "tanh", apply(low, "mul", raw, 1.0 / cap)), cap)
    expr = _combined(low, rule, load(capped), own)
    masked = capped if expr.op == "load" else compute(low, expr, rule.shape)
    weights = softmax(low, masked, 4)
    if rule.cuts:
        top = load(reduce(low, masked, [4], "max").broadcast(rule.shape))
        none, zero = call("eq", top, const(-np.inf, own), dtype="bool"), const(0.0, own)
        weights = compute(low, call("where", none, zero, load(weights), dtype=own), rule.shape)
    return [raw, capped, masked, weights]


def _rotary(low: Lowering, node: ir.Node) -> None:
    """Pairs of numbers turned by the angle of their position."""
    x, cosines, sines = (low.view(v) for v in node.inputs[:3])
    attributes = node.attributes
    flat = x.rank == 3
    heads = attributes.get_int("num_heads", 0)
    # (B, S, H · D) → (B, S, H, D); four dimensions come as (B, H, S, D)
    shaped = low.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)) if flat else x.transpose((0, 2, 1, 3))
    turned = attributes.get_int("rotary_embedding_dim", 0) or shaped.shape[-1]
    half = turned // 2
    parts = []
    for table in (cosines, sines):
        if len(node.inputs) > 3 and low.has(node.inputs[3]):
            positions = low.view(node.inputs[3])
            index = View(positions.tensor, (*positions.shape, half), (*positions.strides, 0), positions.offset)
            wide = View(table.tensor, (index.shape[0], table.shape[0], half), (0, *table.strides), table.offset)
            table = along(low, wide, index, 1)
        parts.append(low.reshape(table, (*table.shape[:2], 1, half)))
    cos, sin = parts
    body = shaped.slice(3, 0, turned)
    interleaved = bool(attributes.get_int("interleaved", 0))
    one, two = (body.slice(3, i, half, 2) if interleaved else body.slice(3, i * half, half) for i in (0, 1))
    y = low.new(shaped.shape, x.dtype)
    target = y.slice(3, 0, turned)
    for i, (a, b, op) in enumerate(((one, two, "sub"), (two, one, "add"))):
        found = apply(low, op, apply(low, "mul", a, cos), apply(low, "mul", b, sin))
        low.copy(found, target.slice(3, i, half, 2) if interleaved else target.slice(3, i * half, half))
    if turned < shaped.shape[-1]:
        low.copy(shaped.slice(3, turned, shaped.shape[-1] - turned), y.slice(3, turned, shaped.shape[-1] - turned))
    low.set(node.outputs[0], low.reshape(y, x.shape) if flat else y.transpose((0, 2, 1, 3)))


LOWER: Mapping[str, Any] = {"Attention": _attention, "RotaryEmbedding": _rotary}

"""Matrix products: Dense, EinsumDense, Embedding, the Dot layer, and ``keras.ops`` matmul, einsum, dot, tensordot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hasten.sources.keras.activations import activate
from hasten.sources.keras.build import Tensor, Unsupported, broadcast
from hasten.sources.keras.scope import Call, Converter, Scope, weight
from hasten.sources.keras.shaping import take

__all__ = ["LAYERS", "OPERATIONS", "einsum"]


def _dense(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, call.x
    y = g.matmul(x, g.constant(weight(layer.kernel), x.dtype, "kernel"))
    if layer.bias is not None:
        y = g.add(y, g.constant(weight(layer.bias), x.dtype, "bias"))
    return activate(g, y, layer.activation)


def _einsum_dense(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, call.x
    y = einsum(g, layer.equation, [x, g.constant(weight(layer.kernel), x.dtype, "kernel")])
    if layer.bias is not None:
        y = g.add(y, g.constant(weight(layer.bias), x.dtype, "bias"))
    return activate(g, y, layer.activation)


def _embedding(g: Scope, call: Call) -> Tensor:
    x = call.x if call.x.dtype in ("int32", "int64") else g.cast(call.x, "int32")
    table = g.constant(weight(call.layer.embeddings), call.dtype, "embeddings")
    return take(g, table, x, 0)


def _dot_layer(g: Scope, call: Call) -> Tensor:
    a, b = call.first
    layer = call.layer
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else list(layer.axes)
    axes = [axis % t.rank for axis, t in zip(axes, (a, b), strict=True)]
    if layer.normalize:
        a, b = (_unit(g, t, axis) for t, axis in zip((a, b), axes, strict=True))
    letters = "abcdefghijklmnopqrstuvwxy"
    left = "z" + letters[: a.rank - 1]
    right = "z" + letters[a.rank : a.rank + b.rank - 1]
    right = right[: axes[1]] + left[axes[0]] + right[axes[1] + 1 :]
    rest = left[: axes[0]] + left[axes[0] + 1 :] + "".join(c for i, c in enumerate(right) if i and i != axes[1])
    return g.reshape(einsum(g, f"{left},{right}->{rest}", [a, b]), call.shape)


def _unit(g: Scope, x: Tensor, axis: int) -> Tensor:
    power = g.reduce("ReduceSum", g.mul(x, x), [axis], keepdims=True)
    return g.div(x, g.unary("Sqrt", g.binary("Max", power, 1e-12)))


def einsum(g: Scope, equation: str, operands: Sequence[Tensor]) -> Tensor:
    """An einsum; as a plain matrix product where it is one, which every engine does best."""
    sides, target = _spelled(equation, operands)
    dims = {c: t.shape[i] for side, t in zip(sides, operands, strict=True) for i, c in enumerate(side)}
    for side, t in zip(sides, operands, strict=True):
        dims.update({c: t.shape[i] for i, c in enumerate(side) if t.shape[i] is None or dims[c] == 1})
    if len(operands) == 2 and (found := _as_matmul(g, sides, target, operands)) is not None:
        return found
    written = ",".join(sides) + "->" + target
    return g.op("Einsum", operands, tuple(dims[c] for c in target), attributes={"equation": written})


def _spelled(equation: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, ellipses written out."""
    left, _, target = equation.replace(" ", "").partition("->")
    sides = left.split(",")
    if "->" not in equation:
        every = "".join(sides)
        target = ("..." if "..." in every else "") + "".join(
            sorted(c for c in set(every) if c.isalpha() and every.count(c) == 1)
        )
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    widest = max((t.rank - len(s) + 3 for s, t in zip(sides, operands, strict=True) if "..." in s), default=0)
    extra = "".join(spare[:widest])
    sides = [
        s.replace("...", extra[widest - (t.rank - len(s) + 3) :] if t.rank > len(s) - 3 else "") if "..." in s else s
        for s, t in zip(sides, operands, strict=True)
    ]
    return sides, target.replace("...", extra)


def _as_matmul(g: Scope, sides: list[str], target: str, operands: Sequence[Tensor]) -> Tensor | None:
    (left, right), (a, b) = sides, operands
    if len(set(left)) < len(left) or len(set(right)) < len(right):
        return None
    summed = [c for c in left if c in right and c not in target]
    stacked = [c for c in target if c in left and c in right]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    if not summed or any(c not in target for c in rows + columns):
        return None
    if any(a.shape[left.index(c)] != b.shape[right.index(c)] for c in summed + stacked):
        return None
    a, b = (g.transpose(a, [left.index(c) for c in stacked + rows + summed]),
            g.transpose(b, [right.index(c) for c in stacked + summed + columns]))  # fmt: skip
    depth = len(stacked)
    heads, tails = a.shape[depth : depth + len(rows)], b.shape[depth + len(summed) :]
    inner = _product(a.shape[depth + len(rows) :])
    if inner is None or (stacked and (None in heads or None in tails)) or None in tails:
        return None
    width = _product(tails)
    lead = a.shape[:depth]
    merged = heads if not stacked and len(summed) == 1 else (_product(heads),)
    y = g.matmul(g.reshape(a, (*lead, *merged, inner)), g.reshape(b, (*lead, inner, width)))
    y = g.reshape(y, (*lead, *heads, *tails))
    have = stacked + rows + columns
    return g.transpose(y, [have.index(c) for c in target])


def _product(dims: Sequence[int | None]) -> int | None:
    total = 1
    for d in dims:
        if d is None:
            return None
        total *= d
    return total


def _matmul(g: Scope, call: Call) -> Tensor:
    return g.matmul(g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype))


def _dot(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    if not a.rank or not b.rank:
        return g.mul(a, b)
    return g.matmul(a, b) if b.rank <= 2 else _contract(g, a, b, [a.rank - 1], [b.rank - 2])


def _tensordot(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    axes = call.setting("axes")
    if isinstance(axes, int):
        return _contract(g, a, b, list(range(a.rank - axes, a.rank)), list(range(axes)))
    pair = [[x] if isinstance(x, int) else list(x) for x in axes]
    return _contract(g, a, b, [x % a.rank for x in pair[0]], [x % b.rank for x in pair[1]])


def _contract(g: Scope, a: Tensor, b: Tensor, left: list[int], right: list[int]) -> Tensor:
    letters = "abcdefghijklmnopqrstuvwxyz"
    names_a = list(letters[: a.rank])
    names_b = list(letters[a.rank : a.rank + b.rank])
    for i, j in zip(left, right, strict=True):
        names_b[j] = names_a[i]
    target = [c for i, c in enumerate(names_a) if i not in left] + [c for j, c in enumerate(names_b) if j not in right]
    return einsum(g, f"{''.join(names_a)},{''.join(names_b)}->{''.join(target)}", [a, b])


def _einsum_op(g: Scope, call: Call) -> Tensor:
    given: Any = call["operands"]
    return einsum(g, call.setting("subscripts"), [g.tensor(t, call.dtype) for t in given])


def _outer(g: Scope, call: Call) -> Tensor:
    a, b = g.tensor(call["x1"], call.dtype), g.tensor(call["x2"], call.dtype)
    if a.rank != 1 or b.rank != 1:
        raise Unsupported("an outer product of flattened tensors")
    x, y = g.unsqueeze(a, [1]), g.unsqueeze(b, [0])
    return g.op("Mul", [x, y], broadcast(x.shape, y.shape))


LAYERS: dict[str, Converter] = {
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Embedding": _embedding,
    "Dot": _dot_layer,
}

OPERATIONS: dict[str, Converter] = {
    "Matmul": _matmul,
    "Dot": _dot,
    "Tensordot": _tensordot,
    "Einsum": _einsum_op,
    "Outer": _outer,
}

"""Element-wise arithmetic as a small expression graph, and its C text, one vector or one value at a time.

``kernels.elementwise`` evaluates an expression over a whole array; every other family applies one to its results while
they are still in registers (its *epilogue*). Shared sub-expressions are emitted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hasten.native.program import View

if TYPE_CHECKING:
    from hasten.native.emit import Emitter

__all__ = [
    "ACC", "VECTOR", "Expr", "call", "const", "depth", "emit_vector", "is_vector", "load", "load_name", "loads",
    "substitute", "unshared", "widened",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Expr:
    """One operation: ``load`` of a view, ``const``, ``acc`` (the kernel's own result), or a function of ``args``."""

    op: str
    args: tuple[Expr, ...] = ()
    view: View | None = None
    value: float = 0.0
    dtype: str = "float32"
    """Of the result. All float32: vectors (``VECTOR``); anything else: one value at a time (``kernels.typed``)."""


ACC = Expr("acc")


def load(view: View) -> Expr:
    """The view's element at the current position."""
    return Expr("load", view=view, dtype=view.dtype)


def widened(view: View) -> Expr:
    """The view's element, of int8 or uint8, as a float32."""
    return Expr("load", view=view)


def load_name(view: View) -> str:
    """The vector function that loads elements of the view as float32; ``_n`` behind it where they are few."""
    return {"int8": "v_load_i8", "uint8": "v_load_u8"}.get(view.dtype, "v_load")


def const(value: float, dtype: str = "float32") -> Expr:
    """A number; integers of 64 bits keep all their digits."""
    return Expr("const", value=float(value) if dtype.startswith(("float", "bfloat")) else int(value), dtype=dtype)


def call(op: str, *args: Expr, dtype: str = "float32") -> Expr:
    """A function of ``VECTOR``, or of ``kernels.typed`` where a dtype is not float32, applied to expressions."""
    return Expr(op, args, dtype=dtype)


def depth(expr: Expr) -> int:
    """Operations one within another, on the longest way down."""
    known: dict[int, int] = {}

    def walk(e: Expr) -> int:
        if id(e) not in known:
            known[id(e)] = 1 + max(map(walk, e.args), default=0)
        return known[id(e)]

    return walk(expr)


def unshared(expr: Expr) -> int:
    """Operations, one that several read counted for each: who walks an expression may meet it as often."""
    known: dict[int, int] = {}

    def walk(e: Expr) -> int:
        if id(e) not in known:
            known[id(e)] = 1 + sum(map(walk, e.args))
        return known[id(e)]

    return walk(expr)


def is_vector(expr: Expr) -> bool:
    """True where every value below is float32 and every function has a vector form."""
    done: set[int] = set()

    def walk(e: Expr) -> bool:
        if id(e) in done:
            return True
        done.add(id(e))
        known = e.op in VECTOR or e.op in ("load", "const", "acc")
        return known and e.dtype == "float32" and all(map(walk, e.args))

    return walk(expr)


def loads(expr: Expr) -> Iterator[Expr]:
    """Every distinct ``load`` below, in order of first use."""
    seen: set[int] = set()

    def walk(e: Expr) -> Iterator[Expr]:
        if id(e) in seen:
            return
        seen.add(id(e))
        if e.op == "load":
            yield e
        for a in e.args:
            yield from walk(a)

    yield from walk(expr)


def substitute(expr: Expr, swap: Mapping[int, Expr]) -> Expr:
    """The expression with the nodes of these ids replaced; sharing is kept."""
    done: dict[int, Expr] = {}

    def walk(e: Expr) -> Expr:
        if id(e) in swap:
            return swap[id(e)]
        if id(e) not in done:
            args = tuple(map(walk, e.args))
            done[id(e)] = e if all(a is b for a, b in zip(args, e.args, strict=True)) else replace(e, args=args)
        return done[id(e)]

    return walk(expr)


# op → (C text over vectors, helper functions it needs)
VECTOR: dict[str, tuple[str, tuple[str, ...]]] = {
    "add": ("({0} + {1})", ()),
    "sub": ("({0} - {1})", ()),
    "mul": ("({0} * {1})", ()),
    "div": ("({0} / {1})", ()),
    "neg": ("(-{0})", ()),
    "square": ("({0} * {0})", ()),
    "relu": ("v_relu({0})", ("v_relu",)),
    "clip_low": ("v_max({1}, {0})", ("v_max",)),
    "clip_high": ("v_min({1}, {0})", ("v_min",)),
    "sigmoid": ("v_sigmoid({0})", ("v_sigmoid",)),
    "tanh": ("v_tanh({0})", ("v_tanh",)),
    "exp": ("v_exp({0})", ("v_exp",)),
    "abs": ("v_abs({0})", ("v_abs",)),
    "sqrt": ("v_sqrt({0})", ("v_sqrt",)),
    "floor": ("v_floor({0})", ("v_floor",)),
    "ceil": ("v_ceil({0})", ("v_ceil",)),
    "round": ("v_round({0})", ("v_round",)),
}
for _name in [
    "maximum",
    "minimum",
    "sign",
    "log",
    "log1p",
    "expm1",
    "erf",
    "softplus",
    "softsign",
    "mish",
    "silu",
    "gelu",
    "gelu_tanh",
    "hard_swish",
    "reciprocal",
    "rsqrt",
    "pow",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "isnan",
    "isinf",
    "fmod",
]:
    VECTOR[_name] = (
        f"v_{_name}({{0}}, {{1}})" if _name in ("maximum", "minimum", "pow", "fmod") else f"v_{_name}({{0}})",
        (f"v_{_name}",),
    )
for _name in ("elu", "leaky_relu", "celu", "thresholded_relu"):
    VECTOR[_name] = (f"v_{_name}({{0}}, {{1}})", (f"v_{_name}",))
for _name in ("selu", "hard_sigmoid", "prelu"):
    VECTOR[_name] = {
        "selu": ("v_selu({0}, {1}, {2})", ("v_selu",)),
        "hard_sigmoid": ("v_hard_sigmoid({0}, {1}, {2})", ("v_hard_sigmoid",)),
        "prelu": ("v_leaky_relu({0}, {1})", ("v_leaky_relu",)),
    }[_name]
for _name, _sign in {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}.items():
    VECTOR[f"select_{_name}"] = (f"v_select({{0}} {_sign} {{1}}, {{2}}, {{3}})", ("v_select",))


def emit_vector(
    expr: Expr, out: Emitter, leaf: Callable[[Expr], str], acc: str = "", indent: str = "    "
) -> tuple[list[str], str]:
    """Statements and the C expression of the result, over vectors ``vf``.

    ``leaf`` gives the C expression of a ``load``; ``acc`` that of the kernel's own result.
    """
    lines: list[str] = []
    names: dict[int, str] = {}
    uses: dict[int, int] = {}

    def count(e: Expr) -> None:
        uses[id(e)] = uses.get(id(e), 0) + 1
        if uses[id(e)] == 1:
            for a in e.args:
                count(a)

    def text(e: Expr) -> str:
        if e.op == "acc":
            return acc
        if e.op == "const":
            out.need("v_set1")
            return f"v_set1({out.number(e.value)})"
        if id(e) in names:
            return names[id(e)]
        if e.op == "load":
            found = leaf(e)
        else:
            template, needs = VECTOR[e.op]
            out.need(*needs)
            found = template.format(*map(text, e.args))
        # Templates may repeat an argument and names may be shared: give every computed value one name.
        name = out.fresh("v")
        lines.append(f"{indent}const vf {name} = {found};")
        names[id(e)] = name
        return name

    count(expr)
    return lines, text(expr)

"""LSTM, GRU and RNN → one matrix product over the whole sequence, then one step that walks through time.

x·W does not depend on the state, so it is one ``Dense`` over all time steps with both biases summed. What remains per step
is h·R: gates are interleaved per vector of units, ``[unit block][hidden][vectors][gate][lanes]``, so that all gates of some
units stand in registers when the activations and the state update begin.

Source: ONNX operators LSTM-22, GRU-22 and RNN-22 (gate orders iofc, zrh; peepholes, clip, input_forget,
linear_before_reset).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hasten.errors import UnsupportedOpError
from hasten.native.expr import VECTOR
from hasten.native.kernels.dense import Dense
from hasten.native.program import Step, View
from hasten.types import Array

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.lower import Lowering

__all__ = ["LOWER", "Recurrent"]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@dataclass(frozen=True)
class Activation:
    """A cell's activation by its ONNX name, with its numbers."""

    name: str
    alpha: float
    beta: float

    def text(self, x: str, out: Emitter) -> str:
        """C over one vector."""
        name, numbers = _ACTIVATIONS[self.name]
        if self.name == "Affine":
            return f"({out.number(self.alpha)} * {x} + {out.number(self.beta)})"
        if self.name == "ScaledTanh":
            out.need("v_tanh")
            return f"({out.number(self.alpha)} * v_tanh({out.number(self.beta)} * {x}))"
        template, needs = VECTOR[name]
        out.need("v_set1", *needs)
        args = [f"v_set1({out.number(v)})" for v in (self.alpha, self.beta)[:numbers]]
        return template.format(x, *args)


# ONNX name → (VECTOR name, how many of alpha and beta it takes); defaults as the operator defines them.
_ACTIVATIONS: Mapping[str, tuple[str, int]] = {
    "Relu": ("relu", 0), "Tanh": ("tanh", 0), "Sigmoid": ("sigmoid", 0), "Affine": ("", 2), "LeakyRelu": ("leaky_relu", 1),
    "ThresholdedRelu": ("thresholded_relu", 1), "ScaledTanh": ("", 2), "HardSigmoid": ("hard_sigmoid", 2),
    "Elu": ("elu", 1), "Softsign": ("softsign", 0), "Softplus": ("softplus", 0),
}  # fmt: skip
_NUMBERS = {"LeakyRelu": (0.01, 0.0), "ThresholdedRelu": (1.0, 0.0), "HardSigmoid": (0.2, 0.5), "Elu": (1.0, 0.0),
            "Affine": (1.0, 0.0), "ScaledTanh": (1.0, 1.0)}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one direction computes, apart from its weights."""

    kind: str
    activations: tuple[Activation, ...]
    clip: float
    coupled: bool
    """LSTM: the forget gate is one minus the input gate."""
    reset_after: bool
    """GRU: the reset gate is applied to h·R + bias, not to h."""
    reverse: bool

    @property
    def is_standard(self) -> bool:
        """True for the LSTM that every framework makes by default."""
        names = tuple(a.name for a in self.activations)
        return self.kind == "LSTM" and names == _DEFAULTS["LSTM"] and not self.clip and not self.coupled


@dataclass(eq=False)
class Recurrent(Step):
    """Walks one direction of a recurrent layer through time.

    Shapes:  gates (T, B, G · H padded), packed gate order · y (T, B, H) · last_h, last_c, first_h, first_c (B, H)
             hidden (H, G, H) [from, gate, to] · peephole (3, H) i o f · state_bias (H,) · lengths (B,) int32
    """

    cell: Cell
    gates: View
    hidden: Array
    units: int
    scratch: View
    y: View | None
    last_h: View | None
    last_c: View | None
    first_h: View | None
    first_c: View | None
    peephole: Array | None = None
    state_bias: Array | None = None
    lengths: View | None = None
    READS = ("gates", "first_h", "first_c", "lengths")
    WRITES = ("scratch", "y", "last_h", "last_c")

    @property
    def kernel(self) -> str:
        """lstm, gru or rnn."""
        return self.cell.kind.lower()

    @property
    def title(self) -> str:
        """Sizes and direction."""
        steps, batch, _ = self.gates.shape
        back = ", backwards" if self.cell.reverse else ""
        return f"{steps} steps x {batch} rows, {self.units} units{back}"

    def macs(self) -> int:
        """T · B · G · H²."""
        return self.gates.shape[0] * self.gates.shape[1] * int(np.prod(self.hidden.shape))

    def emit(self, out: Emitter) -> None:
        """One inlined function for a time step, one that walks."""
        _Writer(self, out).write()


@dataclass
class _Writer:
    """The C of one ``Recurrent``."""

    step: Recurrent
    out: Emitter

    def __post_init__(self) -> None:
        self.count = GATES[self.step.cell.kind]
        self.lanes = self.out.lanes
        self.padded = _padded(self.step.units, self.lanes)
        vectors = self.padded // self.lanes
        room = (self.out.isa.registers - 6) // self.count  # accumulators that leave registers for weights and h
        self.block = max(b for b in range(1, min(4, max(room, 1)) + 1) if vectors % b == 0)

    def write(self) -> None:
        step, out = self.step, self.out
        units, padded, lanes = step.units, self.padded, self.lanes
        out.need("v_load", "v_store", "v_set1")
        steps, batch, columns = step.gates.shape
        split = (
            out.splits(step.units * step.units * self.count)
            and step.cell.kind != "GRU"
            and self.padded // (self.block * lanes) >= out.threads
        )
        blocks = padded // (self.block * lanes)
        weights = out.constant(_pack_hidden(step.hidden, self.count, padded, self.block, lanes))
        name = out.fresh(f"{step.kernel}_step")
        extra = (
            [("const float *restrict p", out.constant(_pad(step.peephole, padded)))]
            if step.peephole is not None
            else []
        )
        if step.state_bias is not None:
            extra.append(("const float *restrict q", out.constant(_pad(step.state_bias[None], padded))))
        names = "".join(", " + d.split("restrict ")[1] for d, _ in extra)
        cell_args = "const float *restrict g, const float *restrict w, const float *restrict h, float *restrict n"
        cell_args += (
            ", float *restrict c"
            + "".join(f", {d}" for d, _ in extra)
            + ", const int depth, const int first, const int last, const int back"
        )
        out.inline(
            f"/* one time step: gates g, state h (and c) -> state n (and c) */\n"
            f"static inline __attribute__((always_inline)) void {name}({cell_args}) {{\n"
            + "\n".join(self._step_body())
            + "\n}\n"
        )
        signature = [("const float *g", out.pointer(step.gates)), ("const float *w", weights), *extra]
        signature.append(("float *state", out.pointer(step.scratch)))
        views = {
            "y": step.y,
            "last_h": step.last_h,
            "last_c": step.last_c,
            "first_h": step.first_h,
            "first_c": step.first_c,
        }
        for label, view in views.items():
            if view is not None:
                const = "const " if label.startswith("first") else ""
                signature.append((f"{const}float *{label}", out.pointer(view)))
        if step.lengths is not None:
            signature.append(("const int32_t *lengths", out.pointer(step.lengths)))
        body = []
        if split:
            body.append(f"    const int first = {blocks} * part / parts, last = {blocks} * (part + 1) / parts;")
            body.append(
                f"    const int from = first * {self.block * lanes}, to = last * {self.block * lanes} < {units} ? last * {self.block * lanes} : {units};"
            )
        self.range = ("first", "last") if split else ("0", str(blocks))
        self.split = split
        body.append(f"    for (int b = 0; b < {batch}; b++) {{")
        body.append(f"        float *h = state, *n = state + {padded}, *c = state + {2 * padded};")
        for target, view, label in (("h", step.first_h, "first_h"), ("c", step.first_c, "first_c")):
            # With a team each part sets the states of its own units; all meet before anybody reads them.
            low, high = (
                (f"first * {self.block * lanes}", f"last * {self.block * lanes}") if split else ("0", str(padded))
            )
            if view is not None:
                high = "to" if split else str(units)
                body.append(
                    f"        for (int i = {low}; i < {high}; i++) {target}[i] = {label}[b * {view.strides[0]} + i];"
                )
            else:
                body.append(f"        for (int i = {low}; i < {high}; i++) {target}[i] = 0.0f;")
        if split:
            body.append("        meet(flags, part, parts);")
        ticks = str(steps)
        if step.lengths is not None:
            body.append(f"        const int ticks = lengths[b] < {steps} ? lengths[b] : {steps};")
            ticks = "ticks"
        start = 0
        call = f"{name}(g + ((long)t * {batch} + b) * {columns}, w, h, n, c{names}, "
        if step.first_h is None:
            body.append("        { /* the first state is zero: nothing to multiply */")
            body += self._tick("0", f"{call}0, {self.range[0]}, {self.range[1]}, 0);", ticks, "            ")
            body.append("        }")
            start = 1
        body.append(f"        for (int s = {start}; s < {ticks}; s++) {{")
        body += self._tick("s", f"{call}{units}, {self.range[0]}, {self.range[1]}, s & 1);", ticks, "            ")
        body.append("        }")
        body += self._tail(ticks)
        body.append("    }")
        if split:
            body.append("    (void)from;")
        out.function(step.kernel, step.title, signature, "\n".join(body), split=split)

    def _tick(self, s: str, call: str, ticks: str, indent: str) -> list[str]:
        """One time step: compute, emit y, swap the states."""
        step = self.step
        when = f"{ticks} - 1 - {s}" if step.cell.reverse else s
        lines = [f"{indent}const int t = {when};"]
        if step.lengths is not None and s == "0":
            lines.append(f"{indent}if (ticks > 0) {{")
        lines.append(f"{indent}{call}")
        if step.y is not None:
            at = f"y + (long)t * {step.y.strides[0]} + b * {step.y.strides[1]}"
            if self.split:
                lines.append(
                    f"{indent}if (to > from) __builtin_memcpy({at} + from, n + from, 4 * (unsigned long)(to - from));"
                )
            else:
                lines.append(f"{indent}__builtin_memcpy({at}, n, {4 * step.units});")
        if self.split:
            lines.append(f"{indent}meet(flags, part, parts);")
        lines.append(f"{indent}{{ float *old = h; h = n; n = old; }}")
        if step.lengths is not None and s == "0":
            lines.append(f"{indent}}}")
        return lines

    def _tail(self, ticks: str) -> list[str]:
        step, units = self.step, self.step.units
        lines = []
        if step.lengths is not None and step.y is not None:
            at = f"y + (long)t * {step.y.strides[0]} + b * {step.y.strides[1]}"
            lines.append(
                f"        for (int t = {ticks}; t < {step.gates.shape[0]}; t++) __builtin_memset({at}, 0, {4 * units});"
            )
        for label, view, source in (("last_h", step.last_h, "h"), ("last_c", step.last_c, "c")):
            if view is not None:
                only = "if (part == 0) " if self.split else ""
                lines.append(f"        {only}__builtin_memcpy({label} + b * {view.strides[0]}, {source}, {4 * units});")
        return lines

    def _step_body(self) -> list[str]:
        if self.step.cell.kind == "GRU" and not self.step.cell.reset_after:
            return self._reset_before()
        count, block = self.count, self.block
        width, padded, units = count * block, self.padded, self.step.units
        # Every other step walks the weights backwards: those used last are still in the nearest cache.
        lines = ["    for (int i = first; i < last; i++) {"]
        lines.append(f"        const int u = (back ? first + last - 1 - i : i) * {block} * VL;")
        lines.append(f"        const float *x = g + u * {count};")
        lines.append(f"        vf a[{width}];")
        kept = (
            self.step.cell.kind == "GRU"
        )  # the candidate's h·R must stay apart from x·W: the reset gate scales it alone
        if kept:
            lines.append(f"        for (int j = 0; j < {block}; j++) {{")
            lines.append(f"            a[j * 3] = v_load(x + j * 3 * VL);")
            lines.append(f"            a[j * 3 + 1] = v_load(x + (j * 3 + 1) * VL);")
            lines.append(f"            a[j * 3 + 2] = v_load(q + u + j * VL);")
            lines.append("        }")
        else:
            lines.append(f"        for (int j = 0; j < {width}; j++) a[j] = v_load(x + j * VL);")
        lines.append(f"        const float *r = w + (long)u * {count * units};")
        lines.append(
            f"        const float *hk = back ? h + depth - 1 : h, *rk = back ? r + (depth - 1) * {width} * VL : r;"
        )
        lines.append(f"        const long hop = back ? -1 : 1, skip = hop * {width} * VL;")
        lines.append("        for (int k = 0; k < depth; k++, hk += hop, rk += skip) {")
        lines.append("            const vf v = v_set1(*hk);")
        lines.append(f"            for (int j = 0; j < {width}; j++) a[j] += v * v_load(rk + j * VL);")
        lines.append("        }")
        lines.append(f"        for (int j = 0; j < {block}; j++) {{")
        lines.append("            const int at = u + j * VL;")
        lines += [f"            {line}" for line in self._cell()]
        lines.append("        }")
        lines.append("    }")
        if self.step.cell.kind != "LSTM":
            lines.append("    (void)c;")
        return lines

    def _cell(self) -> list[str]:
        cell, out = self.step.cell, self.out
        clip = _clipper(cell.clip, out)
        if cell.kind == "RNN":
            return [f"v_store(n + at, {cell.activations[0].text(clip('a[j]'), out)});"]
        if cell.kind == "GRU":
            f, g = cell.activations
            return [
                f"const vf z = {f.text(clip('a[j * 3]'), out)};",
                f"const vf reset = {f.text(clip('a[j * 3 + 1]'), out)};",
                "const vf mixed = v_load(x + (j * 3 + 2) * VL) + reset * a[j * 3 + 2];",
                f"const vf fresh = {g.text(clip('mixed'), out)};",
                "v_store(n + at, fresh + z * (v_load(h + at) - fresh));",
            ]
        if cell.is_standard and self.step.peephole is None:
            out.need("v_lstm")
            return [
                "vf state = v_load(c + at);",
                "v_store(n + at, v_lstm(a + j * 4, &state));",
                "v_store(c + at, state);",
            ]
        return self._lstm(clip)

    def _lstm(self, clip: Any) -> list[str]:
        cell, out, padded = self.step.cell, self.out, self.padded
        f, g, h = cell.activations
        peep = self.step.peephole is not None
        look = [f" + v_load(p + {i * padded} + at) * " for i in range(3)] if peep else ["", "", ""]
        old, new = ("old", "state") if peep else ("", "")
        lines = ["const vf old = v_load(c + at);"]
        lines.append(f"const vf in = {f.text(clip('a[j * 4]' + look[0] + old), out)};")
        if cell.coupled:
            lines.append("const vf keep = 1.0f - in;")
        else:
            lines.append(f"const vf keep = {f.text(clip('a[j * 4 + 2]' + look[2] + old), out)};")
        lines.append(f"const vf state = keep * old + in * {g.text(clip('a[j * 4 + 3]'), out)};")
        lines.append(f"const vf gate = {f.text(clip('a[j * 4 + 1]' + look[1] + new), out)};")
        lines.append(f"v_store(n + at, gate * {h.text('state', out)});")
        lines.append("v_store(c + at, state);")
        return lines

    def _reset_before(self) -> list[str]:
        """GRU as first published: the candidate needs (reset · h)·R, so all reset gates come first."""
        padded, units, out, cell = self.padded, self.step.units, self.out, self.step.cell
        clip, (f, g) = _clipper(cell.clip, out), cell.activations
        block = self.block
        width = 3 * block
        return [
            "    (void)first, (void)last, (void)back;",
            f"    float *reset = c, *update = c + {padded};",
            f"    for (int u = 0; u < {padded}; u += {block} * VL) {{",
            f"        const float *r = w + (long)u * {3 * units}, *x = g + u * 3;",
            f"        vf a[{2 * block}];",
            f"        for (int j = 0; j < {block}; j++) {{ a[2 * j] = v_load(x + 3 * j * VL); a[2 * j + 1] = v_load(x + (3 * j + 1) * VL); }}",
            "        for (int k = 0; k < depth; k++) {",
            "            const vf hk = v_set1(h[k]);",
            f"            for (int j = 0; j < {block}; j++)",
            f"                for (int i = 0; i < 2; i++) a[2 * j + i] += hk * v_load(r + (k * {width} + j * 3 + i) * VL);",
            "        }",
            f"        for (int j = 0; j < {block}; j++) {{",
            f"            v_store(update + u + j * VL, {f.text(clip('a[2 * j]'), out)});",
            f"            v_store(reset + u + j * VL, {f.text(clip('a[2 * j + 1]'), out)} * v_load(h + u + j * VL));",
            "        }",
            "    }",
            f"    for (int u = 0; u < {padded}; u += {block} * VL) {{",
            f"        const float *r = w + (long)u * {3 * units}, *x = g + u * 3;",
            f"        vf a[{block}];",
            f"        for (int j = 0; j < {block}; j++) a[j] = v_load(x + (3 * j + 2) * VL);",
            "        for (int k = 0; k < depth; k++) {",
            "            const vf hk = v_set1(reset[k]);",
            f"            for (int j = 0; j < {block}; j++) a[j] += hk * v_load(r + (k * {width} + j * 3 + 2) * VL);",
            "        }",
            f"        for (int j = 0; j < {block}; j++) {{",
            f"            const vf fresh = {g.text(clip('a[j]'), out)};",
            "            v_store(n + u + j * VL, fresh + v_load(update + u + j * VL) * (v_load(h + u + j * VL) - fresh));",
            "        }",
            "    }",
        ]


def _clipper(clip: float, out: Emitter) -> Any:
    if not clip:
        return lambda text: f"({text})" if " " in text else text
    out.need("v_min", "v_max", "v_set1")
    bound = out.number(clip)
    return lambda text: f"v_min(v_set1({bound}), v_max(v_set1(-{bound}), {text}))"


def _padded(units: int, lanes: int) -> int:
    return -(-units // lanes) * lanes


def _pad(rows: Array, padded: int) -> Array:
    done = np.zeros((rows.shape[0], padded), np.float32)
    done[:, : rows.shape[1]] = rows
    return done


def _interleave(weight: Array, count: int, padded: int, lanes: int) -> Array:
    """Gate-major columns → ``[unit vector][gate][lane]``.

    Shapes:  weight (K, G · H) · returns (K, G · H padded)
    """
    depth = weight.shape[0]
    units = weight.shape[1] // count
    done = np.zeros((depth, count, padded), np.float32)
    done[:, :, :units] = weight.reshape(depth, count, units)
    return np.ascontiguousarray(
        done.reshape(depth, count, padded // lanes, lanes).transpose(0, 2, 1, 3).reshape(depth, -1)
    )


def _pack_hidden(hidden: Array, count: int, padded: int, block: int, lanes: int) -> Array:
    """(H, G, H) → ``[unit block][from][vector][gate][lane]``."""
    units = hidden.shape[0]
    flat = _interleave(hidden.reshape(units, -1), count, padded, lanes)
    return np.ascontiguousarray(
        flat.reshape(units, padded // (block * lanes), block * count * lanes).transpose(1, 0, 2)
    )


# ---- lowering ------------------------------------------------------------------------------------------------------


def _recurrent(low: Lowering, node: ir.Node) -> None:
    kind, attr = node.op_type, node.attributes
    inputs = [v if low.has(v) else None for v in node.inputs] + [None] * 8
    weights = [low.constant(inputs[i]) for i in (1, 2)]
    if weights[0] is None or weights[1] is None or weights[0].dtype != np.float32:
        raise UnsupportedOpError(f"op {kind} (node '{node.name}') needs constant float32 weights")
    bias = None if inputs[3] is None else low.constant(inputs[3])
    if inputs[3] is not None and bias is None:
        raise UnsupportedOpError(f"op {kind} (node '{node.name}') needs a constant bias")
    x = low.view(inputs[0])
    batch_first = attr.get_int("layout", 0) == 1
    if batch_first:
        x = x.transpose((1, 0, 2))
    x = low.contiguous(x)
    states = [low.view(inputs[i]) if inputs[i] is not None else None for i in (5, 6)]
    if batch_first:
        states = [s and s.transpose((1, 0, 2)) for s in states]
    directions = 2 if attr.get_string("direction", "forward") == "bidirectional" else 1
    steps, batch, _ = x.shape
    units = attr.get_int("hidden_size", weights[1].shape[2])
    used = [
        len(node.outputs) > i
        and node.outputs[i].name != ""
        and bool(node.outputs[i].uses() or node.outputs[i].is_graph_output())
        for i in range(3)
    ]
    y = low.new((steps, directions, batch, units)) if used[0] else None
    last = [low.new((directions, batch, units)) if used[i] else None for i in (1, 2)]
    lengths = low.contiguous(low.view(inputs[4])) if inputs[4] is not None else None
    if lengths is not None and lengths.tensor.data is not None and (lengths.tensor.data >= steps).all():
        lengths = None
    peephole = low.constant(inputs[7]) if kind == "LSTM" and inputs[7] is not None else None
    for d in range(directions):
        layer = _Layer(
            node, kind, d, steps, batch, units, weights[0][d], weights[1][d], None if bias is None else bias[d]
        )
        layer.add(
            low, x, y and _direction(y, 1, d), [v and _direction(v, 0, d) for v in last],
            [v and _direction(v, 0, d) for v in states], lengths, None if peephole is None else peephole[d].reshape(3, units),
        )  # fmt: skip
    for i, view in enumerate((y, *last)):
        if view is not None:
            if batch_first:
                view = view.transpose((2, 0, 1, 3) if i == 0 else (1, 0, 2))
            low.set(node.outputs[i], view)


def _direction(view: View, axis: int, d: int) -> View:
    one = view.slice(axis, d, 1)
    keep = [i for i in range(view.rank) if i != axis]
    return View(one.tensor, tuple(one.shape[i] for i in keep), tuple(one.strides[i] for i in keep), one.offset)


@dataclass
class _Layer:
    """One direction of a node."""

    node: ir.Node
    kind: str
    index: int
    steps: int
    batch: int
    units: int
    weight: Array
    hidden: Array
    bias: Array | None

    def add(
        self, low: Lowering, x: View, y: View | None, last: Sequence[View | None], first: Sequence[View | None],
        lengths: View | None, peephole: Array | None,
    ) -> None:  # fmt: skip
        count, units = GATES[self.kind], self.units
        cell = self._cell()
        first = [None if v is None or _is_zero(v) else low.contiguous(v) for v in first]
        if self.kind == "LSTM" and any(v is not None for v in first):
            first = [v if v is not None else low.data(np.zeros((self.batch, units), np.float32)) for v in first]
        w_bias, r_bias = (
            np.zeros((2, count, units), np.float32) if self.bias is None else self.bias.reshape(2, count, units)
        )
        state_bias = None
        total = w_bias + r_bias
        if self.kind == "GRU" and cell.reset_after:
            total = np.stack([total[0], total[1], w_bias[2]])
            state_bias = r_bias[2]
        lanes = low.lanes
        padded = _padded(units, lanes)
        flat = low.new((self.steps * self.batch, count * padded))
        low.add(
            Dense(
                low.reshape(x, (self.steps * self.batch, x.shape[2])),
                flat,
                _interleave(self.weight.T, count, padded, lanes),
                _interleave(total.reshape(1, -1), count, padded, lanes)[0],
            )
        )
        gates = flat.reshape((self.steps, self.batch, count * padded))
        assert gates is not None
        hidden = np.ascontiguousarray(self.hidden.T).reshape(units, count, units)
        low.add(
            Recurrent(
                cell, gates, hidden, units, low.new((4 * padded,)), y, last[0], last[1] if self.kind == "LSTM" else None,
                first[0], first[1] if self.kind == "LSTM" else None, peephole, state_bias, lengths,
            )
        )  # fmt: skip

    def _cell(self) -> Cell:
        attr = self.node.attributes
        names = list(attr["activations"].as_strings()) if "activations" in attr else []
        per = len(_DEFAULTS[self.kind])
        names = names[self.index * per : (self.index + 1) * per] or list(_DEFAULTS[self.kind])
        alphas = list(attr.get_floats("activation_alpha", ()))
        betas = list(attr.get_floats("activation_beta", ()))
        found = []
        for position, raw in enumerate(names):
            name = next((k for k in _ACTIVATIONS if k.lower() == raw.lower()), None)
            if name is None:
                raise UnsupportedOpError(
                    f"op {self.kind} (node '{self.node.name}') with activation {raw} has no native kernel"
                )
            i, (alpha, beta) = self.index * per + position, _NUMBERS.get(name, (0.0, 0.0))
            found.append(
                Activation(name, alphas[i] if i < len(alphas) else alpha, betas[i] if i < len(betas) else beta)
            )
        direction = attr.get_string("direction", "forward")
        return Cell(
            self.kind, tuple(found), attr.get_float("clip", 0.0), bool(attr.get_int("input_forget", 0)),
            bool(attr.get_int("linear_before_reset", 0)), direction == "reverse" or self.index == 1,
        )  # fmt: skip


def _is_zero(view: View) -> bool:
    return view.tensor.data is not None and not view.tensor.data.any()


LOWER: Mapping[str, Any] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}

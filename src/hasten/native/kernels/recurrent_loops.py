"""The C of a recurrent layer: one function for a time step, one that walks.

``Recurrent`` says what to compute, ``recurrent_products`` multiplies its state; this file writes the loops around that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hasten.native.kernels.recurrent_products import products_of
from hasten.native.kernels.recurrent_weights import interleave, pad, padded_units
from hasten.native.kernels.storage import LOADS

if TYPE_CHECKING:
    from hasten.native.emit import Emitter
    from hasten.native.kernels.recurrent import Recurrent
    from hasten.native.program import View

__all__ = ["GATES", "Loops"]

_SPLIT_MACS = 12_000  # one time step; two threads meet once in it
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass
class Loops:
    """The C of one ``Recurrent``; ``alone``: it may be shared out to a team, unit by unit."""

    step: Recurrent
    out: Emitter
    alone: bool = True

    def __post_init__(self) -> None:
        self.count = GATES[self.step.cell.kind]
        self.lanes = self.out.lanes
        self.padded = padded_units(self.step.units, self.lanes)
        self.products = products_of(self.step, self.out, self.count, self.padded)
        self.blocks = self.padded // self.lanes  # a block: one vector of units, all its gates
        # Splitting pays earlier here than elsewhere: each part's share of the weights then fits a nearer cache.
        macs = self.step.units * self.step.units * self.count
        apart = not self.step.resets_before  # else units need each other's reset gates
        self.split = self.alone and self.out.threads > 1 and apart and macs >= _SPLIT_MACS
        self.split = self.split and self.blocks >= self.out.threads

    def write(self) -> None:
        """The function of the layer, as a call of the program."""
        signature, body = self.walk()
        self.out.function(self.step.kernel, self.step.title, signature, body, split=self.split)

    def inline(self) -> tuple[str, list[tuple[str, str]]]:
        """The same as a function that another one calls: its name and signature."""
        signature, body = self.walk()
        stem = f"{self.step.kernel}_walk"
        declared = ", ".join(declaration for declaration, _ in signature)
        text = f"/* {self.step.title} */\nstatic void {stem}({declared}) {{\n{body.rstrip()}\n}}\n"
        return self.out.inline(stem, text), signature

    def walk(self) -> tuple[list[tuple[str, str]], str]:
        """Signature and body of the walk through time, after the function of one time step."""
        step, out = self.step, self.out
        out.need("v_load", "v_store", "v_set1")
        weights, extra = out.constant(self.products.weights()), self._constants()
        name = self._time_step(extra)
        signature = [("const float *g", out.pointer(step.gates)), (f"const {self.products.kept} *w", weights), *extra]
        signature.append(("float *state", out.pointer(step.scratch)))
        for label in ("y", "last_h", "last_c", "first_h", "first_c"):
            view = getattr(step, label)
            if view is not None:
                const = "const " if label.startswith("first") else ""
                signature.append((f"{const}float *{label}", out.pointer(view)))
        if step.lengths is not None:
            signature.append(("const int32_t *lengths", out.pointer(step.lengths)))
        names = "".join(", " + d.split("restrict ")[1] for d, _ in extra)
        return signature, "\n".join(self._body(name, names))

    def _constants(self) -> list[tuple[str, str]]:
        """What a time step reads beside its weights: peepholes, the state's bias, scales."""
        step, found = self.step, []
        if step.peephole is not None:
            found.append(("const float *restrict p", self.out.constant(pad(step.peephole, self.padded))))
        if step.state_bias is not None:
            found.append(("const float *restrict q", self.out.constant(pad(step.state_bias[None], self.padded))))
        scale = self.products.scale()
        if scale is not None:
            scale = interleave(scale.reshape(1, -1), self.count, self.padded, self.lanes)
            found.append(("const float *restrict f", self.out.constant(scale)))
        return found

    def _time_step(self, extra: list[tuple[str, str]]) -> str:
        """Writes the function of one time step; its name."""
        stem = f"{self.step.kernel}_step"
        arguments = f"const float *restrict g, const {self.products.kept} *restrict w, const float *restrict h, "
        arguments += "float *restrict n, float *restrict c" + "".join(f", {d}" for d, _ in extra)
        arguments += ", const int depth, const int first, const int last, const int back"
        return self.out.inline(
            stem,
            f"/* one time step: gates g, state h (and c) -> state n (and c) */\n"
            f"static inline __attribute__((always_inline)) void {stem}({arguments}) {{\n"
            + "\n".join(self._step_body())
            + "\n}\n",
        )

    def _body(self, name: str, names: str) -> list[str]:
        """The walk itself, row by row of the batch; ``name``: of the time step; ``names``: what it is also given."""
        step, lanes, units = self.step, self.lanes, self.step.units
        steps, batch, columns = step.gates.shape
        body = []
        if self.split:
            body.append(
                f"    const int first = {self.blocks} * part / parts, last = {self.blocks} * (part + 1) / parts;"
            )
            body.append(
                f"    const int from = first * {lanes}, to = last * {lanes} < {units} ? last * {lanes} : {units};"
            )
        low, high = ("first", "last") if self.split else ("0", str(self.blocks))
        body.append(f"    for (int b = 0; b < {batch}; b++) {{")
        body.append(f"        float *h = state, *n = state + {self.padded}, *c = state + {2 * self.padded};")
        body += self._first_states()
        ticks = str(steps)
        if step.lengths is not None:
            body.append(f"        const int ticks = lengths[b] < {steps} ? lengths[b] : {steps};")
            ticks = "ticks"
        start = 0
        call = f"{name}(g + ((long)t * {batch} + b) * {columns}, w, h, n, c{names}, "
        if step.first_h is None:
            body.append("        { /* the first state is zero: nothing to multiply */")
            body += self._tick("0", f"{call}0, {low}, {high}, 0);", ticks, "            ")
            body.append("        }")
            start = 1
        body.append(f"        for (int s = {start}; s < {ticks}; s++) {{")
        body += self._tick("s", f"{call}{units}, {low}, {high}, s & 1);", ticks, "            ")
        body += ["        }", *self._tail(ticks), "    }"]
        return [*body, "    (void)from;"] if self.split else body

    def _first_states(self) -> list[str]:
        """With a team each part sets the states of its own units; all meet before anybody reads others'."""
        step, lines = self.step, []
        low = f"first * {self.lanes}" if self.split else "0"
        for target, view, label in (("h", step.first_h, "first_h"), ("c", step.first_c, "first_c")):
            if view is None:
                high = f"last * {self.lanes}" if self.split else str(self.padded)
                value = "0.0f"
            else:
                high = "to" if self.split else str(step.units)
                value = f"{label}[b * {view.strides[0]} + i{_times(view)}]"
            lines.append(f"        for (int i = {low}; i < {high}; i++) {target}[i] = {value};")
        return [*lines, "        meet(flags, part, parts);"] if self.split and step.first_h is not None else lines

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
            # Behind the last step nobody reads another's units, until the next row's states take their place.
            again = "" if step.gates.shape[1] == 1 else f" || b + 1 < {step.gates.shape[1]}"
            later = "1" if s == "0" else f"{s} + 1"
            lines.append(f"{indent}if ({later} < {ticks}{again}) meet(flags, part, parts);")
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
                low, high = ("from", "to") if self.split else ("0", str(units))
                at = f"{label} + b * {view.strides[0]}"
                if (view.strides[1] == 1 or units == 1) and not self.split:
                    lines.append(f"        __builtin_memcpy({at}, {source}, {4 * units});")
                else:
                    loop = f"for (int i = {low}; i < {high}; i++)"
                    place = f"{label}[b * {view.strides[0]} + i{_times(view)}]"
                    lines.append(f"        {loop} {place} = {source}[i];")
        return lines

    def _step_body(self) -> list[str]:
        if self.step.resets_before:
            return self._reset_before()
        count = self.count
        lines = [
            *self.products.before(),
            # Every other step walks the weights backwards: those used last are still in the nearest cache.
            "    for (int i = first; i < last; i++) {",
            "        const int u = (back ? first + last - 1 - i : i) * VL;",
            f"        const float *x = g + u * {count};",
            f"        const {self.products.kept} *r = w + (long)u * {self.products.unit_weights()};",
            f"        vf a[{count}];",
        ]
        if self.step.cell.kind == "GRU":
            # The candidate's h·R must stay apart from x·W: the reset gate scales it alone.
            lines.append("        a[0] = v_load(x), a[1] = v_load(x + VL), a[2] = v_load(q + u);")
        else:
            lines.append(f"        for (int j = 0; j < {count}; j++) a[j] = v_load(x + j * VL);")
        lines += [*self.products.lines(), *(f"        {line}" for line in self._cell()), "    }"]
        if self.step.cell.kind != "LSTM":
            lines.append("    (void)c;")
        return lines

    def _cell(self) -> list[str]:
        cell, out = self.step.cell, self.out
        clip = _clipper(cell.clip, out)
        if cell.kind == "RNN":
            return [f"v_store(n + u, {cell.activations[0].text(clip('a[0]'), out)});"]
        if cell.kind == "GRU":
            f, g = cell.activations
            return [
                f"const vf z = {f.text(clip('a[0]'), out)};",
                f"const vf reset = {f.text(clip('a[1]'), out)};",
                "const vf mixed = v_load(x + 2 * VL) + reset * a[2];",
                f"const vf fresh = {g.text(clip('mixed'), out)};",
                "v_store(n + u, fresh + z * (v_load(h + u) - fresh));",
            ]
        if cell.is_standard and self.step.peephole is None:
            out.need("v_lstm")
            return [
                "vf state = v_load(c + u);",
                "v_store(n + u, v_lstm(a, &state));",
                "v_store(c + u, state);",
            ]
        return self._lstm(clip)

    def _lstm(self, clip: Any) -> list[str]:
        cell, out, padded = self.step.cell, self.out, self.padded
        f, g, h = cell.activations
        peep = self.step.peephole is not None
        look = [f" + v_load(p + {i * padded} + u) * " for i in range(3)] if peep else ["", "", ""]
        old, new = ("old", "state") if peep else ("", "")
        lines = ["const vf old = v_load(c + u);"]
        lines.append(f"const vf in = {f.text(clip('a[0]' + look[0] + old), out)};")
        if cell.coupled:
            lines.append("const vf keep = 1.0f - in;")
        else:
            lines.append(f"const vf keep = {f.text(clip('a[2]' + look[2] + old), out)};")
        lines.append(f"const vf state = keep * old + in * {g.text(clip('a[3]'), out)};")
        lines.append(f"const vf gate = {f.text(clip('a[1]' + look[1] + new), out)};")
        lines.append(f"v_store(n + u, gate * {h.text('state', out)});")
        lines.append("v_store(c + u, state);")
        return lines

    def _reset_before(self) -> list[str]:
        """GRU as first published: the candidate needs (reset · h)·R, so all reset gates come first."""
        padded, units, out, cell = self.padded, self.step.units, self.out, self.step.cell
        clip, (f, g), load = _clipper(cell.clip, out), cell.activations, LOADS[self.step.storage]
        out.need(load)
        walk = f"    for (int u = 0; u < {padded}; u += VL) {{"
        block = f"        const {self.products.kept} *r = w + (long)u * {3 * units}; const float *x = g + u * 3;"
        return [
            "    (void)first, (void)last, (void)back;",
            f"    float *reset = c, *update = c + {padded};",
            walk,
            block,
            "        vf z = v_load(x), s = v_load(x + VL);",
            "        for (int k = 0; k < depth; k++, r += 3 * VL) {",
            "            const vf v = v_set1(h[k]);",
            f"            z += v * {load}(r);",
            f"            s += v * {load}(r + VL);",
            "        }",
            f"        v_store(update + u, {f.text(clip('z'), out)});",
            f"        v_store(reset + u, {f.text(clip('s'), out)} * v_load(h + u));",
            "    }",
            walk,
            block,
            "        vf a = v_load(x + 2 * VL), b = v_set1(0.0f);",
            "        for (int k = 0; k + 1 < depth; k += 2, r += 6 * VL) {",
            f"            a += v_set1(reset[k]) * {load}(r + 2 * VL);",
            f"            b += v_set1(reset[k + 1]) * {load}(r + 5 * VL);",
            "        }",
            f"        if (depth & 1) a += v_set1(reset[depth - 1]) * {load}(r + 2 * VL);",
            "        a += b;",
            f"        const vf fresh = {g.text(clip('a'), out)};",
            "        v_store(n + u, fresh + v_load(update + u) * (v_load(h + u) - fresh));",
            "    }",
        ]


def _clipper(clip: float, out: Emitter) -> Any:
    if not clip:
        return lambda text: f"({text})" if " " in text else text
    out.need("v_min", "v_max", "v_set1")
    bound = out.number(clip)
    return lambda text: f"v_min(v_set1({bound}), v_max(v_set1(-{bound}), {text}))"


def _times(view: View) -> str:
    """`` * stride`` where neighbours are not next to each other."""
    return f" * {view.strides[1]}" if view.strides[1] != 1 else ""

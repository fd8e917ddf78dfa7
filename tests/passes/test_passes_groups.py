"""Group normalisation between reshapes, as PyTorch and Keras write it, is one node; what only looks like it stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_text import applies, given, stays

from hasten.passes.recognise_groups import recognise_groups

F, Q = np.float32, np.int64


def torch_like(split: list[int], back: list[int], **weights: object) -> ir.Model:
    return given(
        f"""(float[2,6,3,5] x) => (float{back} y) {{ a = Reshape (x, split)
        b = InstanceNormalization <epsilon = 0.1> (a, g, o)
        y = Reshape (b, back) }}""",
        split=Q(split),
        back=Q(back),
        **weights,
    )


def keras_like(split: str, axes: list[int]) -> ir.Model:
    return given(
        """(float[2,3,5,6] x) => (float[2,3,5,6] y) { a = Reshape (x, split) m = ReduceMean (a, axes)
        c = Sub (a, m) q = Mul (c, c) v = ReduceMean (q, axes) w = Add (v, e) r = Sqrt (w) n = Div (c, r)
        y = Reshape (n, back) }""",
        split=Q([int(n) for n in split.split(",")]),
        back=Q([2, 3, 5, 6]),
        axes=Q(axes),
        e=F(0.1),
    )


ONES, ZEROS = {"g": np.ones(3, F)}, {"o": np.zeros(3, F)}

APPLIES: dict[str, tuple[ir.Model, dict[str, int]]] = {
    "PyTorch": (torch_like([2, 3, -1], [2, 6, 3, 5], **ONES, **ZEROS), {"GroupNormalization": 1}),
    "PyTorch, a scale for each group": (
        torch_like([2, 3, 30], [2, 6, 3, 5], g=(3,), o=(3,)),
        {"GroupNormalization": 1},
    ),
    "Keras": (keras_like("2,3,5,2,3", [1, 2, 4]), {"Transpose": 2, "GroupNormalization": 1}),
    "Keras, all channels": (keras_like("2,3,5,1,6", [1, 2, 4]), {"Transpose": 2, "GroupNormalization": 1}),
}
STAYS: dict[str, ir.Model] = {
    "rows of other images": torch_like([1, 6, 30], [2, 6, 3, 5], g=(6,), o=(6,)),
    "groups that cut channels": torch_like([2, 9, 10], [2, 6, 3, 5], g=(9,), o=(9,)),
    "another shape behind": torch_like([2, 3, 30], [2, 6, 5, 3], **ONES, **ZEROS),
    "channels cut the other way": keras_like("2,3,5,2,3", [1, 2, 3]),
    "an axis besides": keras_like("2,3,5,2,3", [1, 4]),
    "the rows cut": keras_like("2,3,1,5,6", [1, 2, 4]),
}


@pytest.mark.parametrize("name", APPLIES)
def test_applies(name: str) -> None:
    model, expected = APPLIES[name]
    applies(model, (recognise_groups,), expected)


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str) -> None:
    stays(STAYS[name], (recognise_groups,))

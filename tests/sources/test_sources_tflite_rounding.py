"""How LiteRT rounds: its sets of kernels differ from each other, and a source says by how many steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
from tflite_builder import FileOf, opened

from hasten.graph.reference import run

pytestmark = pytest.mark.frameworks


def multiplied(dtype: str, size: int = 4096) -> bytes:
    """The product of two tensors of scales that have nothing to do with each other."""
    file = FileOf()
    a, b, y = (file.tensor((1, size), dtype=dtype) for _ in range(3))
    if dtype != "float32":
        for tensor, scale, zero in ((a, 0.0311, 3), (b, 0.0173, -20), (y, 0.0437, 9)):
            file.quantise(tensor, scale, zero)
    file.operator("MUL", [a, b], [y], ("MulOptions", {}))
    return file.to_bytes([a, b], [y])


def looked_up() -> bytes:
    """A function of one byte: both sets read it from the same table."""
    file = FileOf()
    x, y = (file.tensor((1, 256), dtype="int8") for _ in range(2))
    file.quantise(x, 0.03, 4)
    file.quantise(y, 0.015, -117)
    file.operator("GELU", [x], [y], ("GeluOptions", {"approximate": False}))
    return file.to_bytes([x], [y])


def test_sets_of_kernels_that_round_apart_widen_what_is_allowed(tmp_path: Path) -> None:
    assert opened(tmp_path, multiplied("int8")).steps == 2


@pytest.mark.parametrize("data", [looked_up(), multiplied("float32")], ids=["looked up", "float"])
def test_where_they_agree_nothing_is_widened(tmp_path: Path, data: bytes) -> None:
    assert opened(tmp_path, data).steps == 1


def test_the_graph_is_within_those_steps(tmp_path: Path) -> None:
    source = opened(tmp_path, multiplied("int8"))
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-128, 128, (1, 4096)).astype(np.int8) for _ in range(2)]

    assert source.model is not None
    (mine,), (theirs,) = run(source.model, arrays), source.reference(arrays)
    assert np.abs(mine.astype(int) - theirs).max() <= source.steps

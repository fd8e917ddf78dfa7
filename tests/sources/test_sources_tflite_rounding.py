"""How LiteRT rounds: its sets of kernels differ from each other, and a source says by how many steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
from ai_edge_litert.interpreter import Interpreter
from tflite_builder import FileOf, opened

from hasten.graph.reference import run
from hasten.sources import tflite as opener

pytestmark = pytest.mark.frameworks


STEP = 0.0437


def multiplied(dtype: str, size: int = 4096, *, dequantised: bool = False) -> bytes:
    """The product of two tensors of scales that have nothing to do with each other."""
    file = FileOf()
    a, b, y = (file.tensor((1, size), dtype=dtype) for _ in range(3))
    if dtype != "float32":
        for tensor, scale, zero in ((a, 0.0311, 3), (b, 0.0173, -20), (y, STEP, 9)):
            file.quantise(tensor, scale, zero)
    file.operator("MUL", [a, b], [y], ("MulOptions", {}))
    if dequantised:
        given, y = y, file.tensor((1, size))
        file.operator("DEQUANTIZE", [given], [y], ("DequantizeOptions", {}))
    return file.to_bytes([a, b], [y])


def leaky(scale: float, *, places: bool = False) -> bytes:
    """LiteRT's kernels take a whole number for the slope; ``places``: of the largest of each row."""
    file = FileOf()
    x, y = (file.tensor((64, 64), dtype="int8") for _ in range(2))
    file.quantise(x, 0.05, 3)
    file.quantise(y, scale)
    file.operator("LEAKY_RELU", [x], [y], ("LeakyReluOptions", {"alpha": 0.1}))
    if places:
        values, y = y, file.tensor((64,), dtype="int32")
        axis = file.constant(np.array(1, np.int32))
        file.operator("ARG_MAX", [values, axis], [y], ("ArgMaxOptions", {"outputType": 2}))
    return file.to_bytes([x], [y])


def unknown_to_reference_kernels() -> bytes:
    """A second answer by an operator that only the other sets of kernels have."""
    file = FileOf()
    x, y, z = (file.tensor((64, 64), dtype="int8") for _ in range(3))
    for tensor, scale, zero in ((x, 0.05, 3), (y, 0.047, 0), (z, 0.05, 0)):
        file.quantise(tensor, scale, zero)
    file.operator("LEAKY_RELU", [x], [y], ("LeakyReluOptions", {"alpha": 0.1}))
    file.operator("ELU", [x], [z])
    return file.to_bytes([x], [y, z])


def product(scale: float) -> bytes:
    """A dense layer whose answers are in steps of ``scale``."""
    file = FileOf()
    x, y = file.tensor((1, 16), dtype="int8"), file.tensor((1, 8), dtype="int8")
    file.quantise(x, 0.05, 3)
    file.quantise(y, scale)
    weights = np.random.default_rng(0).integers(-127, 128, (8, 16)).astype(np.int8)
    file.operator("FULLY_CONNECTED", [x, file.constant(weights, scale=0.01)], [y], ("FullyConnectedOptions", {}))
    return file.to_bytes([x], [y])


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


def test_where_reference_kernels_lack_an_operator_others_tell(tmp_path: Path) -> None:
    assert opened(tmp_path, unknown_to_reference_kernels()).steps == 2


def test_what_xnnpack_fails_to_prepare_is_run_without_it(tmp_path: Path) -> None:
    """A layer whose answers were all but zero when their range was measured: in steps 256 times finer than its sums."""
    data = product(1e-6)
    with pytest.raises(RuntimeError, match="XNNPack"):
        Interpreter(model_content=data).allocate_tensors()
    source = opened(tmp_path, data)
    x = np.random.default_rng(0).integers(-128, 128, (1, 16)).astype(np.int8)
    assert set(np.unique(source.reference([x])[0])) <= {-128, 127}


@pytest.mark.parametrize("data", [looked_up(), multiplied("float32")], ids=["looked up", "float"])
def test_where_they_agree_nothing_is_widened(tmp_path: Path, data: bytes) -> None:
    assert opened(tmp_path, data).steps == 1


def test_an_answer_that_is_dequantised_may_be_a_step_off(tmp_path: Path) -> None:
    """As converters leave it unless they are told to give integers back."""
    source = opened(tmp_path, multiplied("int8", dequantised=True))
    rng = np.random.default_rng(0)
    (answer,) = source.reference([rng.integers(-128, 128, (1, 4096)).astype(np.int8) for _ in range(2)])
    assert source.steps == 1
    assert 0.9 * STEP < source.spread * float(np.abs(answer).max()) < 2.1 * STEP
    assert opened(tmp_path, multiplied("float32")).spread == 0.0


def test_a_step_off_is_little_however_near_to_zero_the_answers_are(tmp_path: Path) -> None:
    source = opened(tmp_path, leaky(2.0))
    assert source.model is not None, source.notes
    x = np.random.default_rng(0).integers(-128, 128, (64, 64)).astype(np.int8)
    (mine,), (theirs,) = run(source.model, [x]), source.reference([x])
    assert np.abs(mine.astype(int) - theirs).max() == 1
    assert np.abs(theirs).max() < 10


def test_what_one_step_decides_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of values of which several are equal but for a rounding, as in a heat map."""
    source = opened(tmp_path, leaky(0.5, places=True))
    assert source.model is not None, source.notes
    x = np.random.default_rng(0).integers(-128, 128, (64, 64)).astype(np.int8)
    (mine,), (theirs,) = run(source.model, [x]), source.reference([x])
    assert (mine != theirs).any()

    monkeypatch.setattr(opener, "_own_gap", lambda *_: 0.0)
    assert opened(tmp_path, leaky(0.5, places=True)).model is None


def test_the_graph_is_within_those_steps(tmp_path: Path) -> None:
    source = opened(tmp_path, multiplied("int8"))
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-128, 128, (1, 4096)).astype(np.int8) for _ in range(2)]

    assert source.model is not None
    (mine,), (theirs,) = run(source.model, arrays), source.reference(arrays)
    assert np.abs(mine.astype(int) - theirs).max() <= source.steps


def pooled(window: tuple[int, int], stride: int, *, same: bool) -> bytes:
    """Means of bytes."""
    file = FileOf()
    size = [-(-8 // stride)] * 2 if same else [(8 - n) // stride + 1 for n in window]
    x, y = file.tensor((1, 8, 8, 16), dtype="int8"), file.tensor((1, *size, 16), dtype="int8")
    for tensor in (x, y):
        file.quantise(tensor, 0.0362, -4)
    options = {
        "filterHeight": window[0], "filterWidth": window[1], "strideH": stride, "strideW": stride,
        "padding": 0 if same else 1,
    }  # fmt: skip
    file.operator("AVERAGE_POOL_2D", [x], [y], ("Pool2DOptions", options))
    return file.to_bytes([x], [y])


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("window", "stride"), [((2, 2), 2), ((3, 2), 1), ((4, 4), 4), ((8, 8), 1), ((3, 3), 2)])
def test_means_round_halves_away_from_zero(tmp_path: Path, window: tuple[int, int], stride: int, same: bool) -> None:
    source = opened(tmp_path, pooled(window, stride, same=same))
    assert source.model is not None, source.notes
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.integers(-128, 128, (1, 8, 8, 16)).astype(np.int8)
        (mine,), (theirs,) = run(source.model, [x]), source.reference([x])
        np.testing.assert_array_equal(mine, theirs)

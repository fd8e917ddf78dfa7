"""DFT along every axis and STFT with every window, as numpy and ONNX Runtime answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built, graph
from onnx import helper

from hasten.errors import UnsupportedOpError
from hasten.graph import reference
from hasten.native.compile import program_of
from hasten.native.isa import isa

FEW = settings(max_examples=12, deadline=None)
RANDOM = st.integers(0, 2**31).map(np.random.default_rng)


def complex_of(array: np.ndarray) -> np.ndarray:
    return array[..., 0] + (1j * array[..., 1] if array.shape[-1] == 2 else 0)


def dft(x: np.ndarray, axis: int, length: int | None, result: tuple[int, ...], **attributes: int) -> np.ndarray:
    weights = {"axis": np.int64(axis)} | ({} if length is None else {"length": np.int64(length)})
    node = helper.make_node("DFT", ["x", "" if length is None else "length", "axis"], ["y"], **attributes)
    return Built(graph([node], {"x": x.shape}, {"y": result}, weights), HERE, extra=("-O1",))(x)[0]


@FEW
@given(RANDOM, st.lists(st.integers(1, 7), min_size=1, max_size=3), st.booleans(), st.booleans(), st.booleans())
def test_transforms_along_any_axis(rng, sizes, is_complex, inverse, cut) -> None:
    x = rng.standard_normal((*sizes, 2 if is_complex else 1)).astype(np.float32)
    axis = int(rng.integers(len(sizes)))
    length = int(rng.integers(1, 9)) if cut else None
    expected = (np.fft.ifft if inverse else np.fft.fft)(complex_of(x), length, axis)
    found = dft(x, axis - (len(sizes) + 1) * int(rng.integers(2)), length, (*expected.shape, 2), inverse=int(inverse))
    np.testing.assert_allclose(complex_of(found), expected, atol=1e-5)


@FEW
@given(RANDOM, st.integers(1, 4), st.integers(2, 9), st.integers(1, 3), st.booleans())
def test_one_side_and_back(rng, rows, length, columns, first) -> None:
    shape, axis = ((length, rows, columns), 0) if first else ((rows, length, columns), 1)
    x = rng.standard_normal((*shape, 1)).astype(np.float32)
    half = np.fft.rfft(x[..., 0], axis=axis)
    found = dft(x, axis, None, (*half.shape, 2), onesided=1)
    np.testing.assert_allclose(complex_of(found), half, atol=1e-5)
    again = dft(found, axis, length, x.shape, onesided=1, inverse=1)
    np.testing.assert_allclose(again, x, atol=1e-5)


@FEW
@given(RANDOM, st.integers(1, 3), st.integers(1, 8), st.integers(1, 9), st.integers(0, 11), st.booleans(),
       st.sampled_from(["none", "known", "run-time"]), st.sampled_from([1, 2]))  # fmt: skip
def test_short_transforms_with_a_window(rng, batch, step, length, more, one_sided, window, parts) -> None:
    x = rng.standard_normal((batch, length + more, parts)).astype(np.float32)
    one_sided = one_sided and parts == 1
    factor = rng.standard_normal(length).astype(np.float32)
    weights = {"step": np.int64(step), "length": np.int64(length)} | ({"w": factor} if window == "known" else {})
    inputs = {"x": x.shape} | ({"w": factor.shape} if window == "run-time" else {})
    kept = length // 2 + 1 if one_sided else length
    shape = (batch, 1 + more // step, kept, 2)
    node = helper.make_node("STFT", ["x", "step", "" if window == "none" else "w", "length"], ["y"],
                            onesided=int(one_sided))  # fmt: skip
    model = graph([node], inputs, {"y": shape}, weights)
    given = (x, factor) if window == "run-time" else (x,)
    np.testing.assert_allclose(Built(model, HERE, extra=("-O1",))(*given)[0], reference.run(model, given)[0], atol=3e-5)


@pytest.mark.parametrize("target", RUNNABLE)
def test_a_window_at_run_time_on_every_instruction_set(target: str) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 90)).astype(np.float32), np.hanning(17).astype(np.float32)
    node = helper.make_node("STFT", ["x", "step", "w", "length"], ["y"])
    weights = {"step": np.int64(5), "length": np.int64(17)}
    model = graph([node], {"x": x.shape, "w": w.shape}, {"y": (2, 15, 9, 2)}, weights)
    found, expected = Built(model, isa(target), extra=("-O1",))(x, w)[0], reference.run(model, [x, w])[0]
    np.testing.assert_allclose(found, expected, atol=3e-5)


def test_long_transforms_are_refused() -> None:
    node = helper.make_node("DFT", ["x"], ["y"])
    model = graph([node], {"x": (1, 4096, 1)}, {"y": (1, 4096, 2)}, {})
    with pytest.raises(UnsupportedOpError, match=r"op DFT .* of 4096 numbers"):
        program_of(model, "case", HERE)

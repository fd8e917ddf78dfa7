"""Fourier transforms become products, with the answers of numpy and of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from graph_text import apply, model_of, ops, probe_of, same_answers

from hasten.graph import reference
from hasten.passes.fourier import fourier_as_product


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(("parts", "settings"), [(1, "onesided = 1"), (1, "onesided = 0"), (2, "inverse = 1"), (2, "")])
@pytest.mark.parametrize("length", [8, 6, 11])
def test_dft_is_one_product(opset: int, parts: int, settings: str, length: int) -> None:
    axis = "axis = 1" if opset == 17 else ""
    given = "x, n" if opset == 17 else "x, n, axis"
    text = f"""(float[N,8,{parts}] x) => (float[N,k,2] y) <int64 n = {{{length}}}, int64 axis = {{1}}>
        {{ y = DFT <{", ".join(s for s in (axis, settings) if s)}> ({given}) }}"""
    model = model_of(text.replace("<>", ""), opset)
    result = apply(model, fourier_as_product)
    assert ops(result) == {"MatMul": 1, "Reshape": 2}
    same_answers(model, result, probe_of(model))


def test_a_real_transform_is_numpys() -> None:
    text = "(float[3,16,1] x) => (float[3,9,2] y) { y = DFT <axis = 1, onesided = 1> (x) }"
    (x,) = probe_of(model := model_of(text))
    (y,) = reference.run(apply(model, fourier_as_product), [x])
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.rfft(x[..., 0]), atol=1e-5)


@pytest.mark.parametrize("window", ["w, n", "w", ", n"])
@pytest.mark.parametrize("shape", ["2,40", "2,40,1"])
def test_stft_is_one_convolution(window: str, shape: str) -> None:
    hann = ",".join(f"{v:.5f}" for v in np.hanning(16))
    model = model_of(
        f"""(float[{shape}] x) => (float[a,b,c,d] y) <int64 s = {{5}}, int64 n = {{16}}, float[16] w = {{{hann}}}>
        {{ y = STFT <onesided = 1> (x, s, {window}) }}"""
    )
    result = apply(model, fourier_as_product)
    assert ops(result)["Conv"] == 1 and ops(result)["STFT"] == 0
    same_answers(model, result, probe_of(model))


def test_long_transforms_stay() -> None:
    model = model_of("(float[1,4096,1] x) => (float[1,k,2] y) { y = DFT <axis = 1, onesided = 1> (x) }")
    assert ops(apply(model, fourier_as_product)) == {"DFT": 1}

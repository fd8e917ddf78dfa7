"""Short-time Fourier transforms and spectrograms: a strided convolution with the transform's matrix."""

from __future__ import annotations

import numpy as np

from hasten.sources.keras.build import Shape, Tensor, Unsupported
from hasten.sources.keras.scope import Call, Converter, Scope, weight
from hasten.types import Array

__all__ = ["LAYERS", "OPERATIONS"]

_LARGEST_BYTES = 64 << 20


def _waves(length: int, given: int) -> tuple[Array, Array]:
    """Cosines and negative sines of the real transform. Shapes: (given, length // 2 + 1)"""
    turns = np.outer(np.arange(given), np.arange(length // 2 + 1)) % length * (2 * np.pi / length)
    inside = (np.arange(given) < length)[:, None]
    return np.cos(turns) * inside, -np.sin(turns) * inside


def _rfft(g: Scope, call: Call) -> list[Tensor]:
    x = g.tensor(call["x"])
    given = x.shape[-1]
    if not isinstance(given, int):
        raise Unsupported("a Fourier transform of free length")
    waves = _waves(call.setting("fft_length") or given, given)
    return [g.matmul(x, g.constant(part, x.dtype, "fourier")) for part in waves]


def _stft(g: Scope, call: Call) -> list[Tensor]:
    settings = {name: call.setting(name) for name in ("sequence_length", "sequence_stride", "fft_length", "center")}
    return _transformed(g, g.tensor(call["x"]), window=call.setting("window"), **settings)


def _transformed(
    g: Scope, x: Tensor, *, sequence_length: int, sequence_stride: int, fft_length: int, window: object, center: bool
) -> list[Tensor]:
    """Real and imaginary parts. Shapes: x (…, samples) · returns (…, frames, fft_length // 2 + 1) each"""
    samples, lead = x.shape[-1], x.shape[:-1]
    if not isinstance(samples, int) or len(lead) > 1:
        raise Unsupported("a Fourier transform of free length, or of more than one signal a row")
    flat = g.reshape(x, (*(lead or (1,)), 1, samples))
    if center:
        half = fft_length // 2
        pads = g.constant(np.array([0, 0, half, 0, 0, half], np.int64), name="pads")
        samples += 2 * half
        flat = g.op("Pad", [flat, pads], (*flat.shape[:-1], samples), attributes={"mode": "reflect"})
    # Without a window TensorFlow takes all that the transform spans, not the shorter sequence.
    scaled = np.ones(fft_length) if window is None else _window(window, sequence_length)
    left = (fft_length - sequence_length) // 2
    if len(scaled) < fft_length:
        scaled = np.pad(scaled, (left, fft_length - sequence_length - left))
    filters = np.concatenate([part * scaled[:, None] for part in _waves(fft_length, fft_length)], axis=1)
    if filters.nbytes > _LARGEST_BYTES:
        raise Unsupported(f"a Fourier transform of {fft_length} samples")
    frames, kept = 1 + (samples - fft_length) // sequence_stride, fft_length // 2 + 1
    weights = g.constant(filters.T[:, None], x.dtype, "fourier")
    strides = {"kernel_shape": [fft_length], "strides": [sequence_stride]}
    made = g.op("Conv", [flat, weights], (flat.shape[0], 2 * kept, frames), attributes=strides)
    turned = g.transpose(made, (0, 2, 1))
    shape: Shape = (*lead, frames, kept)
    return [g.reshape(g.slice(turned, 2, start, start + kept), shape) for start in (0, kept)]


def _window(window: object, length: int) -> Array:
    turns = 2 * np.pi * np.arange(length) / length
    if isinstance(window, str):
        return 0.5 - 0.5 * np.cos(turns) if window == "hann" else 0.54 - 0.46 * np.cos(turns)
    return np.asarray(weight(window), np.float64)


def _mel(g: Scope, call: Call) -> Tensor:
    layer, x = call.layer, g.cast(call.x, "float32")
    real, imaginary = _transformed(
        g,
        x,
        sequence_length=layer.sequence_length,
        sequence_stride=layer.sequence_stride,
        fft_length=layer.fft_length,
        window=layer.window,
        center=True,
    )
    power = g.add(g.mul(real, real), g.mul(imaginary, imaginary))
    if layer.mag_exp != 2:
        power = g.binary("Pow", power, layer.mag_exp / 2)
    matrix = layer.linear_to_mel_weight_matrix(
        num_mel_bins=layer.num_mel_bins,
        num_spectrogram_bins=layer.fft_length // 2 + 1,
        sampling_rate=layer.sampling_rate,
        lower_edge_hertz=layer.min_freq,
        upper_edge_hertz=layer.max_freq,
    )
    mel = g.matmul(power, g.constant(weight(matrix), power.dtype, "mel"))
    if layer.power_to_db:
        mel = _decibels(g, mel, layer)
    order = (*range(mel.rank - 2), mel.rank - 1, mel.rank - 2)
    return g.cast(g.transpose(mel, order), call.dtype)


def _decibels(g: Scope, power: Tensor, layer: object) -> Tensor:
    least, reference = float(layer.min_power), float(layer.ref_power)  # type: ignore[attr-defined]
    logs = g.mul(g.unary("Log", g.binary("Max", power, least)), 10 / np.log(10))
    logs = g.sub(logs, 10 * np.log10(max(abs(reference), least)))
    loudest = g.reduce("ReduceMax", logs, list(range(logs.rank)), keepdims=True)
    return g.binary("Max", logs, g.sub(loudest, float(layer.top_db)))  # type: ignore[attr-defined]


LAYERS: dict[str, Converter] = {"MelSpectrogram": _mel}

OPERATIONS: dict[str, Converter] = {"RFFT": _rfft, "STFT": _stft}

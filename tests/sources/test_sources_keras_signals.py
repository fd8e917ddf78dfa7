"""Fourier transforms, spectrograms and integer vocabularies, held against Keras itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras_held import check  # noqa: E402

from hasten.graph import reference  # noqa: E402
from hasten.sources import SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

L, K = keras.layers, keras.ops


@pytest.mark.parametrize("length", [None, 12, 24])
def test_real_transforms(length: int | None) -> None:
    i = keras.Input((3, 16))
    check(keras.Model(i, list(K.rfft(i, length))))


@pytest.mark.parametrize("window", ["hann", "hamming", None])
@pytest.mark.parametrize(("center", "fft"), [(True, 16), (False, 24)])
def test_short_time_transforms(window: str | None, center: bool, fft: int) -> None:
    i = keras.Input((60,))
    check(keras.Model(i, list(K.stft(i, 16, 5, fft, window=window, center=center))), tolerance=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"power_to_db": False, "mag_exp": 1.0}, {"sequence_length": 40, "top_db": 20.0}]
)
def test_mel_spectrograms(options: dict[str, Any]) -> None:
    i = keras.Input((400,))
    mel = L.MelSpectrogram(
        num_mel_bins=8, fft_length=64, sequence_stride=32, sampling_rate=4000, min_freq=100, **options
    )
    # Decibels are held under the loudest of the whole batch, so that rows do not stand alone where the range is small.
    mix = "top_db" in options
    source = check(keras.Model(i, mel(i)), batches=(1,), tolerance=2e-3, whole=not mix)
    assert source.rows_mix == mix and len(source.notes) == mix


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
def test_integer_vocabularies(mode: str) -> None:
    i = keras.Input((3,) if mode in ("multi_hot", "count") else (1,), dtype="int64")
    model = keras.Model(i, L.IntegerLookup(vocabulary=[12, 36, 1138, 42], output_mode=mode)(i))
    source = open_keras(model, SourceRequest())
    assert source.model is not None and not source.notes
    for values in ([42, 12, 7], [0, 36, 36], [1138, -1, 12]):
        x = np.asarray([values[: i.shape[1]]], np.int64)
        (want,), (got,) = source.reference([x]), reference.run(source.model, [x])
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)

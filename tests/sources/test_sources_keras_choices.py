"""``keras.ops`` that take functions: both ways of a choice, and the steps of a loop, are written out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from hasten.graph import reference  # noqa: E402
from hasten.sources import Source, SourceRequest  # noqa: E402
from hasten.sources.keras import open_keras  # noqa: E402

pytestmark = pytest.mark.frameworks

K = keras.ops


class Choosing(keras.Model):  # type: ignore[misc]
    """Its own answer where all rows together are positive, else two others of it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        y = self.dense(x)
        return K.cond(K.sum(y) > 0, lambda: {"a": y, "b": y * 2}, lambda: {"a": self.dense(x) - 1, "b": -y})


class Counting(Choosing):
    def call(self, x: Any) -> Any:
        return K.cond(K.max(x) > 1e6, lambda: x + self.count.assign_add(1.0), lambda: x)


class Looping(keras.Model):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return K.fori_loop(1, 4, lambda i, v: v * 2 + K.cast(i, "float32"), x)


class Halving(keras.Model):  # type: ignore[misc]
    """Until all of it is small, which all rows decide together; what is outside the loop is used in it."""

    def call(self, x: Any) -> Any:
        least = K.mean(K.abs(x)) * 0.1
        return K.while_loop(lambda v: K.max(K.abs(v)) > least, lambda v: v * 0.5, x)


class Counted(keras.Model):  # type: ignore[misc]
    """From plain numbers: as many turns for all rows, none of which asks the data."""

    def call(self, x: Any) -> Any:
        turns = K.while_loop(lambda i, v: i < 5, lambda i, v: (i + 1, v * 0.5 + K.cast(i, "float32")), (0, x))
        return turns[1]


class Stopped(keras.Model):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        state = {"v": x, "n": K.zeros((), "int32")}
        loop = K.while_loop(
            lambda s: K.max(K.abs(s["v"])) > 1e-9,
            lambda s: {"v": s["v"] * 0.5, "n": s["n"] + 1},
            state,
            maximum_iterations=3,
        )
        return loop["v"] + K.cast(loop["n"], "float32")


def built(kind: type[Any], rows: int = 1) -> tuple[Any, Source]:
    model = kind()
    model(np.zeros((rows, 3), np.float32))
    return model, open_keras(model, SourceRequest(sample=(np.ones((rows, 3), np.float32),)))


def test_both_ways_of_a_choice() -> None:
    _, source = built(Choosing, 2)
    assert source.model is not None
    assert source.rows_mix
    assert [note for note in source.notes if "own ONNX export" in note] == []
    rng = np.random.default_rng(0)
    ways = set()
    for _ in range(8):
        given = [rng.standard_normal((2, 3)).astype(np.float32)]
        wanted, got = source.reference(given), reference.run(source.model, given)
        ways.add(bool(wanted[0].sum() > 0))
        for want, have in zip(wanted, got, strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
    assert ways == {True, False}


def test_rows_mix_though_no_random_row_shows_it() -> None:
    model, source = built(Counting)
    assert source.rows_mix
    assert float(model.count) == 0.0


def test_steps_of_a_loop() -> None:
    _, source = built(Looping)
    assert source.model is not None
    assert (source.notes, source.rows_mix) == ((), False)
    given = [np.arange(6, dtype=np.float32).reshape(2, 3)]
    np.testing.assert_allclose(reference.run(source.model, given)[0], source.reference(given)[0])


@pytest.mark.parametrize(("kind", "mixes"), [(Halving, True), (Counted, False), (Stopped, True)])
def test_a_loop_while_a_condition_holds(kind: type[Any], mixes: bool) -> None:
    _, source = built(kind, 2)
    assert source.model is not None and source.rows_mix == mixes
    assert not [note for note in source.notes if "own ONNX export" in note]
    assert [node.op_type for node in source.model.graph].count("Loop") == 1
    rng = np.random.default_rng(0)
    for size in (0.0, 0.01, 1.0, 300.0):
        given = [(size * rng.standard_normal((2, 3))).astype(np.float32)]
        np.testing.assert_allclose(reference.run(source.model, given)[0], source.reference(given)[0], rtol=1e-6)


ELSEWHERE = """
import numpy as np
import test_sources_keras_choices as here
here.test_both_ways_of_a_choice()
here.test_rows_mix_though_no_random_row_shows_it()
here.test_steps_of_a_loop()
for kind, mixes in ((here.Halving, True), (here.Counted, False)):
    here.test_a_loop_while_a_condition_holds(kind, mixes)
"""


def test_on_another_backend() -> None:
    pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0, run.stderr

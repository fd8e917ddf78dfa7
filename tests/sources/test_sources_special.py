"""Functions that ONNX lacks: how exact their formulas are, in float64 and float32, and that importers write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.graph import reference
from hasten.sources import Source, SourceRequest, special
from hasten.sources.detect import open_source

scipy_special = pytest.importorskip("scipy.special")

TRUE: dict[str, Callable[[Any], Any]] = {
    "lgamma": scipy_special.gammaln, "digamma": scipy_special.psi, "erfinv": scipy_special.erfinv,
}  # fmt: skip
_NUMPY = {
    "Abs": np.abs, "Add": np.add, "Div": np.divide, "Equal": np.equal, "IsInf": np.isinf, "Less": np.less,
    "Log": np.log, "Max": np.maximum, "Min": np.minimum, "Mul": np.multiply, "Neg": np.negative,
    "Reciprocal": np.reciprocal, "Round": np.round, "Sin": np.sin, "Sqrt": np.sqrt, "Sub": np.subtract,
    "Tan": np.tan, "Where": np.where,
}  # fmt: skip


class Numpy:
    """The formulas' operators, all in one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        return lambda *xs: _NUMPY[kind](*(x if isinstance(x, np.ndarray) else self.dtype(x) for x in xs))


def found(name: str, x: Any) -> Any:
    with np.errstate(all="ignore"):
        return getattr(special, name)(Numpy(x.dtype.type), x).astype(np.float64)


def inputs(name: str, dtype: Any) -> Any:
    if name == "erfinv":
        near = 1 - np.geomspace(1e-7, 0.5, 5001)
        x = np.concatenate([np.linspace(-1, 1, 20001)[1:-1], np.geomspace(1e-30, 0.5, 5001), near, -near]).astype(dtype)
        return x[np.abs(x) < 1]
    return np.concatenate([np.geomspace(1e-30, 1e30, 20001), np.linspace(1e-3, 12, 20001)]).astype(dtype)


# lgamma and digamma pass through zero: there their error is absolute, as float32 itself rounds what is subtracted.
@pytest.mark.parametrize(
    ("name", "dtype", "bound"),
    [
        ("lgamma", np.float64, 1e-8), ("digamma", np.float64, 1e-10), ("erfinv", np.float64, 1.3e-7),
        ("lgamma", np.float32, 4e-7), ("digamma", np.float32, 5e-7), ("erfinv", np.float32, 4e-7),
    ],
)  # fmt: skip
def test_the_formulas_are_as_exact_as_they_say(name: str, dtype: Any, bound: float) -> None:
    x = inputs(name, dtype)
    wanted = TRUE[name](x.astype(np.float64))
    scale = np.abs(wanted) if name == "erfinv" or (name, dtype) == ("lgamma", np.float64) else 1 + np.abs(wanted)
    assert np.max(np.abs(found(name, x) - wanted) / np.maximum(scale, 1e-300), where=scale > 0, initial=0) < bound


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_below_zero_they_are_reflected(name: str) -> None:
    x = -np.linspace(1e-3, 20.3, 20001)
    wanted = TRUE[name](x)
    for dtype, bound in ((np.float64, 1e-8), (np.float32, 1e-6)):
        given = x.astype(dtype)
        expected = wanted if dtype is np.float64 else TRUE[name](given.astype(np.float64))
        finite = np.isfinite(expected)
        assert np.max((np.abs(found(name, given) - expected) / (1 + np.abs(expected)))[finite]) < bound


def test_at_poles_and_infinity() -> None:
    x = np.array([0, np.inf, -np.inf, -1, -3, np.nan, 2.0**25, -(2.0**25)], np.float32)
    inf, nan = np.inf, np.nan
    np.testing.assert_allclose(
        found("lgamma", x), [inf, inf, inf, inf, inf, nan, TRUE["lgamma"](2.0**25), inf], rtol=1e-6
    )
    np.testing.assert_allclose(
        found("digamma", x), [-inf, inf, nan, nan, nan, nan, TRUE["digamma"](2.0**25), nan], rtol=1e-6
    )
    np.testing.assert_array_equal(found("erfinv", np.array([1, -1, 0, 1.5, nan], np.float32)), [inf, -inf, 0, nan, nan])


def agrees(source: Source, x: Any) -> None:
    assert source.model is not None, source.notes
    (mine,), (theirs,) = reference.run(source.model, [x]), source.reference([x])
    assert mine.dtype == theirs.dtype
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-6)


X = np.linspace(-3.3, 7.05, 64, dtype=np.float32).reshape(16, 4)


@pytest.mark.frameworks
@pytest.mark.parametrize("name", sorted(TRUE))
def test_tensorflow_s_are_written_out(name: str, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def call(x: Any) -> Any:
        return getattr(tf.math, name)(x * 0.14 if name == "erfinv" else x) * 2

    made = tf.function(call, input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    agrees(open_source(made, SourceRequest(work=tmp_path)), X)


@pytest.mark.frameworks
def test_a_function_that_is_the_answer_itself_keeps_the_answer_s_name(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    made = tf.function(
        lambda x: {"log": tf.math.lgamma(x), "slope": tf.math.digamma(x)},
        input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")],
    )
    source = open_source(made, SourceRequest(work=tmp_path))
    assert source.model is not None
    assert [value.name for value in source.model.graph.outputs] == ["log", "slope"]


@pytest.mark.frameworks
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", sorted(TRUE))
def test_torch_s_are_written_out(name: str, half: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Calling(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            y = x * 0.14 if name == "erfinv" else x
            return getattr(torch, name)(y.half() if half else y).float()

    x = np.abs(X) if half else X
    source = open_source(Calling(), SourceRequest(work=tmp_path, sample=(x[:1],)))
    assert source.model is not None, source.notes
    (mine,), (theirs,) = reference.run(source.model, [x]), source.reference([x])
    np.testing.assert_allclose(mine, theirs, rtol=2e-3 if half else 1e-5, atol=2e-6)


@pytest.mark.frameworks
def test_double_precision_is_refused_in_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Calling(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return torch.lgamma(x.double())

    source = open_source(Calling(), SourceRequest(work=tmp_path, sample=(X[:1],)))
    assert source.model is None
    assert "torch.lgamma of float64 has no ONNX form: expected float32" in source.notes[-1]


@pytest.mark.frameworks
def test_keras_has_the_inverse_of_erf(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((4,))
    source = open_source(keras.Model(x, keras.ops.erfinv(x * 0.14)), SourceRequest(work=tmp_path))
    assert not source.notes
    agrees(source, X)

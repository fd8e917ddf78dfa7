"""How often a source is asked, and what four calls of it find out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper

import hasten
from hasten.api import single
from hasten.errors import InputError, NondeterministicError
from hasten.sources import Source, SourceRequest
from hasten.sources.detect import open_source
from hasten.sources.determinism import check_deterministic
from hasten.sources.samples import draw, samples
from hasten.types import TensorSpec


def doubling(folder: Path) -> Path:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", ends[:1], ends[1:])
    path = folder / "doubling.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def asked(source: Source, calls: list[Any]) -> Source:
    def reference(arrays: Sequence[Any]) -> tuple[Any, ...]:
        calls.append(arrays)
        return source.reference(arrays)

    return Source(**{**source.__dict__, "reference": reference})


def test_what_the_check_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    calls: list[Any] = []
    source = asked(open_source(doubling(tmp_path), SourceRequest(work=tmp_path)), calls)
    given = samples(source, SourceRequest(), 0, 3)
    checked = check_deterministic(source, given)
    assert len(calls) == 4
    for arrays in given[:2]:
        again = [array.copy() for array in arrays]
        np.testing.assert_array_equal(checked.reference(again)[0], 2 * arrays[0])
    assert len(calls) == 4
    np.testing.assert_array_equal(checked.reference(given[2])[0], 2 * given[2][0])
    assert len(calls) == 5


def test_an_input_that_memory_cannot_hold_is_told_with_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [TensorSpec("x", "float32", ("batch", 64)), TensorSpec("volume", "int8", (1, 512, 512))]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**21))
    assert [a.shape for a in draw(specs, {}, np.random.default_rng(0))] == [(1, 64), (1, 512, 512)]
    specs[1] = TensorSpec("volume", "int8", (1, 512, 2**40))
    with pytest.raises(InputError, match=r"volume: int8\[1, 512, 1099511627776\]: expected at most 0\.0 GiB") as told:
        draw(specs, {}, np.random.default_rng(0))
    assert "4194304.0 GiB; check the shape, or whether the file is damaged" in str(told.value)


def test_an_input_that_is_merely_equal_is_asked(tmp_path: Path) -> None:
    calls: list[Any] = []
    source = asked(open_source(doubling(tmp_path), SourceRequest(work=tmp_path)), calls)
    zeros = np.zeros((1, 4), np.float32)
    checked = check_deterministic(source, [[zeros], [zeros + 1]])
    assert np.signbit(checked.reference([-zeros])[0]).all()
    assert checked.reference([np.zeros((2, 4), np.float32)])[0].shape == (2, 4)


def test_compiling_asks_the_source_four_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    plain = single.open_source
    monkeypatch.setattr(single, "open_source", lambda *a: asked(plain(*a), calls))
    fast = hasten.compile(doubling(tmp_path), engine="onnxruntime")
    assert len(calls) == 4
    np.testing.assert_array_equal(fast(np.ones((1, 4), np.float32)), np.full((1, 4), 2, np.float32))


def test_state_that_is_the_same_every_second_call_is_found(tmp_path: Path) -> None:
    source, count = open_source(doubling(tmp_path), SourceRequest(work=tmp_path)), 0

    def alternates(arrays: Sequence[Any]) -> tuple[Any, ...]:
        nonlocal count
        count += 1
        return (arrays[0] * (1 + count % 2),)

    changed = Source(**{**source.__dict__, "reference": alternates})
    with pytest.raises(NondeterministicError):
        check_deterministic(changed, samples(source, SourceRequest(), 0, 2))

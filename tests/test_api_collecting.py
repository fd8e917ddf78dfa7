"""The garbage collector looks seldom while a model is read, and as the user has set it afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import hasten
import small_onnx
from hasten.api.collecting import rarely_collected
from hasten.errors import SourceError


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_what_was_set_comes_back_when_the_last_one_leaves() -> None:
    gc.set_threshold(700, 5, 6)
    first, second = rarely_collected(), rarely_collected()
    with first:
        assert gc.get_threshold() == (50_000, 5, 6)
        second.__enter__()
    assert gc.get_threshold() == (50_000, 5, 6)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 5, 6)


@pytest.mark.parametrize("young", [0, 80_000])
def test_a_collector_that_is_off_or_looks_more_seldom_stays(young: int) -> None:
    gc.set_threshold(young, 10, 10)
    with rarely_collected():
        assert gc.get_threshold()[0] == young
    assert gc.get_threshold()[0] == young


def test_a_setting_made_inside_stays() -> None:
    with rarely_collected():
        gc.set_threshold(900, 10, 10)
    assert gc.get_threshold() == (900, 10, 10)


def test_reading_a_model_collects_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.set_threshold(700, 10, 10)
    seen = []
    opened = hasten.api.single.open_source
    monkeypatch.setattr("hasten.api.single.open_source", lambda *a: (seen.append(gc.get_threshold()), opened(*a))[1])
    hasten.compile(small_onnx.dense(tmp_path / "m.onnx"), engine="onnxruntime").close()
    with pytest.raises(SourceError):
        hasten.compile(tmp_path / "none.onnx", engine="onnxruntime")
    assert seen == [(50_000, 10, 10)] * 2
    assert gc.get_threshold() == (700, 10, 10)

"""The compiled session: where its weights lie changes nothing about its answers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hasten.engines import BuildRequest
from hasten.engines.native import ENGINE
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate
from hasten.sessions.native import NativeSession
from hasten.types import TensorSpec


def built(folder: Path, size: int, threads: int = 1) -> tuple[Artefact, np.ndarray]:
    weight = np.random.default_rng(size).standard_normal((size, size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "square",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, size))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, size))],
        [numpy_helper.from_array(weight, "w")],
    )
    path = folder / "square.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    x, y = (TensorSpec(name, "float32", (1, size)) for name in "xy")
    candidate = Candidate("native", "float32", threads, 1)
    return ENGINE.build(BuildRequest(candidate, path, path, "onnx", (x,), (y,), folder)), weight


def test_an_answer_of_another_shape_than_the_arrays_made_for_it_is_refused(tmp_path: Path) -> None:
    artefact, _ = built(tmp_path, 4)
    path, (x,) = tmp_path / "square.onnx", artefact.inputs
    for shape, dtype in (((1, 3), "float32"), ((4,), "float32"), ((1, 4), "float16")):
        y = TensorSpec("y", dtype, shape)
        request = BuildRequest(artefact.candidate, path, path, "onnx", (x,), (y,), tmp_path)
        with pytest.raises(EngineError, match=r"'y' is float32\[1, 4\]: expected"):
            ENGINE.build(request)


@pytest.mark.parametrize("size", [40, 464])
def test_answers_do_not_depend_on_where_weights_lie(tmp_path: Path, size: int) -> None:
    artefact, weight = built(tmp_path, size)
    session = NativeSession(artefact)
    assert (session._memory is not None) == (size == 464), "640 kB or more move to large pages, 6 kB stay"
    x = np.random.default_rng(0).standard_normal((1, size)).astype(np.float32)
    expected = x.astype(np.float64) @ weight
    for _ in range(3):
        np.testing.assert_allclose(session.call(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_memory_map_is_an_array(tmp_path: Path) -> None:
    session = NativeSession(built(tmp_path, 40)[0])
    x = np.random.default_rng(0).standard_normal((1, 40)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert type(mapped) is np.memmap
    np.testing.assert_array_equal(session.call(mapped), session.call(x), strict=True)
    with pytest.raises(EngineError, match="do not match"):
        session.call(mapped[:, :39])


def test_more_threads_than_a_team_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="at most 8 threads, received 9"):
        built(tmp_path, 64, threads=9)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
def test_a_team_on_one_processor_leaves_it_to_the_caller(tmp_path: Path) -> None:
    artefact, weight = built(tmp_path, 401, threads=2)
    x = np.random.default_rng(0).standard_normal((1, 401)).astype(np.float32)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # as if other programs kept all others busy
    try:
        session = NativeSession(artefact)
        for _ in range(200):
            y = session.call(x)
        process, own = time.process_time(), time.thread_time()
        for _ in range(3000):
            y = session.call(x)
        own, process = time.thread_time() - own, time.process_time() - process
    finally:
        os.sched_setaffinity(0, allowed)
    expected = x.astype(np.float64) @ weight
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert process - own < own / 4, "processor time of the other thread, which can only be in the way"

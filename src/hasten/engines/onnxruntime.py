"""The optimised graph enters; an ONNX file for ONNX Runtime leaves, quantised or halved where the candidate says so.

Threads, spinning and I/O binding are the session's business (``sessions/onnxruntime.py``): they change no file. Where
the source is ONNX itself, the user's own way to call it is offered too, as the framework's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engines import BuildRequest, Offer
from hasten.engines.apart import counted, turns
from hasten.errors import EngineError, HastenError, MissingLibraryError
from hasten.graph.external import data_files
from hasten.records import Artefact, Candidate
from hasten.types import Array

__all__ = ["ENGINE", "OnnxRuntimeEngine"]

ORIGINAL = "original file"
DEFAULT = "InferenceSession.run"
QUANTISED = ("int8-dynamic", "int8")
"""Precisions for which onnxruntime's quantiser makes the graph."""
QUANTISED_FILE = "quantised.onnx"
_PRECISIONS = ("float16", *QUANTISED)
# In the names of all operators that take a weight of bytes with its zero point: only then is the graph parsed.
_ON_BYTES = (b"DynamicQuantizeMatMul", b"DequantizeLinear", b"QLinear", b"QGemm", b"MatMulInteger", b"ConvInteger")
# Calls under the profiler: the first ones are not counted.
_WARM, _TIMED = 20, 200


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU; a core dependency, so never missing."""

    name = "onnxruntime"
    graph_alone = True

    def missing(self) -> str | None:
        """None: installing hasten installs it."""
        return None

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """Plain and bound calls, with spinning and without where there are threads to wait for; each precision once."""
        found = list(self._originals(offer)) if offer.framework == "onnx" else []
        if not offer.has_graph:
            return found
        for batch in offer.batches:
            for threads in offer.threads:
                found += [Candidate(self.name, "float32", threads, batch, o) for o in _variants(threads, offer.quick)]
            for precision in (p for p in offer.precisions if p in _PRECISIONS):
                found += [Candidate(self.name, precision, t, batch, (("bound", True),)) for t in offer.threads]
        return found

    def _originals(self, offer: Offer) -> Iterator[Candidate]:
        for batch in offer.batches:
            yield Candidate(self.name, batch=batch, options=(("call", DEFAULT),))
            yield Candidate(self.name, batch=batch, options=(("call", ORIGINAL),))

    def built_as(self, candidate: Candidate) -> Candidate:
        """The candidate whose files serve this one too: precision and batch alone decide them."""
        original = candidate.option("call")
        return candidate if original else replace(candidate, threads=1, options=())

    def build(self, request: BuildRequest) -> Artefact:
        """``model.onnx`` in the folder.

        Raises:  EngineError: no graph, no calibration data for int8, or the quantiser refuses the graph
        """
        candidate = request.candidate
        if candidate.option("call"):
            size = sum(file.stat().st_size for file in (request.source, *data_files(request.source)))
            details = {"framework": True, "source": str(request.source), "source_bytes": size}
            return _artefact(request, (), details)
        if request.graph is None:
            raise EngineError("onnxruntime: expected a graph, but no importer could read the source")
        path = request.folder / "model.onnx"
        try:
            if candidate.precision == "float32":
                _copy(request.graph, path)
            else:
                _reduce(request, request.graph, path)
        except HastenError:
            raise
        except Exception as error:  # the quantiser raises whatever its parts raise
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise EngineError(f"onnxruntime cannot make a {candidate.precision} graph: {first}") from error
        return _artefact(request, (path.name,), {})

    def operators(self, artefact: Artefact, arrays: Sequence[Array]) -> tuple[tuple[str, str, float], ...]:
        """Name, type and nanoseconds of each node, by the library's own profiler.

        Raises:  EngineError: it does not run, or writes something else
        """
        import onnxruntime  # noqa: PLC0415  (the candidates' list must cost nothing)

        with tempfile.TemporaryDirectory(prefix="hasten-") as folder:
            options = onnxruntime.SessionOptions()
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
            options.intra_op_num_threads, options.log_severity_level = artefact.candidate.threads, 3
            try:
                path = artefact.details.get("source") or str(artefact.path(".onnx"))
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                given = {value.name: array for value, array in zip(session.get_inputs(), arrays, strict=True)}
                for _ in turns(_WARM + _TIMED):
                    session.run(None, given)
                return _medians(json.loads(Path(session.end_profiling()).read_text()))
            except Exception as error:  # onnxruntime's exceptions share no base
                raise EngineError(f"onnxruntime's profiler failed ({type(error).__name__})") from error


def _medians(events: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, float], ...]:
    durations: dict[tuple[str, str], list[float]] = {}
    for event in events:
        details, name = event.get("args"), str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time") and isinstance(details, dict):
            key = (name.removesuffix("_kernel_time"), str(details.get("op_name", "")))
            durations.setdefault(key, []).append(1e3 * float(event["dur"]))
    return tuple((*key, float(np.median(counted(spent, _WARM)))) for key, spent in durations.items())


def _variants(threads: int, quick: bool) -> list[tuple[tuple[str, bool], ...]]:
    if quick and threads == 1:
        return [(("bound", True),)]
    if threads == 1:
        return [(), (("bound", True),)]
    if quick:
        return [(("bound", True), ("spin", True))]
    return [(), (("spin", True),), (("bound", True), ("spin", True))]


def _artefact(request: BuildRequest, files: tuple[str, ...], details: Mapping[str, Any]) -> Artefact:
    dims = {"batch": request.candidate.batch}
    return Artefact(
        candidate=request.candidate,
        folder=request.folder,
        files=files,
        inputs=tuple(s.fixed(dims) for s in request.inputs),
        outputs=tuple(s.fixed(dims) for s in request.outputs),
        portable=True,
        details=details,
    )


def quantised_graph(request: BuildRequest) -> Path:
    """``QUANTISED_FILE`` in the request's folder: the graph in int8, by onnxruntime's quantiser, shapes inferred.

    Raises:  EngineError: no calibration data for int8, or the quantiser refuses the graph
    """
    import onnx  # noqa: PLC0415  (see _reduce)

    assert request.graph is not None
    path = request.folder / QUANTISED_FILE
    try:
        _reduce(request, request.graph, path)
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True), path)
    except HastenError:
        raise
    except Exception as error:  # the quantiser raises whatever its parts raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"onnxruntime cannot make a {request.candidate.precision} graph: {first}") from error
    return path


def _reduce(request: BuildRequest, graph: Path, path: Path) -> None:
    try:
        import onnx  # noqa: PLC0415  (the quantisers take its protobuf)
        from onnxruntime import quantization  # noqa: PLC0415  (heavy; reduced precisions alone need it)
    except ImportError as error:
        raise MissingLibraryError(f"reduced precisions need '{error.name}': pip install --upgrade hasten") from error
    precision = request.candidate.precision
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

        onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=True), path)
    elif precision == "int8-dynamic":
        quantization.quantize_dynamic(graph, path, per_channel=True, weight_type=quantization.QuantType.QInt8)
    elif precision == "int8":
        quantization.quantize_static(graph, path, _calibration(request, graph), per_channel=True)
    else:
        raise EngineError(f"onnxruntime: unknown precision '{precision}': expected float32, {', '.join(_PRECISIONS)}")


def _calibration(request: BuildRequest, graph: Path) -> Any:
    """What onnxruntime's calibrater reads from: batches of the calibration rows, one dictionary each."""
    if request.calibration is None:
        raise EngineError("onnxruntime int8: expected calibration data, received none; pass --data or a sample batch")
    with np.load(request.calibration, allow_pickle=False) as file:
        rows: dict[str, Array] = {name: file[name] for name in file.files}
    size = request.candidate.batch
    specs = [s.fixed({"batch": size}) for s in request.inputs]
    missing = [s.name for s in specs if s.name not in rows]
    if missing:
        raise EngineError(f"calibration data: expected an array for every input, received none for {missing}")
    fixed = [i for i, s in enumerate(request.inputs) if not s.is_batched]
    count = len(rows[specs[0].name]) // (1 if fixed else size)

    def batches() -> Iterator[dict[str, Array]]:
        for k in range(count):
            yield {s.name: _rows(rows[s.name], k, size).reshape(s.static_shape).astype(s.dtype) for s in specs}

    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415  (see _reduce)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
        def __init__(self) -> None:
            self.batches = batches()

        def get_next(self) -> dict[str, Array] | None:
            return next(self.batches, None)

    return Reader()


def _rows(array: Array, k: int, size: int) -> Array:
    return array[k * size : (k + 1) * size]


def _copy(source: Path, target: Path) -> None:
    """The graph, as ONNX Runtime takes it with exact sums of bytes."""
    held = source.read_bytes()
    if not any(mark in held for mark in _ON_BYTES):
        shutil.copyfile(source, target)
        return
    from hasten import graph  # noqa: PLC0415  (the candidates' list must cost nothing)
    from hasten.graph.reference import with_own_zero_points  # noqa: PLC0415

    graph.write(with_own_zero_points(graph.read(source)), target)


ENGINE = OnnxRuntimeEngine()

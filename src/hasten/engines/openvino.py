"""The optimised graph enters; an ONNX file that OpenVINO reads leaves. Options are applied when the session opens."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hasten.engines import BuildRequest, Offer
from hasten.engines.apart import counted, turns
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate
from hasten.sessions.openvino import compiled
from hasten.types import Array

__all__ = ["ENGINE", "OpenVinoEngine"]

# Calls under the profiler: the first ones are not counted.
_WARM, _TIMED = 20, 100


class OpenVinoEngine:
    """OpenVINO's CPU plug-in, one stream, tuned for latency."""

    name = "openvino"
    graph_alone = True

    def missing(self) -> str | None:
        """None where the package can be found, else what to install."""
        return None if importlib.util.find_spec("openvino") else "install hasten[openvino]"

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """Each thread count; float16 and bfloat16 inference where those precisions are allowed."""
        if not offer.has_graph:
            return ()
        precisions = [p for p in ("float32", "bfloat16", "float16") if p in offer.precisions]
        threads = offer.threads[:1] if offer.quick else offer.threads
        return [Candidate(self.name, p, t, b) for b in offer.batches for p in precisions for t in threads]

    def built_as(self, candidate: Candidate) -> Candidate:
        """The candidate whose files serve this one too: the batch alone decides them."""
        return replace(candidate, precision="float32", threads=1, options=())

    def build(self, request: BuildRequest) -> Artefact:
        """``model.onnx`` in the folder.

        Raises:  EngineError: no importer could read the source
        """
        if request.graph is None:
            raise EngineError("openvino: expected a graph, but no importer could read the source")
        shutil.copyfile(request.graph, request.folder / "model.onnx")
        dims = {"batch": request.candidate.batch}
        return Artefact(
            candidate=request.candidate,
            folder=request.folder,
            files=("model.onnx",),
            inputs=tuple(s.fixed(dims) for s in request.inputs),
            outputs=tuple(s.fixed(dims) for s in request.outputs),
            portable=True,
        )

    def operators(self, artefact: Artefact, arrays: Sequence[Array]) -> tuple[tuple[str, str, float], ...]:
        """Name, type and nanoseconds of each node that runs, by the library's own counters, which count microseconds.

        Raises:  EngineError: it does not run
        """
        import openvino  # noqa: PLC0415  (optional; nothing else here needs it)

        spent: dict[tuple[str, str], list[float]] = {}
        try:
            request = compiled(openvino, artefact, {"PERF_COUNT": True}).create_infer_request()
            for _ in turns(_WARM + _TIMED):
                request.infer(dict(enumerate(arrays)))
                for node in request.get_profiling_info():
                    if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                        spent.setdefault((node.node_name, node.node_type), []).append(node.real_time.total_seconds())
        except EngineError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError and its own classes alike
            raise EngineError(f"openvino's profiler failed ({type(error).__name__})") from error
        return tuple((*key, 1e9 * float(np.mean(counted(seconds, _WARM)))) for key, seconds in spent.items())


ENGINE = OpenVinoEngine()

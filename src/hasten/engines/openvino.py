"""The optimised graph enters; an ONNX file that OpenVINO reads leaves. Options are applied when the session opens."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import replace

from hasten.engines import BuildRequest, Offer
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate

__all__ = ["ENGINE", "OpenVinoEngine"]


class OpenVinoEngine:
    """OpenVINO's CPU plug-in, one stream, tuned for latency."""

    name = "openvino"

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


ENGINE = OpenVinoEngine()

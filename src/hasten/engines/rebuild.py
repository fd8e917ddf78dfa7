"""A bundle's portable graph enters; an artefact for this host leaves: ``python -m hasten.engines.rebuild FOLDER``.

The runtime starts this in a process of its own, so that what serves answers never imports what builds. The folder
holds ``graph.onnx``, ``candidate.json`` and, of an artefact that was compiled from one, a quantiser's
``quantised.onnx``; the artefact's files and ``artefact.json`` are put beside them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from hasten import graph
from hasten.engines import BuildRequest, engine
from hasten.engines.onnxruntime import QUANTISED_FILE
from hasten.errors import HastenError, MissingLibraryError
from hasten.passes.fix_shapes import fix_shapes
from hasten.passes.phases import OPTIMISE
from hasten.passes.run import run_phases
from hasten.records import Candidate, to_json

__all__ = ["main"]


def main(folder: Path) -> None:
    """Builds the candidate in ``folder``.

    Raises:  HastenError: the engine is missing here or refuses the graph
    """
    candidate = Candidate.from_json(json.loads((folder / "candidate.json").read_text()))
    chosen = engine(candidate.engine)
    missing = chosen.missing()
    if missing is not None:
        raise MissingLibraryError(missing)
    portable = graph.read(folder / "graph.onnx")
    free = any(spec.is_batched for spec in graph.specs(portable)[0])
    fixed = fix_shapes({"batch": candidate.batch} if free else {})
    optimised, _ = run_phases(portable, [(fixed,), OPTIMISE])
    path = folder / "optimised.onnx"
    graph.write(optimised, path)
    inputs, outputs = graph.specs(optimised)
    quantised = folder / QUANTISED_FILE
    request = BuildRequest(candidate, path, path, "onnx", inputs, outputs, folder)
    artefact = chosen.build(replace(request, quantised=quantised if quantised.exists() else None))
    (folder / "artefact.json").write_text(json.dumps(to_json(artefact)))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except HastenError as error:
        sys.exit(str(error))

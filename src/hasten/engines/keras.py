"""The user's own framework, call path by call path, so that they see themselves beside what is faster.

The source's own file enters and is copied as it is; ``sessions.keras`` opens it and builds the path. Such an artefact
needs the whole framework and is never shipped: ``details["framework"]`` says so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hasten.engines import BuildRequest, Offer
from hasten.errors import EngineError
from hasten.records import Artefact, Candidate

__all__ = ["ENGINE"]

_OWN = ("predict", "predict_on_batch", "call numpy", "call tensor", "tf.function")
"""As users call a model: with the threads that the framework takes by itself."""
_COMPILED = ("concrete", "xla")
"""As a careful user would: threads set."""
_ANY_BACKEND = ("predict", "predict_on_batch", "call numpy", "call tensor")


class KerasEngine:
    """Keras models by every way to call them, TensorFlow's SavedModels by their signature."""

    name = "keras"

    def missing(self) -> str | None:
        """None where Keras and its backend are installed."""
        if not find_spec("keras"):
            return "keras is not installed: install hasten[keras]"
        backend = _backend()
        if not find_spec(backend):
            return f"keras' backend {backend} is not installed: install hasten[keras]"
        return None

    def preload(self) -> None:
        """Imports the framework, and no more: the tuner forks a process for each call path from one that has it."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if _backend() == "tensorflow":
            import keras  # noqa: F401, PLC0415 - a framework, in its own adapter
            import tensorflow  # noqa: F401, PLC0415

    def candidates(self, offer: Offer) -> Sequence[Candidate]:
        """One for each call path; ``--quick``: what people do and what is usually best."""
        if offer.source_suffix == ".onnx":  # an object that Keras could not save: only its graph is there
            return ()
        own: tuple[str, ...]
        compiled: tuple[str, ...]
        if offer.framework == "tensorflow":
            own, compiled = ("signature",), ("xla",)
        elif offer.framework == "keras":
            tensorflow = _backend() == "tensorflow"
            own, compiled = (_OWN, _COMPILED) if tensorflow else (_ANY_BACKEND, ())
            if offer.quick:
                own, compiled = ("predict",), compiled[:1]
        else:
            return ()
        return tuple(
            Candidate("keras", "float32", threads, batch, (("path", path),))
            for batch in offer.batches
            for path in (*own, *compiled)
            for threads in (offer.threads if path in compiled and not offer.quick else offer.threads[:1])
        )

    def build(self, request: BuildRequest) -> Artefact:
        """A copy of the source's file or folder in ``request.folder``.

        Raises:  EngineError: the source is gone
        """
        request.folder.mkdir(parents=True, exist_ok=True)
        target = request.folder / ("source" if request.source.is_dir() else f"source{request.source.suffix}")
        try:
            files = _copy(request.source, target, request.folder)
        except OSError as error:
            raise EngineError(f"keras: cannot copy '{request.source}': {error.strerror or error}") from error
        path = str(request.candidate.option("path"))
        return Artefact(
            candidate=request.candidate,
            folder=request.folder,
            files=files,
            inputs=request.inputs,
            outputs=request.outputs,
            portable=True,
            details={
                "framework": True,
                "source": target.name,
                "trust": request.trust,
                "own_threads": path not in _COMPILED and path != "xla",
            },
        )


ENGINE = KerasEngine()


def _copy(source: Path, target: Path, folder: Path) -> tuple[str, ...]:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return tuple(sorted(str(p.relative_to(folder)) for p in target.rglob("*") if p.is_file()))
    shutil.copyfile(source, target)
    return (target.name,)


def _backend() -> str:
    """The backend that Keras will take, without importing it."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    config = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        return str(json.loads(config.read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"

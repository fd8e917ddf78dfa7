"""A model file or object enters; the ``Source`` of the adapter that it needs leaves.

What the thing *is* decides: a file's first bytes and what its archive holds, an object's classes by the names of their
modules (no framework is imported to find out). A file's ending decides nothing; where it disagrees, a note says so.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hasten.errors import HastenError, SourceError
from hasten.sources import Source, SourceRequest
from hasten.sources.held import with_held

__all__ = ["kind_of_file", "kind_of_object", "open_source"]

# kind → (module, function); the function takes (path or object, request) and returns a Source.
_ADAPTERS = {
    "keras": ("hasten.sources.keras", "open_keras"),
    "saved_model": ("hasten.sources.tensorflow", "open_saved_model"),
    "tf_function": ("hasten.sources.tensorflow", "open_tf_function"),
    "tflite": ("hasten.sources.tflite", "open_tflite"),
    "torch": ("hasten.sources.torch", "open_torch"),
    "onnx": ("hasten.sources.onnx", "open_onnx"),
}
_ENDINGS = {
    "keras": {".keras", ".h5", ".hdf5", ".json"},
    "tflite": {".tflite", ".lite"},
    "torch": {".pt", ".pth", ".pt2", ".ts", ".bin", ".ckpt", ".torchscript"},
    "onnx": {".onnx", ".pb", ".ort"},
}
_LIBRARIES = {"keras": "keras", "tensorflow": "keras", "tf2onnx": "keras", "h5py": "keras", "torch": "torch"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TFLITE = b"TFL3"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before zip archives: its magic number
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_ZIP = b"PK\x03\x04"


def open_source(model: object | str | Path, request: SourceRequest) -> Source:
    """The source of a model file, a folder or a framework's own object.

    Raises:  SourceError: missing, empty, cut short, no model, or one that the adapter cannot read;
             TrustError: reading it would run code from it and ``request.trust`` is not set
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        kind = kind_of_file(path)
        return with_held(_note_ending(_adapter(kind)(path, request), kind, path), request)
    return with_held(_adapter(kind_of_object(model))(model, request), request)


def kind_of_file(path: Path) -> str:
    """Which adapter reads this file or folder.

    Raises:  SourceError: there is nothing, or nothing that could be a model
    """
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise SourceError(f"cannot read '{path}': no such file; check the path") from error
    except OSError as error:
        raise SourceError(f"cannot read '{path}': {error.strerror or error}") from error
    if path.name in _SAVED_MODEL:
        raise SourceError(f"cannot read '{path}' alone: it is a part of a SavedModel; hand in the folder it lies in")
    if not head:
        raise SourceError(f"cannot read '{path}': expected a model, received an empty file (0 bytes)")
    if head[4:8] == _TFLITE:
        return "tflite"
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    if head.startswith(_TORCH_LEGACY) or (head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[2:3] in b"\x8a\x95}c("):
        return "torch"
    if head.lstrip()[:1] == b"{":
        return _kind_of_json(path)
    return _kind_by_elimination(path, head)


def kind_of_object(model: object) -> str:
    """Which adapter takes this object, by the modules of its classes.

    Raises:  SourceError: none
    """
    classes = [f"{c.__module__}.{c.__qualname__}" for c in type(model).__mro__]
    if any(c.startswith("torch.nn.modules.module.") or c.startswith("torch.export.") for c in classes):
        return "torch"
    if any(c.startswith("torch.jit.") for c in classes):
        return "torch"
    if any(c.startswith(("keras.", "tf_keras.")) and c.endswith((".Model", ".Layer")) for c in classes):
        return "keras"
    if any(c.startswith("onnx_ir.") or (c.startswith("onnx.") and c.endswith("ModelProto")) for c in classes):
        return "onnx"
    if any(c.startswith("tensorflow.") for c in classes):
        return "tf_function"
    raise SourceError(
        f"cannot read an object of class {classes[0]}: expected a path, a Keras model, a torch.nn.Module, "
        "an exported torch program, a tf.function or an ONNX model"
    )


def _adapter(kind: str) -> Callable[[object, SourceRequest], Source]:
    module, function = _ADAPTERS[kind]
    try:
        found: Callable[[object, SourceRequest], Source] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise _missing(error) from error

    def opened(model: object, request: SourceRequest) -> Source:
        try:
            return found(model, request)
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        except HastenError:
            raise
        except MemoryError as error:
            raise SourceError("cannot read the model: out of memory") from error

    return opened


def _missing(error: ModuleNotFoundError) -> SourceError:
    library = (error.name or str(error)).split(".")[0]
    extra = _LIBRARIES.get(library)
    advice = f"install hasten[{extra}]" if extra else f"install {library}"
    return SourceError(f"cannot read this model without the library '{library}': {advice}")


def _kind_of_folder(path: Path) -> str:
    found = next((path / name for name in _SAVED_MODEL if (path / name).is_file()), None)
    if found is not None and not found.stat().st_size:
        raise SourceError(f"cannot read '{path}': expected a SavedModel, received an empty {found.name} (0 bytes)")
    if found is not None:
        return "saved_model"
    raise SourceError(
        f"cannot read '{path}': expected a model file or a SavedModel folder (with saved_model.pb), "
        "received a folder without one"
    )


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SourceError(
            f"cannot read '{path}': expected a whole archive, received one that is cut short or damaged ({error})"
        ) from error
    inner = {name.split("/", 1)[-1] for name in names}
    if "manifest.json" in names:
        raise SourceError(f"cannot optimise '{path}': it is a bundle already; open it with hasten.load")
    if "config.json" in names and any(name.startswith("model.weights") for name in names):
        return "keras"
    if inner & {"data.pkl", "constants.pkl", "archive_format", "serialized_exported_program.json"}:
        return "torch"
    raise SourceError(
        f"cannot read '{path}': expected a Keras or PyTorch archive, received a zip with "
        f"{', '.join(sorted(names)[:3]) or 'nothing'}"
    )


def _kind_of_json(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SourceError(f"cannot read '{path}': expected a model, received damaged JSON ({error})") from error
    if isinstance(content, dict) and {"class_name", "config"} <= content.keys():
        return "keras"
    raise SourceError(
        f"cannot read '{path}': expected a Keras model.json with class_name and config, received other JSON"
    )


def _kind_by_elimination(path: Path, head: bytes) -> str:
    # An ONNX file has no magic number: it is a protobuf that starts with ir_version (field 1) in every known writer,
    # but any field of ModelProto (1 to 8, 14, 20, 25) may come first.
    field, wire = head[0] >> 3, head[0] & 7
    if (field, wire) in {(1, 0), (2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2), (14, 2)}:
        return "onnx"
    raise SourceError(
        f"cannot read '{path}': not a model in any known format (it starts with {head[:8]!r}); expected "
        "Keras, TensorFlow, TFLite, PyTorch or ONNX"
    )


def _note_ending(source: Source, kind: str, path: Path) -> Source:
    expected = _ENDINGS.get(kind)
    ending = path.suffix.lower()
    if expected is None or ending in expected:
        return source
    named = f"is named '{ending}'" if ending else "has no ending"
    return replace(source, notes=(*source.notes, f"the file {named} but holds a {kind} model: read as {kind}"))

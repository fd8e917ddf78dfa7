"""The layers that a Keras file describes, read from its JSON without Keras: names, classes, arguments, connections."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Layer", "layers_of_config", "read_layers"]


@dataclass(frozen=True)
class Layer:
    """One layer of a Keras model's configuration."""

    name: str
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[Mapping[str, Any], ...] = ()
    """The keyword arguments of each call (``training=True`` and the like); those that the model around it hands on."""
    used: bool = True
    """False where no output of the model depends on it."""


def read_layers(path: Path) -> tuple[Layer, ...]:
    """The layers of a ``.keras`` or ``.h5`` file; () for anything else."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if "config.json" not in archive.namelist():
                    return ()
                return layers_of_config(json.loads(archive.read("config.json")))
        text = _h5_config(path) if path.suffix in (".h5", ".hdf5") else None
        return layers_of_config(json.loads(text)) if text else ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return ()


def _h5_config(path: Path) -> str | None:
    try:
        import h5py  # noqa: PLC0415  (optional: comes with hasten[keras])
    except ImportError:
        return None
    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
    return text.decode() if isinstance(text, bytes) else text


def layers_of_config(config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of a model's configuration, nested models' and wrappers' included."""
    return tuple(_layers(config))


def _layers(config: Mapping[str, Any], around: tuple[Mapping[str, Any], ...] = ()) -> Iterator[Layer]:
    """The layers of a model that is called with ``around``."""
    inner = config.get("config", {})
    entries = inner.get("layers", []) if isinstance(inner, dict) else []
    used = _reachable(inner, entries) if isinstance(inner, dict) else None
    for entry in entries:
        name = entry.get("name") or entry.get("config", {}).get("name", "")
        own = entry.get("config", {})
        kind = entry.get("class_name", "")
        calls = _handed_on(tuple(_call_arguments(entry)), around)
        yield Layer(name, kind, own, calls, used is None or name in used)
        if isinstance(own, dict) and "layers" in own:
            yield from _layers(entry, calls)
        wrapped = own.get("layer") if isinstance(own, dict) else None
        if isinstance(wrapped, dict) and "class_name" in wrapped:
            wrapped_config = wrapped.get("config", {})
            yield Layer(wrapped_config.get("name", name), wrapped["class_name"], wrapped_config, calls)


def _handed_on(
    own: tuple[Mapping[str, Any], ...], around: tuple[Mapping[str, Any], ...]
) -> tuple[Mapping[str, Any], ...]:
    """A layer's calls, with the ``training`` of the model around it where its own leave that open."""
    modes = [{"training": call["training"]} for call in around if call.get("training") is not None]
    if not modes:
        return own
    said = [{k: v for k, v in call.items() if v is not None} for call in own or ({},)]
    return tuple({**mode, **call} for mode in modes for call in said)


def _call_arguments(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for call in entry.get("inbound_nodes", ()):
        if isinstance(call, dict):  # Keras 3
            yield call.get("kwargs", {}) or {}
        elif isinstance(call, list):  # Keras 2: [[name, node, tensor, kwargs], …]
            for source in call:
                if isinstance(source, list) and len(source) > 3 and isinstance(source[3], dict):
                    yield source[3]


def _reachable(config: Mapping[str, Any], entries: list[Any]) -> set[str] | None:
    """The names of layers that an output depends on; None where the model is no functional one."""
    outputs = config.get("output_layers")
    if not outputs:
        return None
    sources = {e.get("name", ""): set(_sources(e.get("inbound_nodes", []))) for e in entries}
    seen: set[str] = set()
    stack = list(_names(outputs))
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(sources.get(name, ()))
    return seen | set(_names(config.get("input_layers", [])))


def _sources(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        history = node.get("config", {}).get("keras_history") if node.get("class_name") == "__keras_tensor__" else None
        if history:
            yield str(history[0])
        else:
            for value in node.values():
                yield from _sources(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int) and isinstance(node[2], int):
            yield node[0]
        for value in node:
            yield from _sources(value)


def _names(places: Any) -> Iterator[str]:
    """Layer names in Keras' ways of writing outputs: [name, 0, 0], a list or a dictionary of such."""
    if isinstance(places, dict):
        for value in places.values():
            yield from _names(value)
    elif isinstance(places, list) and places:
        if isinstance(places[0], str):
            yield places[0]
        else:
            for value in places:
                yield from _names(value)

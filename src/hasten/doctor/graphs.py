"""The doctor on models: an ``onnx_ir`` graph (and a Keras file's own configuration) through the rules of group H6.

A graph enters, findings leave, each naming the node or layer. Opening the file is the caller's: this room reads graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
from google.protobuf.message import DecodeError

from hasten.doctor.layers import Layer, read_layers
from hasten.doctor.settings import Settings
from hasten.records import Finding
from hasten.types import Array

__all__ = ["GraphHit", "GraphRule", "ModelView", "examine_model", "graph_of_file", "notes_of"]

_RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
)


@dataclass(frozen=True)
class GraphHit:
    """One thing about a model; ``where`` names the node, layer, weight or input."""

    where: str
    message: str


@dataclass(frozen=True)
class GraphRule:
    """One flaw of models and how to see it."""

    code: str
    name: str
    remedy: str
    check: Callable[[ModelView], Iterable[GraphHit]]


class ModelView:
    """A model as the rules see it: nodes in order, constants, consumers, and the layers of its Keras file."""

    def __init__(self, model: ir.Model | None, layers: tuple[Layer, ...] = ()) -> None:
        self.model = model
        self.layers = layers

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """Every node, those of subgraphs included."""
        return list(ir.traversal.RecursiveGraphIterator(self.model.graph)) if self.model is not None else []

    @property
    def top(self) -> list[ir.Node]:
        """The nodes of the main graph."""
        return list(self.model.graph) if self.model is not None else []

    @property
    def inputs(self) -> list[ir.Value]:
        """The graph's inputs that are no weights."""
        if self.model is None:
            return []
        return [v for v in self.model.graph.inputs if v.name not in self.model.graph.initializers]

    @property
    def weights(self) -> list[ir.Value]:
        """The graph's initializers."""
        return list(self.model.graph.initializers.values()) if self.model is not None else []

    def constant(self, value: ir.Value | None) -> Array | None:
        """The content of a value known before any run: an initializer or a Constant node's output."""
        if value is None:
            return None
        if value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        node = value.producer()
        if node is not None and node.op_type == "Constant" and "value" in node.attributes:
            return np.asarray(node.attributes["value"].as_tensor().numpy())
        return None

    def is_constant(self, value: ir.Value | None) -> bool:
        """True for initializers and the outputs of Constant nodes."""
        if value is None:
            return True
        node = value.producer()
        return value.const_value is not None or (node is not None and node.op_type == "Constant")

    def only_user(self, value: ir.Value) -> ir.Node | None:
        """The one node that reads a value, where there is just one and the value is no output."""
        users = [usage.node for usage in value.uses()]
        return users[0] if len(users) == 1 and not value.is_graph_output() else None

    def layers_of(self, node: ir.Node) -> list[Layer]:
        """The layers of the Keras file that a node came from, as its name tells: `model/layer/operator`."""
        parts = (node.name or "").split("/")
        return [layer for layer in self.layers if layer.name in parts]

    def is_random(self, node: ir.Node) -> bool:
        """True for nodes that draw numbers."""
        return node.op_type in _RANDOM


def examine_model(model: ir.Model | None, path: Path, settings: Settings) -> tuple[Finding, ...]:
    """What the rules say of a model and the file it came from."""
    view = ModelView(model, read_layers(path))
    return tuple(_findings(view, str(path), settings))


def graph_of_file(path: Path) -> ir.Model | None:
    """The graph of an ONNX file as it stands, free dimensions and all; None for any other file."""
    if path.suffix != ".onnx" or not path.is_file():
        return None
    try:
        return ir.load(path)
    except (OSError, ValueError, RuntimeError, DecodeError):
        return None


def notes_of(model: ir.Model | None, notes: Sequence[str] = ()) -> str:
    """Why only part of a model was examined; '' where all of it was. ``notes``: what its importer said."""
    why = "; ".join(notes) or "no importer reads its graph"
    return "" if model is not None else f"only what lies outside its graph was examined: {why}"


def _findings(view: ModelView, path: str, settings: Settings) -> Iterator[Finding]:
    from hasten.doctor.rules import graph_rules  # noqa: PLC0415  (the rules import this module)

    for rule in graph_rules():
        if settings.wants(rule.code):
            for hit in rule.check(view):
                yield Finding(rule.code, f"{hit.where}: {hit.message}", rule.remedy, path)

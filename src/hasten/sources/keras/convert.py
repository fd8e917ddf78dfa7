"""Walks a Keras model and writes each layer it meets as ONNX nodes.

The model's own ``call`` is run on symbolic ``KerasTensor``s, which records one Keras node per layer or ``keras.ops``
operation: functional, sequential and subclassed models, and layers within layers, all come out alike, on any backend.
A layer with an entry in ``table.LAYERS`` is converted whole; any other is opened up the same way, down to operations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hasten.sources.keras.build import Shape, Tensor, Unsupported
from hasten.sources.keras.reference import told
from hasten.sources.keras.scope import Call, Converter, Scope
from hasten.sources.keras.symbolic import tracing
from hasten.sources.keras.table import LAYERS, OPERATIONS

__all__ = ["Importer"]

# What a user's subclass of a Keras layer may redefine without changing what the layer computes.
_HARMLESS = frozenset(
    {
        *("__init__", "__module__", "__doc__", "__qualname__", "__dict__", "__weakref__", "__annotations__"),
        *("__firstlineno__", "__static_attributes__", "build", "get_config", "from_config", "get_build_config"),
        *("compute_mask", "compute_output_shape", "compute_output_spec", "build_from_config"),
        *("save_own_variables", "load_own_variables"),
    }
)
_OPENED = frozenset({"Layer", "Model", "Functional", "Sequential", "Lambda", "Wrapper"})


class Importer(Scope):
    """One import: ``apply(model, tensors)`` writes the graph and returns the output tensors."""

    def __init__(self, batch: int | None = None) -> None:
        super().__init__(batch)
        self.opened: list[str] = []
        """Layers that had no converter of their own and were imported operation by operation."""
        self.own = True
        """Whether every function that was traced is Keras' own."""
        self._recorded: list[Any] = []
        self._outer: dict[int, Tensor] = {}
        """Symbols of the traces around this one: a loop's functions may use what is outside."""

    def apply(self, layer: Any, arguments: Sequence[Any], named: Mapping[str, Any] | None = None) -> Any:
        """What calling ``layer`` on these tensors returns, masks carried along as Keras carries them."""
        with self.within(layer.name):
            arguments, named = _autocast(self, layer, arguments, _accepted(layer, named or {}))
            bound = _bind(layer, arguments, named)
            previous = _add_masks(layer, bound)
            result = self._convert(layer, arguments, named, bound)
            return self._carry_masks(layer, bound, previous, result)

    def inline(self, call: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any] | None = None) -> Any:
        """What ``call`` returns, traced operation by operation.

        Raises:  Unsupported: it leaves ``keras.ops`` behind, or does what no converter knows
        """
        import keras  # noqa: PLC0415

        self.own &= _is_own(call)
        known: dict[int, Tensor] = dict(self._outer)
        keep: list[Any] = []
        symbolic = keras.tree.map_structure(
            lambda v: self._symbol(v, known, keep), (tuple(arguments), dict(named or {}))
        )
        try:
            with tracing():
                outputs = call(*symbolic[0], **symbolic[1])
        except Unsupported:
            raise
        except Exception as error:
            raise Unsupported(_why_untraceable(error)) from error
        outer, self._outer = self._outer, known
        for node in _in_order([t for t in keras.tree.flatten(outputs) if _is_symbol(t)], known):
            self._recorded.append(node)
            self._node(node, known)
        self._outer = outer
        return keras.tree.map_structure(lambda t: _found(t, known) if _is_symbol(t) else self.tensor(t), outputs)

    def forget(self) -> None:
        """Takes the recorded calls out of the model again, so that importing leaves no trace in it."""
        for node in self._recorded:
            for owner in (node.operation._inbound_nodes, *(_outbound(t) for t in node.input_tensors)):
                if node in owner:
                    owner.remove(node)
        self._recorded.clear()

    def _node(self, node: Any, known: dict[int, Tensor]) -> None:
        import keras  # noqa: PLC0415

        filled = keras.tree.map_structure(
            lambda v: _found(v, known) if _is_symbol(v) else v, (node.arguments.args, node.arguments.kwargs)
        )
        operation = node.operation
        if isinstance(operation, keras.layers.Layer):
            result = self.apply(operation, *filled)
        else:
            result = self._operation(operation, filled, node.outputs)
        for symbol, tensor in zip(node.outputs, _flat(result), strict=True):
            known[id(symbol)] = tensor

    def _operation(self, operation: Any, filled: tuple[Any, Any], outputs: Sequence[Any]) -> Any:
        kind = type(operation).__name__
        converter = OPERATIONS.get(kind) if type(operation).__module__.startswith("keras.src.") else None
        if converter is None:
            raise Unsupported(f"operation '{operation.name}' (keras.ops {kind}): no converter")
        bound = _bind(operation, *filled)
        call = Call(operation, bound, tuple(map(self._shape, outputs)), tuple(_dtype(t) for t in outputs))
        result = _naming(operation, lambda: converter(self, call))
        return result if kind == "ConvertToTensor" else _strip(result)  # that one hands its argument on, mask and all

    def _convert(self, layer: Any, arguments: Sequence[Any], named: Mapping[str, Any], bound: dict[str, Any]) -> Any:
        if bound.get("training") not in (None, False) and type(layer).__name__ not in _OPENED:
            raise Unsupported(f"layer '{layer.name}' ({type(layer).__name__}): it is called with training=True")
        converter = _converter(layer)
        if converter is None:
            return self._open(layer, arguments, named, bound)
        outputs = _flat(self._spec(layer, bound))
        call = Call(layer, bound, tuple(map(self._shape, outputs)), tuple(_dtype(t) for t in outputs))
        result = _naming(layer, lambda: converter(self, call))
        return result if layer.supports_masking else _strip(result)

    def _open(self, layer: Any, arguments: Sequence[Any], named: Mapping[str, Any], bound: dict[str, Any]) -> Any:
        from keras.src.backend import AutocastScope  # noqa: PLC0415

        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            raise Unsupported(f"layer '{layer.name}' ({type(layer).__name__}): its weights are quantised to {mode}")
        extra = {k: v for k, v in bound.items() if k == "mask" or k.endswith("_mask") or k == "training"}
        positional = set(list(bound)[: len(arguments)])
        named = {**named, **{k: v for k, v in extra.items() if k not in positional}}
        if type(layer).__name__ not in _OPENED:
            self.opened.append(f"'{layer.name}' ({type(layer).__name__})")
        self.own &= _is_own(type(layer)) and type(layer).__name__ != "Lambda"

        def traced(*args: Any, **kwargs: Any) -> Any:
            scope = AutocastScope(layer.compute_dtype if layer.compute_dtype != layer.variable_dtype else None)
            with scope:
                return layer.call(*args, **kwargs)

        return _naming(layer, lambda: self.inline(traced, arguments, named))

    def _symbol(self, value: Any, known: dict[int, Tensor], keep: list[Any]) -> Any:
        """A ``KerasTensor`` that stands for a tensor of the graph, its mask too."""
        import keras  # noqa: PLC0415
        from keras.src import backend  # noqa: PLC0415

        if not isinstance(value, Tensor):
            return value
        shape = tuple(self.batch if d is None and i == 0 else d for i, d in enumerate(value.shape))
        symbol = keras.KerasTensor(shape, dtype=value.dtype)
        known[id(symbol)] = value
        keep.append(symbol)
        if value.mask is not None:
            backend.set_keras_mask(symbol, self._symbol(value.mask, known, keep))
        return symbol

    def _shape(self, symbol: Any) -> Shape:
        batch = self.batch
        return tuple(None if batch and d and d % batch == 0 else d for d in symbol.shape)

    def _spec(self, layer: Any, bound: Mapping[str, Any]) -> Any:
        """The symbolic outputs of a layer, for their shapes; masks need not be told."""
        import keras  # noqa: PLC0415

        known: dict[int, Tensor] = {}
        skipped = {k: v for k, v in bound.items() if k != "training" and not (k.endswith("mask") and v is None)}
        args = keras.tree.map_structure(lambda v: self._symbol(v, known, []), skipped)
        try:
            return layer.compute_output_spec(args.pop(next(iter(args))), **args)
        except Exception as error:
            raise Unsupported(
                f"layer '{layer.name}' ({type(layer).__name__}): its output shape is unknown ({told(error)})"
            ) from error

    def _carry_masks(self, layer: Any, bound: dict[str, Any], previous: Any, result: Any) -> Any:
        import keras  # noqa: PLC0415

        flat = _flat(result)
        if not layer.supports_masking or all(t.mask is not None for t in flat):
            return result
        masks = self._masks(layer, next(iter(bound.values()), None), previous)
        pairs = iter([t if t.mask is not None or m is None else t.masked(m) for t, m in zip(flat, masks, strict=False)])
        if len(masks) < len(flat):
            return result
        return keras.tree.pack_sequence_as(result, list(pairs))

    def _masks(self, layer: Any, inputs: Any, previous: Any) -> list[Any]:
        if getattr(layer.compute_mask, "_is_default", False):
            return _flat(previous, leaves_none=True)
        bare = _strip(inputs)
        computed = self.inline(layer.compute_mask, (bare, previous))
        return [] if computed is None else _flat(computed, leaves_none=True)


def _converter(layer: Any) -> Converter | None:
    """The converter of the Keras class behind ``layer``, unless a subclass changes what it computes."""
    for cls in type(layer).__mro__:
        if cls.__module__.startswith("keras.src."):
            return LAYERS.get(cls.__name__) if getattr(layer, "quantization_mode", None) is None else None
        if not set(vars(cls)) <= _HARMLESS:
            return None
    return None


def _is_own(code: Any) -> bool:
    """Whether a class or function is Keras' own, or this file's, which stands for a layer's ``call``."""
    return str(getattr(code, "__module__", "")).startswith(("keras.src.", __name__))


def _naming(layer: Any, convert: Callable[[], Any]) -> Any:
    """Runs one converter; what it cannot do is said with the layer's name."""
    try:
        return convert()
    except Unsupported as error:
        if "layer '" in str(error):
            raise
        raise Unsupported(f"layer '{layer.name}' ({type(layer).__name__}): {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, NotImplementedError) as error:
        raise Unsupported(f"layer '{layer.name}' ({type(layer).__name__}): {told(error)}") from error


def _bind(layer: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    return dict(inspect.signature(layer.call).bind(*arguments, **named).arguments)


def _accepted(layer: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """Without the context arguments (``training``) that Keras records for layers whose ``call`` takes none."""
    parameters = inspect.signature(layer.call).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: v for k, v in named.items() if anything or k in parameters or k != "training"}


def _autocast(
    graph: Importer, layer: Any, arguments: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arrays as constants, floating inputs in the layer's compute dtype, as ``Layer.__call__`` does it."""
    import keras  # noqa: PLC0415

    cast = layer.autocast and getattr(layer, "_convert_input_args", True)

    def convert(v: Any) -> Any:
        if isinstance(v, np.ndarray) or (not isinstance(v, Tensor) and keras.ops.is_tensor(v)):
            v = graph.tensor(v)
        if cast and isinstance(v, Tensor) and v.dtype in ("float16", "bfloat16", "float32", "float64"):
            return graph.cast(v, layer.input_dtype)
        return v

    given: tuple[Sequence[Any], Mapping[str, Any]] = keras.tree.map_structure(convert, (tuple(arguments), dict(named)))
    return given


def _add_masks(layer: Any, bound: dict[str, Any]) -> Any:
    """Fills mask arguments from the masks that the inputs carry, as ``Layer.__call__`` does; returns the first's."""
    import keras  # noqa: PLC0415

    names = inspect.signature(layer.call).parameters
    tensors = {k: v for k, v in bound.items() if any(isinstance(t, Tensor) for t in keras.tree.flatten(v))}
    carriers = [k for k in tensors if not (k == "mask" or k.endswith("_mask"))]
    if len(carriers) == 1 and "mask" in names and bound.get("mask") is None:
        bound["mask"] = _mask_of(tensors[carriers[0]])
    elif len(carriers) > 1:
        for k in carriers:
            if f"{k}_mask" in names and bound.get(f"{k}_mask") is None:
                bound[f"{k}_mask"] = _mask_of(tensors[k])
    explicit = bound.get("mask")
    return explicit if explicit is not None else _mask_of(next(iter(bound.values()), None))


def _mask_of(structure: Any) -> Any:
    import keras  # noqa: PLC0415

    return keras.tree.map_structure(lambda t: t.mask if isinstance(t, Tensor) else None, structure)


def _strip(structure: Any) -> Any:
    import keras  # noqa: PLC0415

    return keras.tree.map_structure(lambda t: t.masked(None) if isinstance(t, Tensor) else t, structure)


def _in_order(outputs: Sequence[Any], known: Mapping[int, Tensor]) -> list[Any]:
    """The recorded nodes that ``outputs`` need, each after those that it reads; no recursion, for deep models."""
    done: set[int] = set()
    found: list[Any] = []
    stack = [(_producer(t), False) for t in outputs if id(t) not in known]
    while stack:
        node, ready = stack.pop()
        if ready:
            found.append(node)
        elif id(node) not in done:
            done.add(id(node))
            stack.append((node, True))
            stack += [(_producer(t), False) for t in node.input_tensors if id(t) not in known]
    return found


def _found(symbol: Any, known: Mapping[int, Tensor]) -> Tensor:
    """The tensor of the graph that a symbol stands for.

    Raises:  Unsupported: Keras recorded nothing that makes it
    """
    if id(symbol) not in known:
        raise Unsupported(f"Keras does not record what makes its tensor '{symbol.name}'")
    return known[id(symbol)]


def _producer(tensor: Any) -> Any:
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        raise Unsupported(f"tensor '{tensor.name}' comes from outside the model")
    return history.operation._inbound_nodes[history.node_index]


def _outbound(tensor: Any) -> list[Any]:
    history = getattr(tensor, "_keras_history", None)
    nodes: list[Any] = [] if history is None or history.operation is None else history.operation._outbound_nodes
    return nodes


def _is_symbol(value: Any) -> bool:
    import keras  # noqa: PLC0415

    return isinstance(value, keras.KerasTensor)


def _flat(structure: Any, *, leaves_none: bool = False) -> list[Any]:
    import keras  # noqa: PLC0415

    leaves: list[Any] = keras.tree.flatten(structure)
    return leaves if leaves_none else [t for t in leaves if t is not None]


def _dtype(symbol: Any) -> str:
    import keras  # noqa: PLC0415

    name: str = keras.backend.standardize_dtype(symbol.dtype)
    return name


def _why_untraceable(error: Exception) -> str:
    reason = told(error)
    if "KerasTensor" in reason or "__jax_array__" in reason:
        return "its code calls the backend itself, not keras.ops"
    return f"its code cannot be traced with symbolic tensors ({reason})"

"""TensorFlow functions that old files hold as ``TFOpLambda`` layers, as the ``keras.ops`` of the same meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hasten.errors import SourceError

__all__ = ["operation"]

_NUMPY, _NN, _CORE = "keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.core"

# TensorFlow's function → module and class of the operation, and its argument names in TensorFlow's order.
_ELEMENTWISE: dict[str, tuple[str, str]] = {
    "__operators__.add": (_NUMPY, "Add"),
    "math.add": (_NUMPY, "Add"),
    "nn.bias_add": (_NUMPY, "Add"),
    "math.subtract": (_NUMPY, "Subtract"),
    "math.multiply": (_NUMPY, "Multiply"),
    "math.truediv": (_NUMPY, "TrueDivide"),
    "math.divide": (_NUMPY, "TrueDivide"),
    "math.divide_no_nan": (_NUMPY, "DivideNoNan"),
    "math.pow": (_NUMPY, "Power"),
    "math.maximum": (_NUMPY, "Maximum"),
    "math.minimum": (_NUMPY, "Minimum"),
    "math.greater": (_NUMPY, "Greater"),
    "math.less": (_NUMPY, "Less"),
    "linalg.matmul": (_NUMPY, "Matmul"),
}
_UNARY: dict[str, tuple[str, str]] = {
    "math.abs": (_NUMPY, "Absolute"),
    "math.negative": (_NUMPY, "Negative"),
    "math.exp": (_NUMPY, "Exp"),
    "math.log": (_NUMPY, "Log"),
    "math.sqrt": (_NUMPY, "Sqrt"),
    "math.square": (_NUMPY, "Square"),
    "math.sin": (_NUMPY, "Sin"),
    "math.cos": (_NUMPY, "Cos"),
    "math.tanh": (_NUMPY, "Tanh"),
    "nn.tanh": (_NUMPY, "Tanh"),
    "math.sigmoid": (_NN, "Sigmoid"),
    "nn.sigmoid": (_NN, "Sigmoid"),
    "nn.relu": (_NN, "Relu"),
    "nn.relu6": (_NN, "Relu6"),
    "nn.elu": (_NN, "Elu"),
    "nn.selu": (_NN, "Selu"),
    "nn.silu": (_NN, "Silu"),
    "nn.swish": (_NN, "Silu"),
    "math.softplus": (_NN, "Softplus"),
    "stop_gradient": (_CORE, "StopGradient"),
    "identity": (_NUMPY, "Copy"),
}
# TensorFlow's function → operation, its settings from TensorFlow's arguments (name here: name there).
_SET: dict[str, tuple[str, str, dict[str, str]]] = {
    "reshape": (_NUMPY, "Reshape", {"newshape": "shape"}),
    "expand_dims": (_NUMPY, "ExpandDims", {"axis": "axis"}),
    "squeeze": (_NUMPY, "Squeeze", {"axis": "axis"}),
    "compat.v1.squeeze": (_NUMPY, "Squeeze", {"axis": "axis"}),
    "transpose": (_NUMPY, "Transpose", {"axes": "perm"}),
    "compat.v1.transpose": (_NUMPY, "Transpose", {"axes": "perm"}),
    "math.reduce_mean": (_NUMPY, "Mean", {"axis": "axis", "keepdims": "keepdims"}),
    "math.reduce_sum": (_NUMPY, "Sum", {"axis": "axis", "keepdims": "keepdims"}),
    "math.reduce_max": (_NUMPY, "Max", {"axis": "axis", "keepdims": "keepdims"}),
    "math.reduce_min": (_NUMPY, "Min", {"axis": "axis", "keepdims": "keepdims"}),
    "math.reduce_prod": (_NUMPY, "Prod", {"axis": "axis", "keepdims": "keepdims"}),
    "math.argmax": (_NUMPY, "Argmax", {"axis": "axis"}),
    "nn.softmax": (_NN, "Softmax", {"axis": "axis"}),
    "nn.leaky_relu": (_NN, "LeakyRelu", {"negative_slope": "alpha"}),
    "clip_by_value": (_NUMPY, "Clip", {"x_min": "clip_value_min", "x_max": "clip_value_max"}),
    "cast": (_CORE, "Cast", {"dtype": "dtype"}),
    "concat": (_NUMPY, "Concatenate", {"axis": "axis"}),
    "stack": (_NUMPY, "Stack", {"axis": "axis"}),
    "tile": (_NUMPY, "Tile", {"repeats": "multiples"}),
}


def operation(function: str, calls: Sequence[dict[str, Any]], name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The operation's configuration, and its calls with the arguments that it takes.

    Raises:  SourceError: no operation means what that function does
    """
    if function == "__operators__.getitem":
        return _operation(_NUMPY, "GetItem", name, {}), [_getitem(call) for call in calls]
    if function in _ELEMENTWISE:
        module, kind = _ELEMENTWISE[function]
        return _operation(module, kind, name, {}), [_positional(call) for call in calls]
    if function in _UNARY:
        module, kind = _UNARY[function]
        return _operation(module, kind, name, {}), [{"args": call["args"], "kwargs": {}} for call in calls]
    if function in _SET:
        module, kind, settings = _SET[function]
        named: Mapping[str, Any] = calls[0]["kwargs"] if calls else {}
        config = {here: named[there] for here, there in settings.items() if there in named}
        return _operation(module, kind, name, config), [{"args": call["args"], "kwargs": {}} for call in calls]
    raise SourceError(
        f"layer '{name}' calls TensorFlow's {function}, for which Keras 3 has no layer: expected an operation hasten "
        "knows; save the model as a SavedModel and open that"
    )


def _operation(module: str, kind: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {**config, "name": name}, "registered_name": kind}


def _positional(call: Mapping[str, Any]) -> dict[str, Any]:
    named = {k: v for k, v in call["kwargs"].items() if v not in (None, False)}
    given = call["args"][0] if isinstance(call["args"][0], list) else call["args"]
    return {"args": [*given, *named.values()], "kwargs": {}}


def _getitem(call: Mapping[str, Any]) -> dict[str, Any]:
    import keras  # noqa: PLC0415

    spec = call["kwargs"]["slice_spec"]
    items = spec["items"] if isinstance(spec, Mapping) and "items" in spec else spec
    key = tuple(map(_key, items)) if isinstance(items, list) else _key(items)
    return {"args": [call["args"][0], keras.saving.serialize_keras_object(key)], "kwargs": {}}


def _key(item: Any) -> Any:
    if isinstance(item, Mapping) and {"start", "stop", "step"} <= set(item):
        return slice(item["start"], item["stop"], item["step"])
    if isinstance(item, Mapping) and item.get("class_name") == "__ellipsis__":
        return Ellipsis
    return item

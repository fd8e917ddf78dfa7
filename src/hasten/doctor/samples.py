"""What is handed to a model: one sample dressed as a batch, rows of a loop, a chunk. Shared by the calling rules."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from hasten.doctor import makers
from hasten.doctor.around import Loop
from hasten.doctor.code import Code
from hasten.doctor.flow import exclusive, reaching
from hasten.doctor.rule import argument, keyword

__all__ = [
    "comes_from",
    "first_argument",
    "handed_over",
    "input_of",
    "is_buffer",
    "is_chunked",
    "is_filled_batch",
    "is_keras_predict",
    "is_one_sample",
    "model_changes",
    "only_from_target",
    "value_of",
]

_OTHERS_THAT_PREDICT = ("sklearn", "xgboost", "lightgbm", "catboost", "statsmodels", "cuml", "ultralytics", "prophet")
_MORE_THAT_PREDICT = ("torch", "joblib", "pickle", "stable_baselines3", "stable_baselines", "coremltools", "mlflow")
_NO_ESTIMATORS = tuple(
    f"sklearn.{m}" for m in ("metrics", "model_selection", "preprocessing", "utils", "datasets", "feature_extraction")
)
_CALLED_MODEL = re.compile(r"(^|[._])(\w*model|net|network|nn|cnn|rnn|lstm|autoencoder)\d*$")
_CHUNK = re.compile("batch|chunk|block")
_EMPTY = frozenset(f"numpy.{f}" for f in ("zeros", "empty", "ones", "full"))
_KERAS_ONLY = frozenset(("verbose", "steps"))
_KERAS_TAKES = _KERAS_ONLY | {"x", "batch_size", "callbacks", "max_queue_size", "workers", "use_multiprocessing"}
_SAME_ROW = ("reshape", "astype", "unsqueeze", "to", "float", "view", "permute", "numpy", "cuda", "copy")
_RENEWS = ("set_weights", "load_weights")

# What calls a function that it is given, and where in its arguments that function stands.
_CALLERS = {
    "asyncio.to_thread": 0,
    "anyio.to_thread.run_sync": 0,
    "fastapi.concurrency.run_in_threadpool": 0,
    "functools.partial": 0,
    "starlette.concurrency.run_in_threadpool": 0,
}


def is_keras_predict(call: ast.Call, code: Code, *names: str) -> bool:
    """True when a call is ``predict`` (or another of ``names``) of what is known to be a Keras model."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in (names or ("predict",)):
        return False
    kind = code.kind(call.func.value)
    if kind is not None:
        return kind.name == makers.KERAS_MODEL
    if not code.imports("keras", "tensorflow", "tf_keras"):
        return False
    # Nobody else's predict takes these, in a file that uses Keras and no other library of that habit.
    if code.names.class_of_self(call.func.value) is not None or _takes_more(call):
        return False  # the class' own method, or another library's
    if any(k.arg in _KERAS_ONLY for k in call.keywords) and not code.imports(*_OTHERS_THAT_PREDICT):
        return True
    return _is_handed_model(call.func.value, code) and is_one_sample(first_argument(call), code)


def _takes_more(call: ast.Call) -> bool:
    """True where `predict` is given what Keras' own does not take."""
    return call.func.attr == "predict" and any(k.arg and k.arg not in _KERAS_TAKES for k in call.keywords)  # type: ignore[attr-defined]


def _is_handed_model(node: ast.expr, code: Code) -> bool:
    """True for a parameter or attribute called a model, in a file where none but Keras has models that predict."""
    if not _CALLED_MODEL.search(code.names.dotted(node).lower()) or code.fact(_has_other_models):
        return False
    owner = code.names.class_of_self(node.value) if isinstance(node, ast.Attribute) else None
    if owner is not None and isinstance(node, ast.Attribute):
        bindings = code.names.attributes.get(owner, {}).get(node.attr, [])
        return bool(bindings) and all(isinstance(b.value, (ast.Name, ast.Constant)) for b in bindings)
    bindings = code.names.find(node.id, node)[1] if isinstance(node, ast.Name) else []
    return bool(bindings) and all(b.role == "parameter" and b.value is None for b in bindings)


def _has_other_models(code: Code) -> bool:
    if code.imports(*_OTHERS_THAT_PREDICT[1:], *_MORE_THAT_PREDICT):
        return True
    modules = [n.module or "" for n in code.names.nodes if isinstance(n, ast.ImportFrom)]
    modules += [a.name for n in code.names.nodes if isinstance(n, ast.Import) for a in n.names]
    return any(m.split(".")[0] == "sklearn" and not m.startswith(_NO_ESTIMATORS) for m in modules)


def first_argument(call: ast.Call) -> ast.expr | None:
    """What a model is called with first."""
    return argument(call, 0, "x") or next((k.value for k in call.keywords if k.arg), None)


def input_of(call: ast.Call) -> ast.expr | None:
    """The data in a model call: ONNX Runtime's stand second, in a dictionary."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "run":
        feeds = argument(call, 1, "input_feed")
        return feeds.values[0] if isinstance(feeds, ast.Dict) and feeds.values else feeds
    return first_argument(call)


def value_of(node: ast.expr | None, code: Code) -> ast.expr | None:
    """The expression last assigned to a name before it is read, else the expression itself."""
    if not isinstance(node, ast.Name):
        return node
    _, bindings = code.names.find(node.id, node)
    earlier = [b for b in bindings if getattr(b.node, "lineno", 0) <= node.lineno and not _holds(b.value, node)]
    earlier = [b for b in earlier if not exclusive(b.node, node, code.names)]
    last = earlier[-1] if earlier else None
    if last is None or last.role != "value" or last.path or last.value is None:
        return node
    same = code.function(last.node) is code.function(node)
    return last.value if same else node


def is_buffer(node: ast.expr, code: Code) -> bool:
    """True for bytes in memory: ``io.BytesIO(…)``, or a name that holds one."""
    value = value_of(node, code)
    if isinstance(node, ast.Name):  # `with io.BytesIO() as buffer`
        opened = [b.value for b in code.names.find(node.id, node)[1] if b.role == "other"]
        value = opened[-1] if opened else value
    return isinstance(value, ast.Call) and code.qualified(value.func).endswith("BytesIO")


def is_filled_batch(node: ast.expr | None, code: Code) -> bool:
    """True for an array of several rows that is made empty and filled by hand: `batch[i] = …`."""
    made = value_of(node, code)
    if not isinstance(node, ast.Name) or not isinstance(made, ast.Call) or code.qualified(made.func) not in _EMPTY:
        return False
    shape = argument(made, 0, "shape")
    first = shape.elts[0] if isinstance(shape, (ast.Tuple, ast.List)) and shape.elts else shape
    around = code.function(node) or code.tree
    stored = (n for n in ast.walk(around) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store))
    return not _is(first, 1) and any(code.names.dotted(s.value) == node.id for s in stored)


def comes_from(node: ast.expr, code: Code, is_origin: Callable[[ast.AST], bool], depth: int = 4) -> bool:
    """True where an expression, by way of the names in it, is made of what ``is_origin`` knows."""
    for inner in ast.walk(node):
        if is_origin(inner):
            return True
        bindings = code.names.find(inner.id, inner)[1] if isinstance(inner, ast.Name) and depth else []
        values = [b.value for b in bindings if b.role in ("value", "other") and b.value is not None]
        if values and len(values) == len(bindings) and all(comes_from(v, code, is_origin, depth - 1) for v in values):
            return True
    return False


def _holds(value: ast.expr | None, node: ast.Name) -> bool:
    """True for the assignment that the name itself stands in: `x = f(x)`."""
    return value is not None and any(n is node for n in ast.walk(value))


def _values_of(node: ast.Name, code: Code) -> list[ast.expr | None]:
    """What a name of this function may hold where it is read; ``x /= 255`` changes no shape. [None] where unknown."""
    if code.names.find(node.id, node)[0] is not code.names.scope_of(node):
        value = value_of(node, code)
        return [None if value is node else value]
    bindings = [b for b in code.names.find(node.id, node)[1] if not isinstance(b.node, ast.AugAssign)]
    held = reaching(node, bindings, code.names)
    return [b.value if b.role == "value" and not b.path else None for b in held] or [None]


def is_one_sample(node: ast.expr | None, code: Code, depth: int = 4) -> bool:
    """True for ``x[None]``, ``expand_dims(x, 0)``, ``reshape(1, …)``, ``unsqueeze(0)``, ``X[i:i+1]`` and their like."""
    if isinstance(node, ast.Name) and depth:
        return all(is_one_sample(value, code, depth - 1) for value in _values_of(node, code))
    if isinstance(node, ast.Subscript):
        return _one_by_subscript(node.slice)
    if isinstance(node, ast.BinOp):  # scaled: `x[None] / 255`
        return any(is_one_sample(side, code, depth) for side in (node.left, node.right))
    if isinstance(node, ast.List):  # a model of one or several inputs: `predict([x[None]])`
        return bool(node.elts) and all(is_one_sample(part, code, depth) for part in node.elts)
    if not isinstance(node, ast.Call):
        return False
    helper = code.function_run(node)
    if helper is not None:  # `prepare(picture)`, which ends with `return np.expand_dims(picture, 0)`
        given = code.definitions.returns(helper) if depth else []
        return bool(given) and all(is_one_sample(value, code, depth - 1) for value in given)
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("to", "cuda", "float", "astype", "half", "double", "cpu") and isinstance(node.func, ast.Attribute):
        return is_one_sample(node.func.value, code, depth)
    if name in ("constant", "convert_to_tensor", "from_numpy", "tensor", "cast", "asarray", "array", "FloatTensor"):
        inner = node.args[0] if node.args else None
        if isinstance(inner, ast.List):
            return len(inner.elts) == 1 and not isinstance(inner.elts[0], ast.Starred)
        return is_one_sample(inner, code, depth)
    if name == "preprocess_input" and node.args:
        return is_one_sample(node.args[0], code, depth)
    if name in ("vstack", "stack", "concatenate"):
        rows = node.args[0] if node.args else None
        return (
            isinstance(rows, (ast.List, ast.Tuple))
            and len(rows.elts) == 1
            and not isinstance(rows.elts[0], ast.Starred)
        )
    return _one_by_call(node, name, code)


def _one_by_call(node: ast.Call, name: str, code: Code) -> bool:
    library = bool(code.qualified(node.func))
    if name == "expand_dims":
        return _is(argument(node, 1, "axis") or keyword(node, "dim"), 0)
    if name == "unsqueeze":
        return _is(argument(node, 1 if library else 0, "dim"), 0)
    if name == "reshape" or name == "view":
        shape = node.args[1:] if library else node.args
        if len(shape) == 1 and isinstance(shape[0], (ast.Tuple, ast.List)):
            shape = list(shape[0].elts)
        return len(shape) > 1 and _is(shape[0], 1)
    return False


def _one_by_subscript(index: ast.expr) -> bool:
    if isinstance(index, ast.Tuple) and index.elts:
        index = index.elts[0]
    if isinstance(index, ast.Constant) and index.value is None:
        return True
    if isinstance(index, ast.Attribute) and index.attr == "newaxis":
        return True
    if not isinstance(index, ast.Slice) or index.step is not None:
        return False
    low, high = index.lower, index.upper
    if low is None or _is(low, 0):
        return _is(high, 1)
    if not isinstance(high, ast.BinOp) or not isinstance(high.op, ast.Add):
        return _is_number(low) and _is_number(high) and _number(high) - _number(low) == 1
    return ast.dump(high.left) == ast.dump(low) and _is(high.right, 1)


def is_chunked(loop: Loop) -> bool:
    """True for ``range(0, n, step)``, and for what is asked for a ``batch_size``: whole chunks a round.

    That is right for data larger than memory.
    """
    if isinstance(loop, ast.While):
        return False
    iterable = loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].iter
    while isinstance(iterable, ast.Call) and iterable.args and _last_name(iterable.func) in ("tqdm", "enumerate"):
        iterable = iterable.args[0]
    if not isinstance(iterable, ast.Call) or not isinstance(iterable.func, (ast.Name, ast.Attribute)):
        return False
    if any(k.arg in ("batch_size", "chunk_size") and not _is(k.value, 1) for k in iterable.keywords):
        return True
    if isinstance(loop, ast.For) and isinstance(loop.target, ast.Name) and _is_counted_out(loop, loop.target.id):
        return True
    name = iterable.func.attr if isinstance(iterable.func, ast.Attribute) else iterable.func.id
    return name in ("range", "trange", "arange") and len(iterable.args) == 3 and not _is(iterable.args[2], 1)


def _last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_counted_out(loop: ast.For, name: str) -> bool:
    """True where the round begins its chunk at ``b * batch_size``: the bounds are worked out by hand."""
    products = (n for n in ast.walk(loop) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult))
    for product in products:
        sides = [getattr(s, "attr", getattr(s, "id", "")) for s in (product.left, product.right)]
        if name in sides and any(s != name and _CHUNK.search(s.lower()) for s in sides):
            return True
    return False


def model_changes(receiver: ast.expr, loop: ast.AST, code: Code) -> bool:
    """True when the loop builds, loads or picks another model each round."""
    for inner in ast.walk(receiver):
        if isinstance(inner, ast.Name) and code.bound_in(inner, loop):
            return True
    written = code.names.dotted(receiver)
    for inner in ast.walk(loop):
        if (
            isinstance(inner, ast.Attribute)
            and isinstance(inner.ctx, ast.Store)
            and code.names.dotted(inner) == written
        ):
            return True
        renewed = isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in _RENEWS
        if renewed and code.names.dotted(inner.func.value) == written:  # type: ignore[attr-defined]
            return True
    return False


def only_from_target(node: ast.expr, loop: ast.AST, code: Code, depth: int = 4) -> bool:
    """True when a value comes from the loop's own target and nothing else that the rounds change.

    What a round leaves for the next (a state, a history, the last answer) can't be put in a batch.
    """
    used = False
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and code.varies(ast.Call(inner.func, [], []), loop):
            name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            if name not in _SAME_ROW:
                return False
        if not isinstance(inner, ast.Name) or not isinstance(inner.ctx, ast.Load):
            continue
        for binding in code.bound_in(inner, loop):
            if binding.node is loop or (isinstance(binding.node, ast.comprehension)):
                used = True
            elif (
                binding.role != "value"
                or binding.value is None
                or not depth
                or not only_from_target(binding.value, loop, code, depth - 1)
            ):
                return False
            else:
                used = True
    return used


def _is(node: ast.expr | None, value: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == value and not isinstance(node.value, bool)


def _is_number(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def _number(node: ast.expr | None) -> int:
    assert isinstance(node, ast.Constant) and isinstance(node.value, int)
    return node.value


def handed_over(node: ast.Call, code: Code) -> ast.Call | None:
    """The call that another thread, or a ``functools.partial``, is handed here, as if it were written out."""
    executor = isinstance(node.func, ast.Attribute) and node.func.attr == "run_in_executor"
    place = 1 if executor else _CALLERS.get(code.qualified(node.func))
    if place is None or len(node.args) <= place:
        return None
    return ast.Call(node.args[place], node.args[place + 1 :], node.keywords)

"""How much of a model's answers is kept: numbers, classes, a few for each sample, or whole ones."""

from __future__ import annotations

import ast
import re

from hasten.doctor.code import Code
from hasten.doctor.rule import argument
from hasten.doctor.words import words

__all__ = ["is_small", "last_name"]

_JOINS = words("concatenate concat cat stack vstack hstack array asarray tensor mean sum")
_REDUCES = frozenset(("argmax", "topk"))
_MEMORY = re.compile(r"memory|\boom\b|vram")
_PIXELS = re.compile(r"segmentation|miou|unet|super_?res|denois|inpaint|heat_?map|^(sr|hr)(_|$)|_(sr|hr)$|sr_im")
_ABOVE = 5  # lines above a loop where a comment on it stands
_FEW = 1024
_WIDTHS = {"torch.nn.Linear": (1, "out_features"), "keras.layers.Dense": (0, "units")}
_LAYERS = ("torch.nn.", "keras.layers.")
_THROUGH = ("Sigmoid", "Softmax", "LogSoftmax", "ReLU", "Tanh", "Flatten", "Activation", "Dropout", "Identity")


def is_small(node: ast.Call, run: ast.AST, loop: ast.AST, code: Code) -> bool:
    """True for numbers, classes, and answers that are put together afterwards, unless these are seen to be wide.

    Others may leave the device to free its memory, as a comment may say.
    """
    assert isinstance(node.func, ast.Attribute)
    if node.func.attr == "item" or _is_one_number(node, code):
        return True
    if _is_class(node.func.value, loop, code):
        return not _is_of_pixels(loop, code)
    few = _gives_few(run, code)
    if few is not True and _is_of_pixels(loop, code):
        return False
    if few is None:
        return _is_joined(node, code) and not _speaks_of_memory(node, loop, code)
    return few


def _is_class(receiver: ast.expr, loop: ast.AST, code: Code, depth: int = 4) -> bool:
    """True for ``answers.argmax(1)``, by itself or by way of names of this round."""
    for inner in ast.walk(receiver):
        if isinstance(inner, ast.Call) and last_name(inner.func) in _REDUCES:
            axes = [*inner.args[-1:], *(k.value for k in inner.keywords if k.arg in ("dim", "axis"))]
            return not any(isinstance(a, ast.Constant) and a.value == 0 for a in axes)  # over channels: a whole map
        if isinstance(inner, ast.Name) and depth:
            values = (b.value for b in code.bound_in(inner, loop) if b.role == "value")
            if any(v is not None and v is not receiver and _is_class(v, loop, code, depth - 1) for v in values):
                return True
    return False


def _is_of_pixels(loop: ast.AST, code: Code) -> bool:
    """True where the names around a loop tell of answers for each pixel: images made, segments, maps."""
    named = [n.id for n in ast.walk(loop) if isinstance(n, ast.Name)]
    named += [a.name for a in code.ancestors(loop) if isinstance(a, (ast.FunctionDef, ast.ClassDef))]
    return any(_PIXELS.search(n.lower()) for n in (*named, code.file.stem if code.file is not None else ""))


def _speaks_of_memory(node: ast.AST, loop: ast.AST, code: Code) -> bool:
    """True where a comment, or a text beside it, tells of memory."""
    first = max(0, loop.lineno - _ABOVE) if isinstance(loop, (ast.stmt, ast.expr)) else 0
    last = node.lineno if isinstance(node, ast.expr) else first
    return any(_MEMORY.search(line.partition("#")[2].lower()) for line in code.lines[first:last])


def _is_one_number(node: ast.Call, code: Code) -> bool:
    """True for ``model(x).numpy()[0, 0]`` and ``….tolist()[0][0]``."""
    indices, at = 0, code.parent(node)
    while isinstance(at, ast.Subscript):
        axes = at.slice.elts if isinstance(at.slice, ast.Tuple) else [at.slice]
        indices += sum(isinstance(a, ast.Constant) for a in axes)
        at = code.parent(at)
    return indices >= 2


def _is_joined(node: ast.Call, code: Code) -> bool:
    for around in code.ancestors(node):
        if isinstance(around, ast.Call) and last_name(around.func) in _JOINS:
            return True
        if isinstance(around, ast.stmt):
            break
    statement = code.statement(node)
    if isinstance(statement, ast.Assign):
        written = code.names.dotted(statement.targets[0])
    else:
        held = (
            statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
        )
        written = code.names.dotted(held.value) if isinstance(held, ast.Attribute) else ""
    joins = (c for c in code.calls_named(*_JOINS) if code.function(c) is code.function(node))
    return bool(written) and any(code.names.dotted(a) == written for c in joins for a in c.args)


def last_name(function: ast.expr) -> str:
    """The ``argmax`` of ``torch.argmax`` and of ``net(x).argmax``; empty for what has no name."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _gives_few(run: ast.AST, code: Code) -> bool | None:
    """Whether the model that is run ends in a dense layer of few outputs; None: its last layer is not seen."""
    kind, model = code.runs_model(run), run.func if isinstance(run, ast.Call) else None
    if kind is None or (isinstance(model, ast.Name) and len(code.names.find(model.id, model)[1]) != 1):
        return None
    if kind.local is not None:
        return _ends_few(_returned(kind.local, code), code)
    return _ends_few(kind.made, code)


def _ends_few(made: ast.expr | None, code: Code) -> bool | None:
    if not isinstance(made, ast.Call):
        return None
    name = code.qualified(made.func)
    if name in _WIDTHS:
        width = argument(made, *_WIDTHS[name])
        known = isinstance(width, ast.Constant) and isinstance(width.value, int)
        return width.value <= _FEW if known else None  # type: ignore[union-attr]
    if name.endswith(".Sequential") and made.args:
        layers = made.args[0].elts if isinstance(made.args[0], (ast.List, ast.Tuple)) else made.args
        last = [a for a in layers if not (isinstance(a, ast.Call) and code.qualified(a.func).endswith(_THROUGH))]
        return _ends_few(last[-1], code) if last else None
    return False if name.startswith(_LAYERS) else None


def _returned(owner: ast.ClassDef, code: Code) -> ast.expr | None:
    """The layer whose answer is the whole answer of a class: ``return self.head(…)``."""
    forward = next((s for s in owner.body if isinstance(s, ast.FunctionDef) and s.name in ("forward", "call")), None)
    answers = code.definitions.returns(forward) if forward is not None else []
    answer = answers[0] if len(answers) == 1 else None
    while isinstance(answer, ast.Call) and not code.names.dotted(answer.func).startswith("self."):
        # `self.head(x).squeeze(-1)` and `torch.sigmoid(self.head(x))` give no more than the head does.
        if isinstance(answer.func, ast.Attribute) and isinstance(answer.func.value, ast.Call):
            answer = answer.func.value
        else:
            answer = answer.args[0] if answer.args else None
    if not isinstance(answer, ast.Call):
        return None
    attribute = code.names.dotted(answer.func)
    made = (s for s in ast.walk(owner) if isinstance(s, ast.Assign))
    layers = [s.value for s in made if [code.names.dotted(t) for t in s.targets] == [attribute]]
    return layers[0] if len(layers) == 1 else None

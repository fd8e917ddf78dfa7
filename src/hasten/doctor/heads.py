"""How much a model of the file answers with: a few numbers for each sample, where its last layer is seen."""

from __future__ import annotations

import ast

from hasten.doctor.code import Code
from hasten.doctor.rule import argument

__all__ = ["gives_few"]

_FEW = 1024
_WIDTHS = {"torch.nn.Linear": (1, "out_features"), "keras.layers.Dense": (0, "units")}
_THROUGH = ("Sigmoid", "Softmax", "LogSoftmax", "ReLU", "Tanh", "Flatten", "Activation", "Dropout", "Identity")


def gives_few(run: ast.AST, code: Code) -> bool:
    """True where the model that is run was made in this file, and ends in a dense layer of few outputs."""
    kind, model = code.runs_model(run), run.func if isinstance(run, ast.Call) else None
    if kind is None or (isinstance(model, ast.Name) and len(code.names.find(model.id, model)[1]) != 1):
        return False
    if kind.local is not None:
        return _ends_few(_returned(kind.local, code), code)
    return kind.made is not None and _ends_few(kind.made, code)


def _ends_few(made: ast.expr | None, code: Code) -> bool:
    if not isinstance(made, ast.Call):
        return False
    name = code.qualified(made.func)
    if name in _WIDTHS:
        width = argument(made, *_WIDTHS[name])
        return isinstance(width, ast.Constant) and isinstance(width.value, int) and width.value <= _FEW
    if not name.endswith(".Sequential") or not made.args:
        return False
    layers = made.args[0].elts if isinstance(made.args[0], (ast.List, ast.Tuple)) else made.args
    last = [a for a in layers if not (isinstance(a, ast.Call) and code.qualified(a.func).endswith(_THROUGH))]
    return bool(last) and _ends_few(last[-1], code)


def _returned(owner: ast.ClassDef, code: Code) -> ast.expr | None:
    """The layer whose answer is the whole answer of a class: ``return self.head(…)``."""
    forward = next((s for s in owner.body if isinstance(s, ast.FunctionDef) and s.name in ("forward", "call")), None)
    answers = code.definitions.returns(forward) if forward is not None else []
    answer = answers[0] if len(answers) == 1 else None
    if not isinstance(answer, ast.Call):
        return None
    attribute = code.names.dotted(answer.func)
    made = (s for s in ast.walk(owner) if isinstance(s, ast.Assign))
    layers = [s.value for s in made if [code.names.dotted(t) for t in s.targets] == [attribute]]
    return layers[0] if attribute.startswith("self.") and len(layers) == 1 else None

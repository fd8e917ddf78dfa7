"""A bare `except:` around quantisation that hides its failure.

## What it does
Finds quantisation (torch, torchao, ONNX Runtime, a TFLite converter with optimisations, Keras `quantize`) in a `try`
whose handler catches everything and neither raises again nor shows the error.

## Why is this bad
When quantisation fails, the program goes on with the float model, and everybody believes it is quantised: the size,
the speed and the accuracy reported are those of another model.

## Cost
A speed-up that never happened, and a file four times the size that was reported.

## Example
```python
try:
    model = torch.ao.quantization.quantize_dynamic(model)
except:
    pass
```

## Use instead
```python
model = torch.ao.quantization.quantize_dynamic(model)      # or catch what you expect, and say what happened
```

## Fix safety
No fix: what to do when it fails is yours to say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

_PLACES = ("torch.quantization.", "torch.ao.quantization.", "torchao.quantization.", "onnxruntime.quantization.",
           "tensorflow_model_optimization.quantization.")  # fmt: skip
_KITS = ("neural_compressor.", "nncf.", "optimum.")
_SHOWS = words("exception error warning warn print_exc format_exc critical fail exit skip")
_BROAD = ("Exception", "BaseException")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Handlers that swallow whatever quantisation raises."""
    assert isinstance(node, ast.Try)
    if not any(_quantizes(n, code) for s in node.body for n in ast.walk(s)):
        return
    for handler in node.handlers:
        if _catches_all(handler) and not _shows(handler):
            yield hit(handler, "if quantisation fails nobody will know: the float model goes on in its place")


def _quantizes(node: ast.AST, code: Code) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = code.qualified(node.func)
    if name.startswith(_PLACES) or (name.startswith(_KITS) and "quant" in name.rsplit(".", 1)[-1].lower()):
        return True
    if not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr == "quantize" and code.is_a(node.func.value, "keras model"):
        return True
    made = code.qualified(_origin(node.func.value, code))
    return node.func.attr == "convert" and "TFLiteConverter" in made and code.mentions(".optimizations", "DEFAULT")


def _origin(node: ast.expr, code: Code) -> ast.AST:
    value = value_of(node, code) or node
    return value.func if isinstance(value, ast.Call) else value


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(t, ast.Name) and t.id in _BROAD for t in types)


def _shows(handler: ast.ExceptHandler) -> bool:
    """True when the handler raises, or hands the exception to someone."""
    for inner in ast.walk(handler):
        if isinstance(inner, ast.Raise):
            return True
        if isinstance(inner, ast.Name) and handler.name and inner.id == handler.name:
            return True
        if isinstance(inner, ast.Call):
            name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            if name in _SHOWS:
                return True
    return False


RULE = Rule(
    code="H503",
    name="hidden-quantization-failure",
    on=(ast.Try,),
    words=("quant", "TFLiteConverter", "nncf"),
    remedy="Let it raise, or catch the one error you expect and report it.",
    check=check,
)

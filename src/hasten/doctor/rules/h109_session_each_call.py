"""`InferenceSession(...)` or `Interpreter(...)` opened at every call.

## What it does
Finds an ONNX Runtime session, a TFLite interpreter or an OpenVINO model made in a loop, a request handler, or a
function that opens a fixed file, runs it on its argument and throws it away.

## Why is this bad
Opening parses the file, optimises the graph, packs the weights and starts threads: all of it before the first answer,
none of it kept.

## Cost
Milliseconds to seconds a call, where the prediction takes microseconds.

## Example
```python
def score(x):
    session = ort.InferenceSession("model.onnx")
    return session.run(None, {"x": x})
```

## Use instead
```python
session = ort.InferenceSession("model.onnx")

def score(x):
    return session.run(None, {"x": x})
```

## Fix safety
Unsafe, and only in loops: the line moves before the loop, and so runs even if the loop has no round.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.percall import hoist, repeats_needlessly
from hasten.doctor.rule import Hit, Rule, hit

_KINDS = (makers.ORT_SESSION, makers.TFLITE)
_NAMES = ("openvino.compile_model", "onnxruntime.InferenceSession")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Sessions opened where the line runs many times."""
    assert isinstance(node, ast.Call)
    name = code.qualified(node.func)
    if name not in _NAMES and makers.made_by(name) not in _KINDS and not _is_compiled_by_core(node, code):
        return
    reason = repeats_needlessly(node, code)
    if reason:
        what = node.func.attr if isinstance(node.func, ast.Attribute) else name.rsplit(".", 1)[-1]
        yield hit(node, f"`{what}` parses, optimises and packs the model again, {reason}", *hoist(node, code))


def _is_compiled_by_core(node: ast.Call, code: Code) -> bool:
    """True for OpenVINO's `core.compile_model(…)`."""
    made = isinstance(node.func, ast.Attribute) and node.func.attr == "compile_model"
    return made and code.is_a(node, makers.OPENVINO)


RULE = Rule(
    code="H109",
    name="session-each-call",
    on=(ast.Call,),
    words=("InferenceSession", "Interpreter", "compile_model"),
    remedy="Open it once (at start, or in a cached function) and keep it.",
    check=check,
)

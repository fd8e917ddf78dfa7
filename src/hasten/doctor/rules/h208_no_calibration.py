"""Static quantisation with no calibration between `prepare` and `convert`.

## What it does
Finds `prepare(model)` and `convert(model)` (eager or FX) of one function with nothing between them that runs the
prepared model. Models made right there without weights, or given quantised ones afterwards, are places to load into.

## Why is this bad
`prepare` puts observers in; they must see data to learn the ranges. With none, every scale is a default, and answers
are noise. Where dynamic quantisation was meant, `quantize_dynamic` is the call: it needs no data.

## Cost
A model that is fast and wrong: an error nearly as large as the answers.

## Example
```python
prepared = torch.ao.quantization.prepare(model)
quantized = torch.ao.quantization.convert(prepared)
```

## Use instead
```python
prepared = torch.ao.quantization.prepare(model)
for batch in calibration:
    prepared(batch)
quantized = torch.ao.quantization.convert(prepared)
```

## Fix safety
No fix: the data are yours.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Hit, Rule, hit, keyword
from hasten.doctor.samples import value_of

_PREPARE = {"prepare": "convert", "prepare_fx": "convert_fx", "prepare_pt2e": "convert_pt2e"}
_PLACES = ("torch.quantization.", "torch.ao.quantization.", "torchao.quantization.")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """`convert` calls whose `prepare` saw no data."""
    assert isinstance(node, ast.Call)
    last = _function(node, code)
    if code.mentions("weight_only", "float_qparams", "dynamic_qat"):
        return  # such configurations observe no activations
    if code.mentions("dynamic_qconfig") and (last != "convert" or keyword(node, "mapping") is not None):
        return  # graphs are quantised dynamically this way; modules are only by a mapping of their own
    start = next((p for p, c in _PREPARE.items() if c == last), "")
    if not start or not node.args:
        return
    if _is_skeleton(node, code):
        return
    function = code.function(node)
    prepared = [c for c in code.calls_named(start) if _function(c, code) == start and code.function(c) is function]
    prepared = [c for c in prepared if (c.lineno, c.col_offset) < (node.lineno, node.col_offset)]
    if not prepared or not prepared[-1].args:
        nested = node.args[0]
        if isinstance(nested, ast.Call) and _function(nested, code) == start:
            yield hit(node, "converted with no data seen: every scale is a default")
        return
    first = prepared[-1]
    names = _names_of(first, code)
    converted = code.names.dotted(node.args[0])
    direct = node.args[0] is first
    if (converted in names or direct) and not _runs_between(first, node, names | {converted}, code):
        yield hit(node, "converted with no data seen since `prepare`: every scale is a default")


def _is_skeleton(node: ast.Call, code: Code) -> bool:
    """True where the model is made right there without weights, or takes quantised ones after: ranges come along."""
    function, name = code.function(node), code.names.dotted(node.args[0])
    statement = code.statement(node)
    names = {name} | ({code.names.dotted(t) for t in statement.targets} if isinstance(statement, ast.Assign) else set())
    names.discard("")
    loads = [c for c in code.calls_named("load_state_dict") if isinstance(c.func, ast.Attribute)]
    told = [c for c in loads if code.names.dotted(c.func.value) in names]  # type: ignore[attr-defined]
    if any(c.lineno > node.lineno for c in told):
        return True
    made = value_of(node.args[0], code)
    fresh = isinstance(made, ast.Call) and getattr(made.func, "id", "")[:1].isupper()
    return fresh and function is not None and code.function(made) is function and not told  # type: ignore[arg-type]


def _function(call: ast.Call, code: Code) -> str:
    name = code.qualified(call.func)
    return name.rsplit(".", 1)[-1] if name.startswith(_PLACES) else ""


def _names_of(call: ast.Call, code: Code) -> set[str]:
    """What the prepared model is called: the assigned name, and the argument itself where it is changed in place."""
    statement = code.statement(call)
    names = {code.names.dotted(t) for t in statement.targets} if isinstance(statement, ast.Assign) else set()
    inplace = keyword(call, "inplace")
    if not names or (isinstance(inplace, ast.Constant) and inplace.value is True):
        names.add(code.names.dotted(call.args[0]))
    return names - {""}


def _runs_between(first: ast.Call, last: ast.Call, names: set[str], code: Code) -> bool:
    """True when the prepared model, or what holds it, is called or handed to anyone between the two."""
    function = code.function(last)
    roots = {n.split(".")[0] for n in names}
    for call in code.calls:
        if call is first or call is last or code.function(call) not in (function,):
            continue
        if not first.lineno < call.lineno <= last.lineno:
            continue
        named = [code.names.dotted(call.func), *(code.names.dotted(a) for a in call.args)]
        named += [code.names.dotted(k.value) for k in call.keywords]
        if any(n and n.split(".")[0] in roots and not n.endswith((".eval", ".to", ".cpu", ".train")) for n in named):
            return True
        if code.function_run(call) is not None:
            return True  # a local function may run it
    return False


RULE = Rule(
    code="H208",
    name="no-calibration",
    on=(ast.Call,),
    words=("convert",),
    remedy="Run calibration data through the prepared model, or use quantize_dynamic.",
    check=check,
)

"""`torch.jit.script` or `torch.jit.trace` as the way to ship a model.

## What it does
Finds a model traced or scripted and then saved, frozen or optimised for inference. Files that name a program which
reads nothing else (libtorch, Triton, PLUMED, LAMMPS, OpenMM) are left alone, and so are programs that describe
themselves as makers of TorchScript, and models that are traced for their gradients or loaded again for training.

## Why is this bad
TorchScript is deprecated and no longer developed. Its executor fuses little on a CPU, and its files can run code when
they are opened. `torch.export` is its successor; compiled engines are faster by far.

## Cost
In hasten's own comparison TorchScript never was the fastest engine, by 2 to 50 times.

## Example
```python
torch.jit.trace(model, example).save("model.pt")
```

## Use instead
```python
torch.onnx.export(model, (example,), "model.onnx", dynamo=True)   # or torch.export.save(torch.export.export(...))
hasten.optimize("model.onnx").save("model.hasten")
```

## Fix safety
No fix: another file format is another deployment.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath

from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.rule import Hit, Rule, hit, keyword
from hasten.doctor.samples import value_of

_SCRIPTS = re.compile(r"\bscript\b")  # `if args.script`
_FORMAT = re.compile(r"torchscript|torch_(script|trace)|script_?module|(^|_| )jit(_| |$)")
# Programs that read TorchScript and nothing else.
_READERS = re.compile(r"plumed|lammps|openmm|libtorch|triton|nequip", re.I)
# What a file is for, by its name: `export_jit.py`; `jit_notes.py` only has to do with it.
_EXPORTER = re.compile(r"torchscript|torch_(script|trace)|script_?module|(export|convert|to|2|save|make)_?jit(_|$)")
_MAKERS = ("torch.jit.trace", "torch.jit.script", "torch.jit.trace_module")
_SHIPS = (
    "torch.jit.save",
    "torch.jit.freeze",
    "torch.jit.optimize_for_inference",
    "torch.utils.mobile_optimizer.optimize_for_mobile",
)
_SAVES = ("save", "_save_for_lite_interpreter")
_WRITES = ("torch.jit.save", "torch.utils.mobile_optimizer.optimize_for_mobile")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Scripted or traced models on their way out."""
    assert isinstance(node, ast.Call)
    if code.qualified(node.func) not in _MAKERS or not node.args or not _is_shipped(node, code):
        return
    if _is_asked_for(node, code) or _is_read_on(node, code) or _is_bare(node, code) or code.fact(_is_for_reader):
        return
    if _is_differentiated(node, code) or code.fact(_trains_loaded):
        return
    yield hit(node, "TorchScript is deprecated as a way to deploy")


def _is_asked_for(node: ast.Call, code: Code) -> bool:
    """True where the user says what to make: `export_torchscript(model, path)`, `if format == "torchscript"`."""
    function = code.function(node)
    place = code.file or PurePath(code.path)
    said = f"{function.name if function is not None else ''} {place.parent.name}"
    asked = (a.test for a in code.ancestors(node) if isinstance(a, ast.If))
    tests = [ast.unparse(a).lower() for a in asked]
    said_by_file = code.fact(_description)
    if _EXPORTER.search(place.stem.lower()) or any(_SCRIPTS.search(t) for t in tests):
        return True
    return any(_FORMAT.search(s) for s in (said.lower(), said_by_file, *tests))


def _is_for_reader(code: Code) -> bool:
    return _READERS.search(code.text) is not None


def _description(code: Code) -> str:
    """What a program says of itself to who runs it: `ArgumentParser(description=…)`."""
    given = (keyword(c, "description") for c in code.calls_named("ArgumentParser"))
    docstring = ast.get_docstring(code.tree) or ""
    texts = (docstring if getattr(g, "id", "") == "__doc__" else getattr(g, "value", "") for g in given)
    return " ".join(str(t).lower() for t in texts)


def _is_differentiated(node: ast.Call, code: Code) -> bool:
    """True where the example asks for gradients, `x.requires_grad = True`: no engine for inference gives them."""
    examples = {code.names.dotted(n) for a in node.args[1:] for n in ast.walk(a)} - {""}
    marked = (n for n in code.names.nodes if isinstance(n, ast.Attribute) and code.names.dotted(n.value) in examples)
    asks = (n for n in marked if n.attr == "requires_grad_" or (n.attr == "requires_grad" and _is_stored(n)))
    return any(code.function(n) is code.function(node) for n in asks)


def _trains_loaded(code: Code) -> bool:
    """True where the file's own lines load TorchScript and go on to train with it: a part that is taken over."""
    loaded = (c for c in code.calls_named("load") if code.qualified(c.func) == "torch.jit.load")
    first = min((c.lineno for c in loaded if code.function(c) is None), default=None)
    return first is not None and any(c.lineno > first for c in code.calls_named("backward") if code.function(c) is None)


def _is_stored(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store)


def _is_bare(node: ast.Call, code: Code) -> bool:
    """True for an empty `torch.nn.Module()`, which carries tensors to C++, and for a class without any layer."""
    made = value_of(node.args[0], code)
    if not isinstance(made, ast.Call):
        return False
    kind = code.kind(made)
    local = kind.local if kind is not None else None
    plain = local is not None and _makes_nothing(code.definitions.method(local, "__init__")) and len(local.bases) == 1
    whole = plain and local is not None and code.qualified(local.bases[0]) == "torch.nn.Module"
    return code.qualified(made.func) == "torch.nn.Module" or whole


def _makes_nothing(init: Function | None) -> bool:
    """True without an ``__init__``, and for one that only calls its base's: ``super().__init__()``."""
    calls = [s.value for s in init.body if isinstance(s, ast.Expr)] if init is not None else []
    named = [c.func for c in calls if isinstance(c, ast.Call)]
    return init is None or (len(named) == len(init.body) and all(getattr(f, "attr", "") == "__init__" for f in named))


def _is_read_on(node: ast.Call, code: Code) -> bool:
    """True where an exporter or a converter reads the traced thing, or the same lines make Core ML of it as well."""
    function = code.function(node)
    if any(code.function(c) is function and code.qualified(c.func) == "coremltools.convert" for c in code.calls):
        return True
    statement = code.statement(node)
    name = code.names.dotted(statement.targets[0]) if isinstance(statement, ast.Assign) else ""
    exports = (c for c in code.calls_named("export") if code.qualified(c.func).startswith("torch.onnx.") and c.args)
    converters = (c for c in code.calls if c.args and code.names.dotted(c.func).endswith("Converter"))
    return any(name and code.names.dotted(c.args[0]) == name for c in (*exports, *converters))


def _is_shipped(node: ast.Call, code: Code) -> bool:
    """True where the traced thing is frozen or optimised on the spot, or written to a file by any way."""
    parent = code.parent(node)
    return (isinstance(parent, ast.Call) and code.qualified(parent.func) in _SHIPS) or _is_written(node, code)


def _is_written(node: ast.Call, code: Code) -> bool:
    """True where a file gets what a call gives, or what freezing and optimising make of that."""
    parent = code.parent(node)
    if isinstance(parent, ast.Attribute) and parent.attr in _SAVES:
        return True
    if isinstance(parent, ast.Call) and code.qualified(parent.func) in _SHIPS:
        return code.qualified(parent.func) in _WRITES or _is_written(parent, code)
    statement = code.statement(node)
    if not isinstance(statement, ast.Assign) or statement.value is not node:
        return False
    name = code.names.dotted(statement.targets[0])
    for call in code.calls:
        if "." not in name and code.names.find(name, call)[0] is not code.names.find(name, node)[0]:
            continue  # another function's variable of that name
        given = name in [code.names.dotted(a) for a in call.args]
        if given and code.qualified(call.func) in _WRITES:
            return True
        later = call.lineno > node.lineno and code.qualified(call.func) in _SHIPS
        if given and later and _is_written(call, code):
            return True
        saves = isinstance(call.func, ast.Attribute) and call.func.attr in _SAVES
        if saves and isinstance(call.func, ast.Attribute) and code.names.dotted(call.func.value) == name:
            return True
    return False


RULE = Rule(
    code="H206",
    name="torchscript-deployment",
    on=(ast.Call,),
    words=("jit",),
    remedy="Ship torch.export or ONNX, or let hasten choose and verify an engine.",
    check=check,
)

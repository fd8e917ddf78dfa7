"""`allow_pickle=True`.

## What it does
Finds `allow_pickle=True` handed to numpy's `load` (or a `safe_mode=False` to Keras' `load_model`), but for files that
lie beside the source, that the same function has written in the lines before, or that are a cache which the file itself
writes.

## Why is this bad
An `.npy` file with object arrays is a pickle: opening it can run any code. Plain arrays never need it. Keras'
`safe_mode=False` lets a model file's Lambda layers do the same.

## Cost
The machine, to whoever wrote the file.

## Example
```python
data = np.load("data.npy", allow_pickle=True)
```

## Use instead
```python
data = np.load("data.npy")        # store arrays by np.savez, ragged ones as values and lengths
```

## Fix safety
Unsafe: files that do hold objects are refused then.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, hit, keyword
from hasten.doctor.samples import comes_from, value_of

_LOADS = ("numpy.load", "numpy.lib.npyio.load", "numpy.lib.format.read_array", "numpy.lib.npyio.NpzFile")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Loads that are told to unpickle."""
    assert isinstance(node, ast.Call)
    name = code.qualified(node.func)
    value = keyword(node, "allow_pickle")
    if node.args and comes_from(node.args[0], code, _is_source):
        return
    if name == "functools.partial" and node.args:
        name = code.qualified(node.args[0])
    if name in _LOADS and value is not None and isinstance(value, ast.Constant) and value.value is True:
        if _is_just_written(node, code) or _is_own_cache(node, code):
            return
        yield hit(node, "`allow_pickle=True` lets the file run code", Edit("argument", node, None, "allow_pickle"))
        return
    safe = keyword(node, "safe_mode")
    if (
        name.startswith("keras.")
        and name.endswith(".load_model")
        and isinstance(safe, ast.Constant)
        and safe.value is False
    ):
        yield hit(node, "`safe_mode=False` lets the model file run code", Edit("argument", node, None, "safe_mode"))


def _is_just_written(node: ast.Call, code: Code) -> bool:
    """True where the function has saved arrays, in the lines before, at a path that says the same."""
    told = _words_of(node, code)
    return (
        bool(told)
        and code.function(node) is not None
        and any(
            code.qualified(s.func).startswith("numpy.")
            and code.function(s) is code.function(node)
            and s.lineno < node.lineno
            and _words_of(s, code) == told
            for s in code.calls_named("save", "savez", "savez_compressed")
        )
    )


def _is_own_cache(node: ast.Call, code: Code) -> bool:
    """True for a path that says cache where the file itself saves arrays at such a path."""
    written = (c for c in code.calls_named("save", "savez", "savez_compressed") if c.args)
    own = (c for c in written if code.qualified(c.func).startswith("numpy."))
    return _says_cache(node) and any(_says_cache(c) for c in own)


def _says_cache(call: ast.Call) -> bool:
    return bool(call.args) and "cache" in ast.unparse(call.args[0]).lower()


def _words_of(call: ast.Call, code: Code) -> str:
    """The last part of a path as its own text says it, without what is filled in, nor the ending that numpy adds."""
    path = call.args[0] if call.args else None
    told = value_of(path, code) or path
    if told is None:
        return ""
    texts = [n.value for n in ast.walk(told) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    last = "".join(texts).rpartition("/")[2] if texts else ast.unparse(told)
    return last.removesuffix(".npz").removesuffix(".npy") or ast.unparse(told)


def _is_source(node: ast.AST) -> bool:
    """True for `__file__`: what lies beside the source is as trusted as the source."""
    return isinstance(node, ast.Name) and node.id == "__file__"


RULE = Rule(
    code="H502",
    name="allow-pickle",
    on=(ast.Call,),
    words=("allow_pickle", "safe_mode"),
    remedy="Store plain arrays and load without it.",
    check=check,
)

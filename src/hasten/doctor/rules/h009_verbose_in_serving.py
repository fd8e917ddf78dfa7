"""A progress bar in serving code.

## What it does
Finds Keras' `predict` without `verbose=0` in a request handler, also where the handler has a thread call it
(`asyncio.to_thread(model.predict, x)`), and `tqdm` around a handler's loop over a model.

## Why is this bad
By default `predict` draws a progress bar for every call. Terminal output is slow, locks, and fills the logs.

## Cost
A log full of bars: some hundred bytes a request. In time next to nothing into a file; more on a terminal or a slow
pipe.

## Example
```python
@app.post("/score")
def score():
    return model.predict(batch()).tolist()
```

## Use instead
```python
@app.post("/score")
def score():
    return model.predict(batch(), verbose=0).tolist()
```

## Fix safety
Safe: `verbose=0` changes nothing but what is printed. Not offered where a thread is handed the method: not every way to
hand it over passes keywords on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, hit, keyword
from hasten.doctor.samples import handed_over, is_keras_predict


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Progress bars drawn while a request waits."""
    assert isinstance(node, ast.Call)
    name = code.qualified(node.func)
    if name.startswith("tqdm.") and name.rsplit(".", 1)[-1] in ("tqdm", "trange"):
        off = keyword(node, "disable")
        if code.handler(node) is not None and not (isinstance(off, ast.Constant) and off.value is True):
            yield hit(
                node,
                "a progress bar is drawn while a request waits",
                Edit("argument", node, "True", "disable"),
                safe=True,
            )
        return
    handed = handed_over(node, code)
    asked = handed or node
    if not is_keras_predict(asked, code, "predict", "evaluate") or not _serves(node, code):
        return
    verbose = keyword(node, "verbose")
    if any(k.arg is None for k in node.keywords) or len(asked.args) > 2:
        return
    if verbose is None or (isinstance(verbose, ast.Constant) and verbose.value not in (0, False)):
        edits = [Edit("argument", node, "0", "verbose")] if handed is None else []  # (not all hand keywords on)
        yield hit(node, "`predict` prints a progress bar for each request", *edits, safe=True)


def _serves(node: ast.AST, code: Code) -> bool:
    if code.handler(node) is not None:
        return True
    function = code.function(node)
    return function is not None and any(code.handler(call) is not None for call in code.callers(function))


RULE = Rule(
    code="H009",
    name="verbose-in-serving",
    on=(ast.Call,),
    words=("predict", "tqdm", "evaluate"),
    remedy="Pass verbose=0.",
    check=check,
)

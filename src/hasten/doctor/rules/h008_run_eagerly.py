"""`run_eagerly=True` left on.

## What it does
Finds `compile(run_eagerly=True)`, `model.run_eagerly = True`, `tf.config.run_functions_eagerly(True)` and
`tf.data.experimental.enable_debug_mode()` outside tests. Left alone where a flag asks for it, where a comment or a text
of the function says what it is for, where a model's own class sets it, where a loss, metric or step reads the values
of tensors, in a script that fits nothing and asks for one answer, and beside torch or JAX.

## Why is this bad
Each operation of each step goes through Python; no graph is built, nothing is fused or run in parallel. It is meant
for debugging and easily forgotten.

## Cost
Two to ten times in `fit` and `predict`, more for small layers.

## Example
```python
model.compile("adam", "mse", run_eagerly=True)
```

## Use instead
```python
model.compile("adam", "mse")
```

## Fix safety
Unsafe: Python side effects inside the model (prints, breakpoints, numpy in `call`) stop working in a graph.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.rule import Edit, Hit, Rule, hit, keyword

_SWITCHES = ("tensorflow.config.run_functions_eagerly", "tensorflow.config.experimental_run_functions_eagerly")

# What a reason says, and a mere name of the switch does not.
_WHY = re.compile(
    r"\b(because|since|for|to|so|as|needs?|needed|requires?d?|otherwise|must|only|supports?|works?|can)\b|n't"
)


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Switches to eager running that are on."""
    if not code.imports("tensorflow", "keras", "tf_keras") or _is_asked_for(node, code) or _is_explained(node, code):
        return
    if code.fact(_needs_values) or code.fact(_answers_once) or code.imports("torch", "jax"):
        return  # (Keras over another framework has no graph to leave)
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        own = isinstance(target, ast.Attribute) and code.names.class_of_self(target.value) is not None
        if isinstance(target, ast.Attribute) and target.attr == "run_eagerly" and _is_true(node.value) and not own:
            yield hit(node, "`run_eagerly` runs every operation from Python")
        return
    assert isinstance(node, ast.Call)
    name = code.qualified(node.func)
    if isinstance(node.func, ast.Attribute) and node.func.attr == "compile":
        value = keyword(node, "run_eagerly")
        if _is_true(value) and not _is_own(node.func.value, code) and value is not None:
            yield hit(
                value,
                "`run_eagerly=True` runs every operation from Python",
                Edit("argument", node, None, "run_eagerly"),
            )
    elif name in _SWITCHES and not _turned_off(code, name):
        if (not node.args and not node.keywords) or _is_true((node.args or [k.value for k in node.keywords])[0]):
            yield hit(node, "all tf.functions now run eagerly, operation by operation")
    elif name == "tensorflow.data.experimental.enable_debug_mode":
        yield hit(node, "tf.data runs eagerly and in sequence in debug mode")


def _answers_once(code: Code) -> bool:
    """True for a script that fits nothing and asks its model once: building the graph takes longer than one run."""
    asked = code.calls_named("predict", "predict_on_batch")
    if len(asked) != 1 or code.calls_named("fit", "evaluate", "train_on_batch", "test_on_batch", "fit_generator"):
        return False
    return code.function(asked[0]) is None and code.loop(asked[0]) is None


def _is_asked_for(node: ast.AST, code: Code) -> bool:
    """True beneath an `if` other than the script's own: a flag turns it on, for those who want it."""
    tests = (ast.unparse(a.test) for a in code.ancestors(node) if isinstance(a, ast.If))
    return any("__name__" not in test for test in tests)


def _is_own(model: ast.expr, code: Code) -> bool:
    """True for `super().compile(run_eagerly=True)`: the class itself says how it runs."""
    called = model.func if isinstance(model, ast.Call) else None
    return getattr(called, "id", "") == "super" and code.klass(model) is not None


def _needs_values(code: Code) -> bool:
    """True where a function that others may be handed, or a class of Keras, reads the values of tensors.

    No graph has values: a loss, a metric or a step written so runs eagerly or not at all.
    """
    for node in code.names.nodes:
        if isinstance(node, ast.ClassDef) and node.bases:
            parts = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name != "__init__"]
        else:
            parts = [node] if isinstance(node, ast.FunctionDef) and _is_measure(node) else []
        if any(_reads_values(n) for p in parts for n in ast.walk(p)):
            return True
    return False


def _is_measure(function: ast.FunctionDef) -> bool:
    """True for what takes the truth and the answer, as losses and metrics do."""
    names = " ".join(a.arg for a in function.args.args).lower()
    return "true" in names and "pred" in names


def _reads_values(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr == "numpy":
        return True
    root = called.value if isinstance(called, ast.Attribute) else None
    return isinstance(root, ast.Name) and (root.id == "np" or (root.id == "K" and called.attr == "eval"))  # type: ignore[union-attr]


def _is_explained(node: ast.AST, code: Code) -> bool:
    """True where a comment there, or a text of the function, says what eager running is for.

    Debugging over, that alone is no reason to stay.
    """
    first = code.statement(node).lineno
    comments = [line.partition("#")[2].lower() for line in code.lines[max(0, first - 4) : first]]
    if any("eager" in c and "debug" not in c and "=" not in c and _WHY.search(c) for c in comments):
        return True
    function = code.function(node)
    texts = (n.value for n in ast.walk(function) if isinstance(n, ast.Constant)) if function is not None else iter(())
    return any(isinstance(t, str) and "eager" in t.lower() and _WHY.search(t.lower()) for t in texts)


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _turned_off(code: Code, name: str) -> bool:
    """On for a few lines and off again is a use, not an oversight."""
    off = (c for c in code.calls_named(name.rsplit(".", 1)[-1]) if c.args)
    return any(isinstance(c.args[0], ast.Constant) and c.args[0].value is False for c in off)


RULE = Rule(
    code="H008",
    name="run-eagerly",
    on=(ast.Call, ast.Assign),
    words=("eagerly", "enable_debug_mode"),
    remedy="Remove it once the bug is found.",
    check=check,
)

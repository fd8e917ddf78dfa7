"""A loop that runs a model on one row a round, where one batch would do.

## What it does
Finds a model (torch, Keras, ONNX Runtime) run in a `for` loop or comprehension on `x[None]`, `x.unsqueeze(0)`,
`X[i:i+1]` of the loop's own element (in torch, on the bare row of a table too: `torch.tensor(df.values)`, an array
whose two dimensions are written), with no state carried from round to round. Loops that draw each row or print a
handful, streams, rows called texts or tokens, what is left to do where a batch has failed, rounds that explain or show
their rows, and files that time single runs are left alone.

## Why is this bad
Each call pays the cost of Python, dispatch and reading all weights. A batch pays once, and turns matrix-vector into
matrix-matrix products, for which processors are made.

## Cost
Ten to a hundred times for small models.

## Example
```python
answers = [net(row.unsqueeze(0)) for row in rows]
```

## Use instead
```python
answers = net(rows)
```

## Fix safety
No fix: memory and batch-dependent layers are yours to judge. (`predict` of Keras: see H001.)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.once import draws, shows_few
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import input_of, is_one_sample, model_changes, only_from_target, value_of
from hasten.doctor.tables import is_row

_PER_ROW = ("backward", "grad", "GradientTape", "gradient")  # gradients of single rows are wanted
_WORDS = re.compile(r"(^|_)(ids|tokens?|texts?|prompts?|sentences?|words)(_|$)")
_LOOKS = re.compile(r"explain|interpret|saliency|grad_?cam|heat_?map|attribution|visuali[sz]e|plot|(^|_)demo(_|$)")
_ARRIVES = re.compile(r"(^|[._])stream$")  # rows that come one by one
_GIVEN_ELSEWHERE = ("predict", "predict_on_batch")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Model runs on one row that depends on the loop's element alone."""
    assert isinstance(node, ast.Call)
    if isinstance(node.func, ast.Attribute) and node.func.attr in (*_GIVEN_ELSEWHERE, "generate"):
        return
    loop = code.loop(node)
    if loop is None or isinstance(loop, ast.While) or code.runs_model(node) is None:
        return
    data = input_of(node)
    if code.is_a(node.func, makers.KERAS_MODEL) and code.is_a(data, makers.NUMPY):
        return  # H004 says it already
    if data is None or not only_from_target(data, loop, code):
        return
    plain = not is_one_sample(data, code)
    if plain and not _is_plain_row(node, data, code):
        return
    if model_changes(node.func, loop, code) or code.in_layer(node) or _carries_state(node, loop, code):
        return
    if isinstance(loop, ast.For) and _ARRIVES.search(code.names.dotted(loop.iter)):
        return
    if any("past" in (k.arg or "") or "cache" in (k.arg or "") for k in node.keywords):
        return  # a language model goes on from what it has read
    if any(k.arg in ("input_ids", "attention_mask") for k in node.keywords) or _is_of_words(data):
        return  # texts are of unlike lengths
    if _differs_in_length(data, loop, code) or (not plain and _is_made_unseen(loop, code)) or _measures_row(loop):
        return
    if _is_run_whole_too(node, data, code) or _is_layer_of_many(node, loop, code) or _is_fallback(node, code):
        return
    if code.fact(_times_single_runs) or _is_look(node, loop, code):
        return
    if (
        draws(loop, code)
        or shows_few(loop, code)
        or _times(loop)
        or any(isinstance(n, ast.Attribute) and n.attr in _PER_ROW for n in ast.walk(loop))
    ):
        return
    yield hit(node, "the model runs on one row a round; one batch of all rows does the same work once")


def _is_plain_row(node: ast.Call, data: ast.expr, code: Code) -> bool:
    """True for a row without a batch's dimension, which torch's dense layers take: `net(row)`, of a table's rows."""
    alone = len(node.args) == 1 and not node.keywords
    return alone and code.is_a(node.func, makers.TORCH_MODULE) and is_row(data, code)


def _carries_state(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True where all rounds share a second input and only the last answer stays: a state that goes from row to row."""
    shared = [a for a in node.args[1:] if isinstance(a, ast.Name) and not code.depends_on_round(a, loop)]
    statement = code.statement(node)
    if not shared or not isinstance(statement, ast.Assign) or statement.value is not node:
        return False
    written = {n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    reads = (n for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return bool(written) and not any(n.id in written for n in reads)


def _is_look(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True for rounds that explain or show their rows, and for a callback's: a few samples, seen to one by one."""
    owner, function = code.klass(node), code.function(node)
    if owner is not None and any("Callback" in code.names.dotted(b) for b in owner.bases):
        return True
    if function is not None and _LOOKS.search(function.name.lower()):
        return True
    called = (n.func for n in ast.walk(loop) if isinstance(n, ast.Call))
    return any(_LOOKS.search(getattr(f, "attr", getattr(f, "id", "")).lower()) for f in called)


def _is_layer_of_many(node: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True where an outer loop picks the model: layers run one after the other, of a model too large for more."""
    outer = [around for around in code.loops(node) if around is not loop]
    return any(model_changes(node.func, around, code) for around in outer) or _frees(code.function(node))


def _frees(function: ast.AST | None) -> bool:
    """True for a function that empties the device's cache: it runs what just fits."""
    named = (n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)) if function is not None else iter(())
    return "empty_cache" in named


def _is_run_whole_too(node: ast.Call, data: ast.expr, code: Code) -> bool:
    """True where the function runs the model on all rows as well, `net(rows)`: one by one is one of two ways."""
    rows = value_of(data, code)
    whole = code.names.dotted(rows.value) if isinstance(rows, ast.Subscript) else ""
    model, function = code.names.dotted(node.func), code.function(node)
    others = (c for c in code.calls if c is not node and code.function(c) is function)
    return bool(whole) and any(
        code.names.dotted(c.func) == model and code.names.dotted(d) == whole
        for c in others
        if (d := input_of(c)) is not None
    )


def _is_fallback(node: ast.Call, code: Code) -> bool:
    """True beneath `except`, where what was tried ran the same model: on all rows, which failed."""
    model = code.names.dotted(node.func)
    for around in code.ancestors(node):
        attempt = code.parent(around) if isinstance(around, ast.ExceptHandler) else None
        tried = attempt.body if isinstance(attempt, ast.Try) else []
        calls = (n for s in tried for n in ast.walk(s) if isinstance(n, ast.Call))
        if any(code.names.dotted(c.func) == model for c in calls):
            return True
    return False


def _times_single_runs(code: Code) -> bool:
    """True for a file that times runs on one row: the model is meant to answer one by one."""
    runs = (c for c in code.calls if code.runs_model(c) is not None)
    loops = ((c, code.loop(c)) for c in runs)
    return any(loop is not None and _times(loop) and is_one_sample(input_of(c), code) for c, loop in loops)


def _differs_in_length(data: ast.expr, loop: ast.AST, code: Code, depth: int = 3) -> bool:
    """True for rows cut by the round's own mask or bounds, `features[mask]`: of unlike lengths they make no batch."""
    for inner in ast.walk(data):
        if isinstance(inner, ast.Name) and depth:
            values = [b.value for b in code.bound_in(inner, loop) if b.role == "value" and b.value is not None]
            if any(_differs_in_length(v, loop, code, depth - 1) for v in values):
                return True
        if isinstance(inner, ast.Subscript) and (_is_mask(inner.slice, code) or _is_span(inner.slice, loop, code)):
            return True
    return False


def _is_of_words(data: ast.expr) -> bool:
    """True for rows called tokens, ids or texts."""
    return any(isinstance(n, ast.Name) and _WORDS.search(n.id.lower()) for n in ast.walk(data))


def _measures_row(loop: ast.AST) -> bool:
    """True where the round asks for the length of its row, to tell the model: rows are of unlike lengths."""
    target = loop.target if isinstance(loop, ast.For) else None
    calls = (n for n in ast.walk(loop) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "len")
    return isinstance(target, ast.Name) and any(
        isinstance(a, ast.Name) and a.id == target.id for c in calls for a in c.args
    )


def _is_made_unseen(loop: ast.AST, code: Code) -> bool:
    """True for the items of a list that a function of another file makes: nothing says that they are of one shape."""
    iterable = (
        loop.iter if isinstance(loop, ast.For) else loop.generators[0].iter if hasattr(loop, "generators") else None
    )
    made = value_of(iterable, code) if isinstance(iterable, ast.Name) else None
    if not isinstance(made, ast.Call) or code.kind(made) is not None or code.function_run(made) is not None:
        return False
    return not code.qualified(made.func).startswith(("torch.", "numpy.", "tensorflow.", "sklearn."))


def _is_mask(index: ast.expr, code: Code) -> bool:
    return isinstance(value_of(index, code), ast.Compare) or (
        isinstance(index, ast.Name) and "mask" in index.id.lower()
    )


def _is_span(index: ast.expr, loop: ast.AST, code: Code) -> bool:
    """True for `x[start:end]`, both from the round; `x[i : i + n]` is as long in every round."""
    if isinstance(index, ast.Tuple):  # one part of the bounds is enough: tiles at the edges are cut
        return any(_is_span(part, loop, code) for part in index.elts)
    if not isinstance(index, ast.Slice) or index.lower is None or index.upper is None:
        return False
    return all(not isinstance(b, ast.BinOp) and code.depends_on_round(b, loop) for b in (index.lower, index.upper))


def _times(loop: ast.AST) -> bool:
    """A benchmark of single calls is what it is."""
    return any(
        isinstance(n, ast.Attribute) and n.attr in ("perf_counter", "perf_counter_ns", "time") for n in ast.walk(loop)
    )


RULE = Rule(
    code="H007",
    name="row-by-row",
    on=(ast.Call,),
    words=("torch", "keras", "onnxruntime", "tensorflow"),
    remedy="Stack the rows and run the model once (in chunks, if memory is short).",
    check=check,
)

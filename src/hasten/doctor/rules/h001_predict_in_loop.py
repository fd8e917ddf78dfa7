"""`predict` of a Keras model inside a loop.

## What it does
Finds `model.predict(...)` in a `for`, `while`, comprehension or `map` where the data changes from round to round. A
batch that the rounds fill by hand (`batch = np.zeros((n, ...)); batch[i] = ...`) is left alone, and so are `for` loops
that draw a figure in each round, print a handful of answers or time single calls. A generator or dataset made in the
round is a whole set. In a `for` loop the file must show that a round asks about little: one sample, the loop's own
element, random numbers, or an answer of which the first is taken; `while` loops ask about what has just come in.

## Why is this bad
`predict` is made for large arrays: each call builds a data pipeline, runs callbacks and may print a progress bar
before the first multiplication. For small inputs nearly all of the time is that preparation.

## Cost
Tens of milliseconds a call, where the arithmetic of a small model needs microseconds.

## Example
```python
for row in rows:
    answers.append(model.predict(row[None])[0])
```

## Use instead
```python
answers = list(model.predict(rows))       # all rows at once, or, where they come one by one:

infer = tf.function(model, reduce_retracing=True)
for row in stream:
    answer = infer(tf.constant(row[None]))
```

## Fix safety
`[model.predict(row[None])[0] for row in rows]` over a numpy array becomes `list(model.predict(rows))`: safe, equal up
to float rounding. Other calls on arrays become `model(x, training=False).numpy()`: unsafe, since all of `x` is then
one batch in memory.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.clocks import is_clock
from hasten.doctor.code import Code
from hasten.doctor.evidence import is_given_little, is_timed_alone
from hasten.doctor.names import Function
from hasten.doctor.once import draws, shows_few
from hasten.doctor.rule import Edit, Hit, Rule, hit
from hasten.doctor.samples import (
    first_argument,
    is_chunked,
    is_filled_batch,
    is_keras_predict,
    is_one_sample,
    model_changes,
    value_of,
)

_SETS = re.compile(r"generator|dataset|dataloader|loader$|^flow|from_tensor_slices|^batch$", re.I)


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Keras `predict` calls whose data depends on a round of a loop."""
    assert isinstance(node, ast.Call)
    if not is_keras_predict(node, code):
        return
    data = first_argument(node)
    loop = code.loop(node)
    if loop is None:
        reason = _mapped(node, data, code) or _called_in_loop(node, data, code)
        if reason:
            yield hit(node, f"`predict` prepares anew at each call, {reason}")
        return
    assert isinstance(node.func, ast.Attribute)
    if model_changes(node.func.value, loop, code) or (is_chunked(loop) and not is_one_sample(data, code)):
        return
    if data is not None and not code.depends_on_round(data, loop) and not _draws(data):
        return
    if _is_whole_set(data, code) or is_measured(node, loop, code) or is_timed_alone(node, loop, code):
        return
    if not is_given_little(node, loop, code):
        return
    if is_filled_batch(data, code) or shows_few(loop, code) or (not isinstance(loop, ast.While) and draws(loop, code)):
        return
    batch = _whole_batch(node, code)
    if batch is not None:
        yield hit(
            node, "`predict` on one row a round prepares anew each time: hand it the whole array", batch, safe=True
        )
        return
    yield hit(node, "`predict` in a loop prepares a data pipeline at each call", *direct_call(node, code))


def direct_call(node: ast.Call, code: Code) -> tuple[Edit, ...]:
    """`model(x, training=False).numpy()` for a predict that takes an array and no options that matter."""
    assert isinstance(node.func, ast.Attribute)
    options = {k.arg for k in node.keywords} - {"verbose"}
    if len(node.args) != 1 or options or not code.is_a(node.args[0], makers.NUMPY) or _is_unpacked(node, code):
        return ()
    return (
        Edit("replace", node, f"{code.source(node.func.value)}({code.source(node.args[0])}, training=False).numpy()"),
    )


def _is_unpacked(node: ast.Call, code: Code) -> bool:
    """True for `ages, names = model.predict(x)`: a model of several answers gives a list, which has no `.numpy()`."""
    for taken in (node, *code.uses_of(node)):
        around = code.parent(taken)
        targets = around.targets if isinstance(around, ast.Assign) and around.value is taken else []
        if any(isinstance(t, (ast.Tuple, ast.List)) for t in targets):
            return True
        key = around.slice if isinstance(around, ast.Subscript) and around.value is taken else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return True
    return False


def _is_whole_set(data: ast.expr | None, code: Code) -> bool:
    """True for a generator or dataset, by what makes it: `predict` goes through all of its batches in one call."""
    made = value_of(data, code)
    name = code.names.dotted(made.func).rsplit(".", 1)[-1] if isinstance(made, ast.Call) else ""
    return _SETS.search(name) is not None


def is_measured(node: ast.Call, loop: ast.AST | None, code: Code) -> bool:
    """True where clocks are read before and behind a loop that throws its answers away: single calls are timed."""
    statement = code.statement(node)
    if not isinstance(loop, ast.For) or not isinstance(statement, ast.Expr) or statement.value is not node:
        return False
    block = code.block(loop)
    place = block.index(loop)
    return all(any(_reads_clock(s, code) for s in part) for part in (block[:place], block[place + 1 :]))


def _reads_clock(statement: ast.stmt, code: Code) -> bool:
    return any(isinstance(n, ast.Call) and is_clock(n, code) for n in ast.walk(statement))


def _draws(data: ast.expr) -> bool:
    """True for data made in the round: `np.random.normal(...)`, `queue.get()`."""
    return any(isinstance(n, ast.Call) for n in ast.walk(data))


def _mapped(node: ast.Call, data: ast.expr | None, code: Code) -> str:
    """Why a call runs once a row where `map` does: ``map(lambda row: net.predict(row[None]), rows)``; '' elsewhere."""
    around = next((a for a in code.ancestors(node) if isinstance(a, (ast.Lambda, ast.FunctionDef))), None)
    call = code.mapped(around)
    if around is None or call is None or data is None or not is_one_sample(data, code):
        return ""
    given = {a.arg for a in around.args.args}
    read = any(isinstance(n, ast.Name) and n.id in given for n in ast.walk(data))
    by_name = isinstance(around, ast.FunctionDef) and _reads_parameter(data, around, code)
    return f"and line {call.lineno} maps it over each row" if read or by_name else ""


def _called_in_loop(node: ast.Call, data: ast.expr | None, code: Code) -> str:
    """A function around the call that a loop of this file runs with the round's own data."""
    function = code.function(node)
    if function is None or data is None or not _reads_parameter(data, function, code):
        return ""
    for call in code.callers(function):
        loop = code.loop(call)
        given = [*call.args, *(k.value for k in call.keywords)]
        if loop is None or is_chunked(loop) or code.function(call) is function:
            continue
        single = is_one_sample(data, code) or (isinstance(data, ast.Name) and is_passed_one(data.id, function, code))
        if single and any(code.depends_on_round(a, loop) for a in given):
            return f"and line {call.lineno} calls '{function.name}' in a loop"
    return ""


def is_passed_one(name: str, function: Function, code: Code) -> bool:
    """True when every call of the function passes one sample for this parameter."""
    passed = code.kinds.calls.arguments(function, name)
    return bool(passed) and all(is_one_sample(value, code) for value in passed)


def _reads_parameter(data: ast.expr, function: Function, code: Code) -> bool:
    parameters = {a.arg for a in (*function.args.posonlyargs, *function.args.args)} - {"self"}
    for _ in range(3):
        for inner in ast.walk(function):
            if isinstance(inner, ast.Assign) and any(
                isinstance(n, ast.Name) and n.id in parameters for n in ast.walk(inner.value)
            ):
                parameters.update(n.id for t in inner.targets for n in ast.walk(t) if isinstance(n, ast.Name))
    return any(isinstance(n, ast.Name) and n.id in parameters for n in ast.walk(data))


def _whole_batch(node: ast.Call, code: Code) -> Edit | None:
    """`[model.predict(row[None])[0] for row in rows]`, `rows` an array: the edit to `list(model.predict(rows))`."""
    taken = code.parent(node)
    comprehension = code.parent(taken) if isinstance(taken, ast.Subscript) and _is_zero(taken.slice) else None
    if (
        not isinstance(comprehension, ast.ListComp)
        or comprehension.elt is not taken
        or len(comprehension.generators) != 1
    ):
        return None
    generator: ast.comprehension = comprehension.generators[0]
    if generator.ifs or generator.is_async or not code.is_a(generator.iter, makers.NUMPY) or len(node.args) != 1:
        return None
    if {k.arg for k in node.keywords} - {"verbose"} or not isinstance(generator.target, ast.Name):
        return None
    row = node.args[0]
    if (
        not isinstance(row, ast.Subscript)
        or not _is_name(row.value, generator.target.id)
        or not is_one_sample(row, code)
    ):
        return None
    assert isinstance(node.func, ast.Attribute)
    options = "".join(f", {k.arg}={code.source(k.value)}" for k in node.keywords)
    rows, model = code.source(generator.iter), code.source(node.func.value)
    return Edit("replace", comprehension, f"list({model}.predict({rows}{options}))")


def _is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


RULE = Rule(
    code="H001",
    name="predict-in-loop",
    on=(ast.Call,),
    words=("predict",),
    remedy="Predict all rows in one call; one by one, call tf.function(model) or hasten.compile(model).",
    check=check,
)

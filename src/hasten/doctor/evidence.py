"""What shows that a call in a loop is given little: one sample, the loop's own element, one answer taken out of it."""

from __future__ import annotations

import ast

from hasten.doctor.around import Loop
from hasten.doctor.clocks import is_clock
from hasten.doctor.code import Code
from hasten.doctor.samples import first_argument, is_one_sample, value_of

__all__ = ["is_given_little", "is_timed_alone"]

_WHOLE_SETS = frozenset(("items", "values", "keys", "split", "groupby"))  # folds, and sets by their names
_COUNTS = frozenset(("range", "trange", "enumerate", "tqdm"))
_ONE_NUMBER = frozenset(("float", "int", "bool"))


def is_given_little(call: ast.Call, loop: Loop, code: Code) -> bool:
    """True where the file shows that a round asks about little; a set of unknown size may well be a whole one.

    What a `while` loop asks about has just come in.
    """
    data = first_argument(call)
    if isinstance(loop, ast.While) or data is None or is_one_sample(data, code):
        return True
    value = value_of(data, code) or data
    if _is_drawn(value, code) or _takes_one(call, code):
        return True
    iterable = loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].iter
    target = loop.target if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].target
    own = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
    if _last_name(iterable) in _WHOLE_SETS:
        return False
    if isinstance(value, ast.Subscript):
        counted = isinstance(value.slice, ast.Name) and value.slice.id in own
        return (counted and _last_name(iterable) in _COUNTS) or _is_made_of_one(value, code)
    return (isinstance(data, ast.Name) and data.id in own) or _is_made_of_one(value, code)


def is_timed_alone(call: ast.Call, loop: Loop, code: Code) -> bool:
    """True in a `for` loop where a clock is read right before and right behind the line: single calls are measured."""
    statement = code.statement(call)
    block = code.block(statement)
    place = block.index(statement) if statement in block else 0
    if not isinstance(loop, ast.For) or not 0 < place < len(block) - 1:
        return False
    return all(_reads_clock(s, code) for s in (block[place - 1], block[place + 1]))


def _reads_clock(statement: ast.stmt, code: Code) -> bool:
    return any(isinstance(n, ast.Call) and is_clock(n, code) for n in ast.walk(statement))


def _is_made_of_one(value: ast.expr, code: Code) -> bool:
    """True for an array that is made empty with one row, and filled: ``np.zeros((1, 32, 32))``."""
    shape = value.args[0] if isinstance(value, ast.Call) and value.args else None
    first = shape.elts[0] if isinstance(shape, (ast.Tuple, ast.List)) and shape.elts else None
    return code.qualified(getattr(value, "func", value)).startswith("numpy.") and _is_number(first, 1)


def _is_drawn(value: ast.expr, code: Code) -> bool:
    """True for random numbers: as many as the line says."""
    return isinstance(value, ast.Call) and ".random." in code.qualified(value.func)


def _takes_one(call: ast.Call, code: Code) -> bool:
    """True for ``predict(x)[0]``, ``np.argmax(predict(x))``, ``float(predict(x))``, there or by way of its name."""
    return any(_is_read_as_one(n, code) for n in (call, *code.uses_of(call)))


def _is_read_as_one(node: ast.expr, code: Code) -> bool:
    parent = code.parent(node)
    if isinstance(parent, ast.Subscript) and parent.value is node:
        first = parent.slice.elts[0] if isinstance(parent.slice, ast.Tuple) and parent.slice.elts else parent.slice
        return _is_number(first, 0)
    if isinstance(parent, ast.Attribute):
        taken = code.parent(parent)
        return parent.attr in ("item", "argmax") and isinstance(taken, ast.Call) and not (taken.args or taken.keywords)
    if not isinstance(parent, ast.Call) or parent.func is node:
        return False
    alone = len(parent.args) == 1 and not parent.keywords
    return alone and (_last_name(parent) in _ONE_NUMBER or code.qualified(parent.func) == "numpy.argmax")


def _is_number(node: ast.expr | None, value: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == value and not isinstance(node.value, bool)


def _last_name(node: ast.expr) -> str:
    """The last name of what a call calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")

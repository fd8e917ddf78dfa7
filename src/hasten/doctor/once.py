"""Where a script answers once: a line that no loop repeats, on the one file that the script itself reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.names import Binding
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

__all__ = ["answers_once", "draws", "is_printed_each", "is_written_out", "shows_few"]

_ARRAYS = words(
    "numpy.array numpy.asarray tensorflow.constant tensorflow.convert_to_tensor "
    "torch.tensor torch.FloatTensor torch.Tensor"
)
_DRAWS = ("imshow", "subplot", "add_subplot", "scatter", "plot_surface", "set_title")
_HANDFUL = 10
_READERS = words("load_img imread open read_image load_image loadtxt input fromfile decode_image read_file get_file")


def answers_once(call: ast.Call, data: ast.expr | None, code: Code) -> bool:
    """True where a line runs once in its script, and shows so: the script's own time is loading, or training.

    It asks about one file, about numbers written out, about a row picked by its number, or as a look at the model that
    the lines above have trained.
    """
    if code.imports("streamlit") or data is None or not _runs_once(call, code):
        return False  # (streamlit runs a script again at each click)
    asked = is_written_out(data, code) or _is_picked(data, code)
    return asked or _is_just_trained(call, code) or _comes_of_file(data, code)


def is_written_out(data: ast.expr, code: Code) -> bool:
    """True for `np.array([[0.6, 0.7]])`: an array of numbers, and no name but the library's."""
    if not isinstance(data, ast.Call) or code.qualified(data.func) not in _ARRAYS:
        return False
    return not any(isinstance(n, (ast.Name, ast.Call)) for a in data.args for n in ast.walk(a))


def _is_picked(data: ast.expr, code: Code) -> bool:
    """True for `np.expand_dims(rows[11], 0)`, the number written out there or above: a look at that one row."""
    for inner in ast.walk(data):
        index = inner.slice if isinstance(inner, ast.Subscript) else None
        bindings = code.names.find(index.id, index)[1] if isinstance(index, ast.Name) else []
        values = [b.value for b in bindings if b.role == "value"] if bindings else [index]
        if len(values) == max(1, len(bindings)) and all(_is_number(v) for v in values):
            return True
    return False


def _is_number(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def _is_just_trained(call: ast.Call, code: Code) -> bool:
    """True where the module's own lines train the model before they ask it."""
    model = code.names.dotted(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    trained = (c for c in code.calls_named("fit") if code.function(c) is None and c.lineno < call.lineno)
    asked = (code.names.dotted(c.func.value) for c in trained if isinstance(c.func, ast.Attribute))
    return bool(model) and code.function(call) is None and model in asked


def _runs_once(node: ast.AST, code: Code, depth: int = 3) -> bool:
    """True for a line of the module that no loop repeats, and in a function that only one such line calls."""
    function = code.function(node)
    if any(True for _ in code.loops(node)) or code.klass(node) is not None:
        return False
    if function is None:
        return True
    calls = code.callers(function)
    if code.handler(function) is not None or len(calls) != 1 or not depth:
        return False
    return _runs_once(calls[0], code, depth - 1)


def _comes_of_file(data: ast.expr, code: Code) -> bool:
    """True where the data, by way of the names in it, is read from a file that no loop names."""
    seen: set[object] = set()
    waiting: list[ast.AST] = [data]
    while waiting:
        for inner in ast.walk(waiting.pop()):
            if isinstance(inner, ast.Call) and code.loop(inner) is None and _reads(inner, code):
                return True
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
                scope, bindings = code.names.find(inner.id, inner)
                if (scope, inner.id) not in seen:
                    seen.add((scope, inner.id))
                    waiting += [v for b in bindings for v in _values(b, inner, code)]
    return False


def _values(binding: Binding, name: ast.Name, code: Code) -> list[ast.expr]:
    """What a name is given: the assigned value, or what the callers of its function pass for it."""
    function = code.function(name)
    if binding.role == "parameter" and function is not None:
        return code.kinds.calls.arguments(function, name.id)
    return [binding.value] if binding.role in ("value", "other") and binding.value is not None else []


def _reads(call: ast.Call, code: Code) -> bool:
    """True for `load_img(…)`, and for a function of the file whose own lines read one."""
    helper = code.function_run(call)
    calls = (c for c in ast.walk(helper) if isinstance(c, ast.Call)) if helper is not None else iter((call,))
    return any((getattr(c.func, "attr", "") or getattr(c.func, "id", "")) in _READERS for c in calls)


def draws(scope: ast.AST, code: Code) -> bool:
    """True where a loop's every round, or a function, draws a figure: a look at a few, which takes longer to draw.

    What is drawn beneath an `if` is drawn now and then; OpenCV's window shows the frames of a running program.
    """
    if not code.imports("matplotlib", "pylab"):
        return False
    drawn = (n for n in ast.walk(scope) if isinstance(n, ast.Attribute) and n.attr in _DRAWS)
    own = (n for n in drawn if not code.qualified(n).startswith("cv2."))
    return any(not any(isinstance(a, ast.If) for a in _between(n, scope, code)) for n in own)


def shows_few(loop: ast.AST | None, code: Code) -> bool:
    """True for `for i in range(5)` and `for i in random.sample(rows, 5)` whose every round prints: a look at a few."""
    if not isinstance(loop, ast.For) or not any(_prints(s) for s in loop.body):
        return False
    rounds = value_of(loop.iter, code)
    if isinstance(rounds, ast.Call) and getattr(rounds.func, "id", "") in ("enumerate", "zip") and rounds.args:
        rounds = value_of(rounds.args[0], code)
    return any(_is_handful(value_of(c, code)) for c in _counts(rounds))


def _counts(rounds: ast.expr | None) -> list[ast.expr]:
    """What says how many rounds there are: `range(n)`, `rows[:n]`, `rows.take(n)`, so many drawn by chance."""
    if isinstance(rounds, ast.Subscript) and isinstance(rounds.slice, ast.Slice):
        part = rounds.slice
        return [part.upper] if part.upper is not None and part.lower is None and part.step is None else []
    if not isinstance(rounds, ast.Call):
        return []
    name = rounds.func.attr if isinstance(rounds.func, ast.Attribute) else getattr(rounds.func, "id", "")
    if name in ("range", "take") and len(rounds.args) == 1:
        return rounds.args
    place = {"choice": 1, "sample": 1, "choices": 1, "randint": 2, "integers": 2}.get(name)
    if place is None:
        return []
    named = [k.value for k in rounds.keywords if k.arg in ("size", "k")]
    return named or rounds.args[place : place + 1]


def _is_handful(count: ast.expr | None) -> bool:
    return isinstance(count, ast.Constant) and isinstance(count.value, int) and 0 <= count.value <= _HANDFUL


def is_printed_each(call: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True for a `print` that every round of a loop comes to."""
    printed = getattr(call.func, "id", "") == "print"
    return printed and not any(isinstance(around, ast.If) for around in _between(call, loop, code))


def _prints(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print"


def _between(node: ast.AST, scope: ast.AST, code: Code) -> Iterator[ast.AST]:
    """What stands around a node inside a loop or function."""
    for around in code.ancestors(node):
        if around is scope:
            return
        yield around

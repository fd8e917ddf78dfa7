"""Costly preparations that happen once a call instead of once: models loaded, sessions opened, tensors allocated."""

from __future__ import annotations

import ast

from hasten.doctor.clocks import regions
from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.package import is_in_package
from hasten.doctor.rule import Edit

__all__ = ["hoist", "is_guarded", "is_used", "repeats_needlessly", "tainted"]

_CACHES = ("cache", "lru_cache", "cached_property", "cache_resource", "cache_data", "experimental_singleton", "fixture",
           "on_event", "asynccontextmanager", "contextmanager", "cached", "memoize", "singleton")  # fmt: skip
_ALTERS = ("fit", "compile", "load_state_dict", "load_weights", "to", "train", "save", "resize_token_embeddings")
_ENTRY = (
    "main",
    "run",
    "test",
    "train",
    "evaluate",
    "bench",
    "setup",
    "convert",
    "export",
    "demo",
    "load",
    "build",
    "get",
    "make",
    "create",
    "init",
)
_ANSWERS = frozenset(("inference", "prediction", "predictions"))  # `run_inference(image)`, `get_prediction(text)`


def repeats_needlessly(call: ast.Call, code: Code) -> str:
    """Why this preparation runs again and again with the same arguments; '' where it does not, or has reason to."""
    if code.function(call) is None and code.fact(_is_rerun) and not _is_kept(call, code):
        return "at each interaction: Streamlit runs the script again (st.cache_resource keeps it)"
    if is_guarded(call, code) or _is_timed_alone(call, code):
        return ""
    loop = code.loop(call)
    if loop is not None:
        return "" if _needed_in_loop(call, loop, code) or not is_used(call, loop, code) else "in a loop"
    function = code.function(call)
    if (
        function is None
        or _is_cached(function, code)
        or _returns_kept(call, function, code)
        or _teaches(function, code)
    ):
        return ""
    if _from_parameters(call, function, code) or any(is_guarded(c, code) for c in code.callers(function)):
        return ""
    hot = code.hot(call)
    if hot is not None:
        return hot.reason
    return _each_call(call, function, code)


def _is_rerun(code: Code) -> bool:
    """True for a script that draws with Streamlit in its own lines: these run again at each click."""
    drawn = (c for c in code.calls if code.qualified(c.func).startswith("streamlit."))
    return any(code.function(c) is None and isinstance(code.statement(c), (ast.Expr, ast.Assign)) for c in drawn)


def _is_kept(call: ast.Call, code: Code) -> bool:
    """True where it goes into Streamlit's session, or a test asks whether that, or the name itself, holds one."""
    statement = code.statement(call)
    places = [ast.unparse(t) for t in statement.targets] if isinstance(statement, ast.Assign) else []
    tests = [ast.unparse(a.test) for a in code.ancestors(call) if isinstance(a, ast.If)]
    return any("session_state" in text for text in (*places, *tests)) or any(p in t for p in places for t in tests)


def _is_timed_alone(call: ast.Call, code: Code) -> bool:
    """True between two readings of a clock and no model's run beside it: the making itself is measured."""
    statement = code.statement(call)
    opened = (r for s in code.block(statement) if s is not statement for r in regions(s, code))
    return any(any(s is statement for s in r.body) and not code.model_runs(list(r.body)) for r in opened)


def is_used(call: ast.Call, loop: ast.AST, code: Code) -> bool:
    """True where the rounds ask what a call gave: a loop that counts and only makes it again tries the making."""
    counts = isinstance(loop, ast.For) and isinstance(loop.iter, ast.Call)
    if not counts or getattr(loop.iter.func, "id", "") not in ("range", "trange"):  # type: ignore[attr-defined]
        return True
    statement = code.statement(call)
    if getattr(statement, "value", None) is not call:
        return True
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    names = {t.id for t in targets if isinstance(t, ast.Name)}
    if len(names) < len(targets):
        return True
    reads = (n for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return any(n.id in names and not _is_deleted(n, code) for n in reads)


def _is_deleted(name: ast.Name, code: Code) -> bool:
    return isinstance(code.parent(name), ast.Delete)


def _needed_in_loop(call: ast.Call, loop: ast.AST, code: Code) -> bool:
    if not all(code.same_each_round(a, loop) for a in _given(call) if code.depends_on_round(a, loop)):
        return True
    if isinstance(loop, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return True  # so many copies are wanted
    for outer in code.loops(call):  # a retry: the round ends with the load
        if any(isinstance(n, ast.Break) for n in ast.walk(outer)) and isinstance(
            code.parent(code.statement(call)), ast.Try
        ):
            return True
    parent = code.parent(call)
    if (
        isinstance(parent, ast.Call)
        and isinstance(parent.func, ast.Attribute)
        and parent.func.attr in ("append", "put")
    ):
        return True
    statement = code.statement(call)
    return (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript)) or _trains_in(loop)


def _returns_kept(call: ast.Call, function: Function, code: Code) -> bool:
    """True after ``if _MODEL is not None: return _MODEL``, and ``if key in cache: return cache[key]``."""
    kept = set()
    for inner in ast.walk(function):
        for target in inner.targets if isinstance(inner, ast.Assign) else ():
            for part in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                place = part.value if isinstance(part, ast.Subscript) else part
                scope = code.names.own_scope(function)
                if not isinstance(part, ast.Name) or part.id in scope.outer:
                    kept.add(code.names.dotted(place))
    return any(
        isinstance(s, ast.If)
        and s.lineno < call.lineno
        and isinstance(s.body[-1], ast.Return)
        and any(code.names.dotted(n) in kept - {""} for n in ast.walk(s.test))
        for s in ast.walk(function)
    )


def _teaches(function: Function, code: Code) -> bool:
    """True for a function that trains what it loads: each run starts from the weights as they were.

    (`ImageOps.fit` crops a picture.)
    """
    calls = [n.func for n in ast.walk(function) if isinstance(n, ast.Call)]
    named = (getattr(f, "attr", getattr(f, "id", "")) for f in calls if not code.qualified(f).startswith("PIL."))
    return any(n in ("fit", "backward", "train_on_batch", "train") or n.endswith("Trainer") for n in named)


def _trains_in(loop: ast.AST) -> bool:
    """A fresh copy each round is right where the round trains or alters it."""
    altered = (
        "fit",
        "backward",
        "train_on_batch",
        "load_state_dict",
        "load_weights",
        "set_weights",
        "train",
        "resize_token_embeddings",
    )
    return any(isinstance(n, ast.Attribute) and n.attr in altered for n in ast.walk(loop))


def is_guarded(node: ast.AST, code: Code) -> bool:
    """True beneath ``if model is None``, ``if name not in cache`` and their like; a test itself always runs."""
    inner = node
    for around in code.ancestors(node):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return False
        if isinstance(around, ast.If) and inner is not around.test and not _is_always_true(around.test):
            return True
        if isinstance(around, ast.IfExp) and inner is not around.test:
            return True
        if isinstance(around, ast.BoolOp) and inner is not around.values[0]:
            return True
        if isinstance(around, ast.ExceptHandler):
            return True
        inner = around
    return False


def _is_always_true(test: ast.expr) -> bool:
    """True for ``__name__ == "__main__"``, and ``request.method == "POST"``: every run, or request, comes this way."""
    roots = (n.value for n in ast.walk(test) if isinstance(n, ast.Attribute))
    named = any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(test))
    return named or any(isinstance(r, ast.Name) and r.id == "request" for r in roots)


def _is_cached(function: Function, code: Code) -> bool:
    names = [
        code.names.dotted(d.func if isinstance(d, ast.Call) else d).rsplit(".", 1)[-1] for d in function.decorator_list
    ]
    return any(n in _CACHES for n in names)


def _from_parameters(call: ast.Call, function: Function, code: Code) -> bool:
    """True when what is loaded depends on the function's own arguments (``self`` aside)."""
    parameters = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    varying = [p for p in parameters if p not in ("self", "cls") and not _is_fixed(p, function, code)]
    derived = tainted(function, varying)
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and call.func.value.id in derived:
        return True
    read = [
        n.id for a in (*call.args, *(k.value for k in call.keywords)) for n in ast.walk(a) if isinstance(n, ast.Name)
    ]
    return any(name in derived for name in read)


def _is_fixed(parameter: str, function: Function, code: Code) -> bool:
    """True where all that run a function, and the file shows them, give the same constant: ``infer("m.tflite", x)``."""
    if code.handler(function) is not None or _is_handed_on(function, code):
        return False
    given = code.kinds.calls.arguments(function, parameter)
    constant = all(isinstance(g, ast.Constant) for g in given) and len({ast.dump(g) for g in given}) == 1
    return constant and len(given) == len(code.callers(function))


def _each_call(call: ast.Call, function: Function, code: Code) -> str:
    """A function that takes data, loads a fixed model, and runs it: each call pays the load."""
    first, *rest = function.name.lstrip("_").split("_")
    if function.name in ("__init__", "__call__") or (first in _ENTRY and not set(rest) & _ANSWERS):
        return ""
    if is_in_package(code.file):
        return ""  # other files call it, perhaps once
    parameters = [
        a.arg for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls", "args")
    ]
    if not parameters or not _is_assigned_locally(call, code):
        return ""
    if code.callers(function) or _is_handed_on(function, code):  # at work in this file, and never in a loop
        return ""
    if any(
        isinstance(n, ast.Return) and n.value is not None and _names(n.value) & _targets(call, code)
        for n in ast.walk(function)
    ):
        returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and isinstance(n.value, ast.Name)]
        if any(isinstance(r, ast.Name) and r.id in _targets(call, code) for r in returned):
            return ""
    derived = tainted(function, parameters)
    used = _uses_of(call, function, code)
    if any(code.loop(u) is not None for u in used):
        return ""  # one load for all rounds of the function's own loop
    works = any(_names(a) & derived for u in used for a in _given(u))
    return f"at every call of '{function.name}'" if works else ""


def _is_handed_on(function: Function, code: Code) -> bool:
    """True where the file gives the function to another as a value: who calls it, and how often, is not seen."""
    called = {c.func for c in code.calls}
    named = (n for n in code.names.nodes if isinstance(n, (ast.Name, ast.Attribute)) and n not in called)
    return any((n.attr if isinstance(n, ast.Attribute) else n.id) == function.name for n in named)


def _uses_of(call: ast.Call, function: Function, code: Code) -> list[ast.Call]:
    """The calls in which the loaded thing answers: itself called, or a method of it."""
    targets = _targets(call, code)
    found = []
    for inner in ast.walk(function):
        if isinstance(inner, ast.Call) and inner is not call:
            root = inner.func.value if isinstance(inner.func, ast.Attribute) else inner.func
            named = inner.func.attr if isinstance(inner.func, ast.Attribute) else ""
            if isinstance(root, ast.Name) and root.id in targets and named not in _ALTERS:
                found.append(inner)
    return found


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(k.value for k in call.keywords)]


def tainted(function: Function, parameters: list[str]) -> set[str]:
    """The names of a function whose values come from these parameters, by whatever way."""
    derived = set(parameters)
    for _ in range(3):
        for inner in ast.walk(function):
            if isinstance(inner, ast.Assign) and _names(inner.value) & derived:
                derived.update(n.id for t in inner.targets for n in ast.walk(t) if isinstance(n, ast.Name))
            elif isinstance(inner, (ast.With, ast.For)):
                source = inner.iter if isinstance(inner, ast.For) else inner.items[0].context_expr
                target = inner.target if isinstance(inner, ast.For) else inner.items[0].optional_vars
                if target is not None and _names(source) & derived:
                    derived.update(_names(target))
    return derived


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _targets(call: ast.Call, code: Code) -> set[str]:
    statement = code.statement(call)
    return (
        {n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if isinstance(statement, ast.Assign)
        else set()
    )


def _is_assigned_locally(call: ast.Call, code: Code) -> bool:
    statement = code.statement(call)
    if isinstance(statement, ast.Assign):
        scope = code.names.scope_of(statement)
        return all(isinstance(t, ast.Name) and t.id not in scope.outer for t in statement.targets)
    return not isinstance(statement, ast.Return)


def hoist(call: ast.Call, code: Code) -> tuple[Edit, ...]:
    """The edit that moves ``name = call(…)`` to just before its loop; () where that could change what runs."""
    loop = code.loop(call)
    statement = code.statement(call)
    if (
        not isinstance(loop, (ast.For, ast.While))
        or not isinstance(statement, ast.Assign)
        or statement.value is not call
    ):
        return ()
    if not any(statement is s for s in loop.body) or len(loop.body) < 2 or len(statement.targets) != 1:
        return ()
    target = statement.targets[0]
    if not isinstance(target, ast.Name) or code.varies(call, loop):
        return ()
    if len(code.bound_in(target, loop)) != 1 or target.id in code.changed(loop):
        return ()
    before = loop.body[: next(i for i, s in enumerate(loop.body) if s is statement)]
    names = _names(call)
    if any(isinstance(n, ast.Name) and n.id == target.id for s in before for n in ast.walk(s)):
        return ()
    if len(code.names.find(target.id, target)[1]) != 1:
        return ()  # an earlier value of the same name may be needed if the loop never runs
    header = loop.iter if isinstance(loop, ast.For) else loop.test
    if target.id in _names(header) | names:
        return ()
    if any(s.lineno == statement.lineno for s in loop.body if s is not statement):
        return ()
    return (Edit("move", statement, target=loop),)

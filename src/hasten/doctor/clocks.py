"""Where code reads a clock before and after something, and what runs in between. Shared by the measuring rules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.kind import Kind
from hasten.doctor.names import Function, Scope
from hasten.doctor.rule import keyword
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

__all__ = ["CLOCKS", "Region", "clock_call", "device_work", "is_clock", "loads", "network", "networks", "regions"]

CLOCKS = words(
    "time.time time.perf_counter time.perf_counter_ns time.time_ns time.monotonic time.monotonic_ns time.process_time "
    "timeit.default_timer datetime.datetime.now"
)
LOADERS = frozenset(("load_model", "from_pretrained", "InferenceSession", "Interpreter", "load_state_dict"))
_WAITS = re.compile("sync|numpy|(^|_)cpu($|_)")  # also in helpers of other files: `torch_to_numpy(x)`
_LESSONS = frozenset(words("backward zero_grad apply_gradients train_on_batch GradientTape"))
# Libraries whose objects move in place too, and see to the device and its waits themselves.
_WHOLE_PIPELINES = ("diffusers", "ultralytics", "sentence_transformers", "super_gradients", "torchmetrics")
_NO_MODEL = re.compile("loss|criterion|metric", re.IGNORECASE)
_CONVERTERS = frozenset(("from_keras_model", "from_saved_model", "torch.onnx.export", "tf2onnx.convert.from_keras"))


@dataclass(frozen=True)
class Region:
    """Statements between two readings of a clock, of one block or beneath a `with` that reads it on both sides."""

    start: ast.stmt
    stop: ast.stmt
    body: tuple[ast.stmt, ...]
    reading: ast.expr
    """The call of the clock that starts it, or what the `with` enters."""
    name: str
    timer: ast.ClassDef | Function | None = None
    """The context manager of this file that reads the clock, where one does; ``start`` and ``stop`` are the `with`."""

    def told(self) -> str:
        """The names and words that say what is measured."""
        return self.name + ast.unparse(self.stop if self.timer is None else self.reading)


def is_clock(node: ast.AST, code: Code) -> bool:
    """True for an expression that reads a clock, in whatever unit."""
    return clock_call(node, code) is not None


def clock_call(node: ast.AST, code: Code) -> ast.Call | None:
    """The call in ``clock()``, ``clock() * 1000`` or ``int(round(clock() * 1000))``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        left = node.right if isinstance(node.left, ast.Constant) else node.left
        other = node.left if left is node.right else node.right
        return clock_call(left, code) if isinstance(other, (ast.Constant, ast.BinOp)) else None
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name) and node.func.id in ("int", "round", "float") and node.args:
        return clock_call(node.args[0], code)
    return node if not node.args and code.qualified(node.func) in CLOCKS else None


def regions(statement: ast.AST, code: Code) -> Iterator[Region]:
    """The region that ``t0 = clock()`` or ``with Timer()`` opens, where one does.

    Training steps are left out: they are timed for their progress alone.
    """
    if isinstance(statement, ast.With):
        region = _entered(statement, code)
        if region is not None and not _teaches(statement.body):
            yield region
        return
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return
    reading = clock_call(statement.value, code)
    target = code.names.dotted(statement.targets[0])
    if reading is None or not target:
        return
    block = code.block(statement)
    after = block[next(i for i, s in enumerate(block) if s is statement) + 1 :]
    body: list[ast.stmt] = []
    for following in after:
        if _stops(following, target, code):
            if not _teaches(body):
                yield Region(statement, following, tuple(body), reading, target)
            return
        if isinstance(following, ast.Assign) and any(code.names.dotted(t) == target for t in following.targets):
            return
        body.append(following)


def _entered(statement: ast.With, code: Code) -> Region | None:
    """The region of ``with Timer() as t:``, the timer written in this file."""
    for item in statement.items:
        timer = _timer(item.context_expr, code)
        if timer is not None:
            name = code.names.dotted(item.optional_vars or item.context_expr)
            return Region(statement, statement, tuple(statement.body), item.context_expr, name, timer)
    return None


def _timer(entered: ast.expr, code: Code) -> ast.ClassDef | Function | None:
    """The class that reads a clock as it is entered and left, or the function that does so around its `yield`."""
    made = code.function_run(entered) if isinstance(entered, ast.Call) else None
    if made is not None:
        managed = any(code.qualified(d) == "contextlib.contextmanager" for d in made.decorator_list)
        return made if managed and _reads_around(made, code) else None
    kind = code.kind(entered)
    local = kind.local if kind is not None else None
    sides = [code.definitions.method(local, name) for name in ("__enter__", "__exit__")] if local is not None else []
    return local if sides and all(s is not None and _clock_lines(s, code) for s in sides) else None


def _reads_around(made: Function, code: Code) -> bool:
    """True for one `yield` with a reading of the clock before it, and another after."""
    yields = [n.lineno for n in ast.walk(made) if isinstance(n, ast.Yield)]
    lines = _clock_lines(made, code)
    return len(yields) == 1 and any(n < yields[0] for n in lines) and any(n > yields[0] for n in lines)


def _clock_lines(made: Function, code: Code) -> list[int]:
    return [n.lineno for n in ast.walk(made) if isinstance(n, ast.Call) and clock_call(n, code) is not None]


def _teaches(body: list[ast.stmt]) -> bool:
    """True where the statements take training steps: by their calls, or by an optimizer's name."""
    for inner in (n for s in body for n in ast.walk(s)):
        name = inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""
        if name in _LESSONS or "optimizer" in name or name.startswith("backprop"):
            return True
    return False


def _stops(statement: ast.stmt, start: str, code: Code) -> bool:
    """True for ``… clock() - t0 …``, and for ``t1 = clock()`` where ``t1 - t0`` follows."""
    if isinstance(statement, (ast.For, ast.While, ast.With, ast.If, ast.Try, ast.FunctionDef)):
        return False
    for inner in ast.walk(statement):
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub) and code.names.dotted(inner.right) == start:
            return is_clock(inner.left, code)
    if isinstance(statement, ast.Assign) and is_clock(statement.value, code):
        end = code.names.dotted(statement.targets[0])
        around = code.function(statement)  # the difference may stand outside the `with` that was timed
        return end != start and any(
            _difference(s, end, start, code)
            for s in (around or code.tree).body
            if around is not None or not isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        )
    return False


def _difference(statement: ast.stmt, end: str, start: str, code: Code) -> bool:
    return any(
        isinstance(n, ast.BinOp)
        and isinstance(n.op, ast.Sub)
        and code.names.dotted(n.left) == end
        and code.names.dotted(n.right) == start
        for n in ast.walk(statement)
    )


def networks(nodes: Sequence[ast.stmt], code: Code) -> list[ast.Call]:
    """The calls in these statements that run a model, as ``network`` knows one."""
    found = (n for s in nodes for n in ast.walk(s) if isinstance(n, ast.Call))
    return [n for n in found if network(n, code) is not None]


def network(call: ast.Call, code: Code) -> Kind | None:
    """The kind of model that a call runs: a known one, or what a line moves in place, `net.to(device)`, and drops.

    So too where `asyncio.to_thread` runs it.
    """
    if code.qualified(call.func) == "asyncio.to_thread" and call.args:
        return code.runs_model(ast.Call(call.args[0], call.args[1:], call.keywords))
    kind = code.runs_model(call)
    if kind is not None:
        return kind
    place = _place(call.func, code)
    if not place[0] or place not in code.fact(_moved) or code.kind(call.func) is not None:
        return None
    made = value_of(call.func, code)
    made = made if isinstance(made, ast.Call) else None
    if made is not None and code.qualified(made.func).split(".")[0] in _WHOLE_PIPELINES:
        return None
    return Kind(makers.TORCH_MODULE, made)


def _moved(code: Code) -> frozenset[tuple[str, Scope | ast.ClassDef | None]]:
    """What lines move to a device without taking the result: only a module moves in place, and is then called."""
    if not code.imports("torch") or code.imports(*_WHOLE_PIPELINES):
        return frozenset()
    moves = [c.func for c in code.calls_named("to", "cuda") if isinstance(code.parent(c), ast.Expr)]
    places = (_place(f.value, code) for f in moves if isinstance(f, ast.Attribute))
    return frozenset(p for p in places if p[0] and not _NO_MODEL.search(p[0]))


def _place(node: ast.expr, code: Code) -> tuple[str, Scope | ast.ClassDef | None]:
    """A name and where it is bound: a variable's scope, or the class of ``self.x``."""
    written = code.names.dotted(node)
    if written and "." not in written:
        return written, code.names.find(written, node)[0]
    return (written, code.klass(node)) if written.startswith("self.") and written.count(".") == 1 else ("", None)


def loads(body: tuple[ast.stmt, ...], code: Code) -> ast.Call | None:
    """The first call in a region that loads or converts a model."""
    for statement in body:
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Call) and is_load(inner, code):
                return inner
    return None


def is_load(call: ast.Call, code: Code) -> bool:
    """True for a call that reads a model from a file or converts one."""
    name = code.qualified(call.func)
    last = name.rsplit(".", 1)[-1]
    if name in ("torch.load", "torch.jit.load", "torch.hub.load", "tensorflow.saved_model.load", "torch.onnx.export"):
        return True
    if last in LOADERS or last in _CONVERTERS:
        return name.split(".")[0] in (
            "keras",
            "tensorflow",
            "transformers",
            "onnxruntime",
            "tflite_runtime",
            "ai_edge_litert",
        )
    return name.startswith("tf2onnx.convert.")


def device_work(body: tuple[ast.stmt, ...], code: Code) -> ast.Call | None:
    """A torch model's run in a region that nothing makes the processor wait for."""
    run: ast.Call | None = None
    for statement in body:
        for inner in ast.walk(statement):
            if not isinstance(inner, ast.Call):
                continue
            kind = network(inner, code)
            if kind is not None and kind.name == makers.TORCH_MODULE:
                run = inner
            name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            if name in ("synchronize", "item", "cpu", "numpy", "tolist", "print", "generate", "nonzero"):
                return None
            if _WAITS.search(name.lower()) or keyword(inner, "sync") is not None:
                return None
    moves = (n for s in body for n in ast.walk(s) if isinstance(n, ast.Call))
    if run is not None and any(_is_answer_moved(m, run, code) for m in moves):
        return None  # off the device, which may be the processor
    return run


def _is_answer_moved(moved: ast.Call, run: ast.Call, code: Code) -> bool:
    """True for `answer.to(device)` of what the run gave."""
    statement = code.statement(run)
    given = statement.targets if isinstance(statement, ast.Assign) else []
    names = {n.id for t in given for n in ast.walk(t) if isinstance(n, ast.Name)}
    to = moved.func if isinstance(moved.func, ast.Attribute) and moved.func.attr == "to" else None
    return to is not None and code.names.dotted(to.value) in names

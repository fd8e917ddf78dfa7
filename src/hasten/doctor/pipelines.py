"""How a `tf.data` pipeline was put together: its steps, wherever the file spreads them. Shared by the data rules."""

from __future__ import annotations

import ast
import re
from copy import copy
from dataclasses import dataclass

from hasten.doctor import makers, tfds
from hasten.doctor.code import Code
from hasten.doctor.rule import keyword
from hasten.doctor.samples import is_one_sample, value_of
from hasten.doctor.words import words

__all__ = [
    "Pipeline",
    "computes",
    "consumed",
    "is_within_map",
    "looks",
    "only_arranges",
    "only_looked_at",
    "pipeline_of",
    "shows_heavy_work",
    "shows_work",
    "step_of",
]

_CONSUMERS = ("fit", "evaluate", "predict")
_WRAPPERS = ("enumerate", "tqdm", "iter", "list", "zip")

_ARRANGES = words("items keys values get pop copy update dict tuple list len next iter isinstance zip pack_sequence_as")
_WORK = re.compile(
    r"decode|parse|read|load|augment|process|resiz|crop|flip|rotate|noise|normali|scale|tokeni|transform|convert|extract"
    r"|encode|random|spectrogram|stft|mfcc|mel|feature|py_func|numpy_function|^tensorflow\.(io|image|audio|strings|signal)\."
)
# Of these, what takes long beside the reading: a cut, a flip or a factor does not.
_HEAVY = re.compile(
    r"decode|parse|read|load|augment|process|resiz|rotate|tokeni|transform|extract|encode|spectrogram|stft|mfcc|mel"
    r"|feature|py_func|numpy_function|^tensorflow\.(io|audio|strings|signal)\."
)
_STATEFUL = frozenset(("assign", "assign_add", "assign_sub", "scatter_nd_update"))
_SCALES = (ast.Mult, ast.Div, ast.Pow, ast.MatMult)  # sums and remainders are done to counters too
_OF_DATASETS = frozenset(("apply", "shard", "unbatch", "window", "flat_map"))
_MULTIPLY = frozenset(("repeat", "unbatch", "flat_map", "interleave"))
# What a loop calls that computes while the next batch is made.
_COMPUTES = re.compile(r"step|train|learn|optimi|loss|grad|tape|model|net|predict|infer|forward|generat|discrim|encod")


@dataclass(frozen=True)
class Pipeline:
    """The steps of a pipeline, and whether all of them were seen."""

    steps: frozenset[str]
    sources: frozenset[str]
    """Qualified names of what it starts from; '' for one not seen."""
    last: ast.Call | None
    maps: tuple[ast.expr, ...] = ()
    """The functions that its elements go through."""
    is_shared: bool = False
    """One of its maps runs on several cores."""
    is_single: bool = False
    """All that was seen it start from is one element, or a few that are written out."""

    @property
    def is_whole(self) -> bool:
        """True when every source was seen being made."""
        return bool(self.sources) and "" not in self.sources


def pipeline_of(node: ast.expr | None, code: Code) -> Pipeline:
    """The pipeline behind an expression that is a dataset."""
    steps: set[str] = set()
    sources: set[str] = set()
    seen: set[ast.AST] = set()
    last = _collect(node, code, steps, sources, seen)
    calls = [n for n in seen if isinstance(n, ast.Call)]
    maps = tuple(n.args[0] for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr == "map" and n.args)
    starts = [n for n in calls if makers.made_by(code.qualified(n.func)) == makers.TF_DATASET]
    single = bool(starts) and "" not in sources and not steps & _MULTIPLY and all(_is_one(n, code) for n in starts)
    shared = any(keyword(n, "num_parallel_calls") is not None for n in calls)
    return Pipeline(frozenset(steps), frozenset(sources), last, maps, shared, single)


def step_of(call: ast.Call) -> ast.AST:
    """Where a step is written, for the reader: at its name, not where the chain begins that it ends."""
    if not isinstance(call.func, ast.Attribute) or call.func.end_lineno == call.lineno:
        return call
    at = copy(call)
    at.lineno = call.func.end_lineno or call.lineno
    at.col_offset = (call.func.end_col_offset or 0) - len(call.func.attr.encode())
    return at


def _is_one(start: ast.Call, code: Code) -> bool:
    """True for `from_tensors(x)`, and `from_tensor_slices([x])`, `(["a.png", "b.png"])` and their like."""
    name = code.qualified(start.func)
    given = value_of(start.args[0], code) if start.args else None
    if name.endswith(".from_tensors"):
        return True
    if not name.endswith(".from_tensor_slices"):
        return False
    first = value_of(given.elts[0], code) if isinstance(given, ast.Tuple) and given.elts else given
    if isinstance(first, ast.Call) and first.args:  # `tf.constant(paths)`
        inner = value_of(first.args[0], code)
        if isinstance(inner, ast.List) and _last_name(first.func) in ("constant", "convert_to_tensor", "array"):
            first = inner
    if isinstance(first, ast.List):
        written = all(isinstance(e, ast.Constant) for e in first.elts)  # what is written out by hand is few
        return written or (len(first.elts) == 1 and not isinstance(first.elts[0], ast.Starred))
    return is_one_sample(first, code)


def consumed(node: ast.AST, code: Code) -> ast.expr | None:
    """The dataset that a `fit` call or a `for` loop consumes, if the node is one."""
    if isinstance(node, ast.Call):
        consumes = isinstance(node.func, ast.Attribute) and node.func.attr in _CONSUMERS and bool(node.args)
        return node.args[0] if consumes and code.is_a(node.args[0], makers.TF_DATASET) else None
    iterable = getattr(node, "iter", None)
    while isinstance(iterable, ast.Call) and getattr(iterable.func, "id", "") in _WRAPPERS and iterable.args:
        iterable = iterable.args[0]
    return iterable if isinstance(iterable, ast.expr) and code.is_a(iterable, makers.TF_DATASET) else None


def computes(loop: ast.For, code: Code) -> bool:
    """True where a round runs a model or a step: something to do while the next batch is made."""
    called = [n.func for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Call)]
    named = (f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in called)
    return bool(code.model_runs(loop.body)) or any(_COMPUTES.search(n.lower()) for n in named)


def looks(loop: ast.For, code: Code, *, took: bool) -> bool:
    """True for a loop that looks at a few taken elements, or at the first alone, and computes nothing."""
    return (took or isinstance(loop.body[-1], (ast.Break, ast.Return))) and not computes(loop, code)


def is_within_map(node: ast.AST, code: Code) -> bool:
    """True in a function that a pipeline of the file maps: what it reads, many elements read at once."""
    around = code.function(node)
    if around is None:
        return False
    steps = code.calls_named("map", "interleave", "flat_map")
    mapped = [c.args[0] for c in steps if c.args and isinstance(c.func, ast.Attribute)]
    run = [n.func if isinstance(n, ast.Call) else n for m in mapped for n in (m, *_calls_of(m))]
    return any(code.definitions.function_named(f) is around for f in run)


def _calls_of(function: ast.expr) -> list[ast.Call]:
    return [n for n in ast.walk(function) if isinstance(n, ast.Call)] if isinstance(function, ast.Lambda) else []


def only_looked_at(made: ast.expr, code: Code, *, took: bool = False) -> bool:
    """True where all that is done with a pipeline is a loop that looks at its elements."""
    at: ast.AST = made
    around = code.parent(at)
    while _carries_on(around, at):
        took = took or (isinstance(around, ast.Attribute) and around.attr == "take")
        at, around = around, code.parent(around)  # type: ignore[assignment, arg-type]
    if isinstance(around, ast.For) and around.iter is at:
        return looks(around, code, took=took)
    if isinstance(around, ast.Call) and _last_name(around.func) in ("next", "run") and code.hot(around) is None:
        return True  # one element is drawn
    target = around.targets[0] if isinstance(around, ast.Assign) else None
    if not isinstance(target, ast.Name):
        return False
    scope = code.names.find(target.id, target)[0]
    end = around.end_lineno or target.lineno  # type: ignore[union-attr]
    named = (n for n in code.names.nodes if isinstance(n, ast.Name) and n.id == target.id and n.lineno > end)
    reads = [n for n in named if isinstance(n.ctx, ast.Load) and code.names.find(n.id, n)[0] is scope]
    return bool(reads) and all(only_looked_at(r, code, took=took) for r in reads)


def _carries_on(around: ast.AST | None, at: ast.AST) -> bool:
    """True where the pipeline goes on: `….batch(8)`, `enumerate(…)`."""
    if isinstance(around, ast.Call):
        return around.func is at or getattr(around.func, "id", "") in _WRAPPERS
    return isinstance(around, ast.Attribute)


def _collect(
    node: ast.AST | None, code: Code, steps: set[str], sources: set[str], seen: set[ast.AST]
) -> ast.Call | None:
    if node is None or node in seen:
        return None
    seen.add(node)
    if isinstance(node, ast.Name):
        _, bindings = code.names.find(node.id, node)
        last: ast.Call | None = None
        for binding in bindings:
            if getattr(binding.node, "lineno", 0) > node.lineno and code.function(binding.node) is code.function(node):
                continue
            if binding.role == "value" and _is_loaded(binding.value, binding.path, code):
                _starts_with(binding.value, steps, sources)  # type: ignore[arg-type]
            elif binding.role != "value" or binding.path:
                sources.add("")
            else:
                last = _collect(binding.value, code, steps, sources, seen) or last
        return last
    if not isinstance(node, ast.Call):
        sources.add("")
        return None
    name = code.qualified(node.func)
    if _is_loaded(node, (), code):
        _starts_with(node, steps, sources)
        return node
    if makers.made_by(name) == makers.TF_DATASET:
        sources.add(name)
        steps.update(("zip",) if name.endswith(".zip") else ())
        if name.endswith((".zip", ".sample_from_datasets")):
            sources.add("")
        return node
    if isinstance(node.func, ast.Attribute) and code.is_a(node.func.value, makers.TF_DATASET):
        steps.add(node.func.attr)
        if node.func.attr in ("apply", "with_options"):
            sources.add("")
        _collect(node.func.value, code, steps, sources, seen)
        return node
    function = code.function_run(node)
    if function is not None:
        ends = [_collect(r, code, steps, sources, seen) for r in code.definitions.returns(function)]
        return ends[0] if len(ends) == 1 and ends[0] is not None else node
    sources.add("")
    return None


def _is_loaded(node: ast.AST | None, path: tuple[int, ...], code: Code) -> bool:
    """True for what `tensorflow_datasets.load` gives at ``path``, where that is a dataset."""
    load = node if isinstance(node, ast.Call) and code.qualified(node.func) == tfds.LOAD else None
    return load is not None and tfds.gives_dataset(load, path)


def _starts_with(load: ast.Call, steps: set[str], sources: set[str]) -> None:
    sources.add(tfds.LOAD)
    steps.update(("batch",) if tfds.gives_batches(load) else ())


def shows_heavy_work(function: ast.expr, code: Code) -> bool:
    """True for a function whose name, or what it calls where it is in sight, takes long."""
    local = function if isinstance(function, ast.Lambda) else code.definitions.function_named(function)
    nodes = [function] if local is None else [n.func for n in ast.walk(local) if isinstance(n, ast.Call)]
    named = (code.qualified(n) or _last_name(n.func if isinstance(n, ast.Call) else n).lower() for n in nodes)
    return any(_HEAVY.search(name) for name in named)


def shows_work(function: ast.expr, code: Code) -> bool:
    """True for a function that shows work of its own on each element, which several cores could share."""
    if isinstance(function, ast.Call) and code.qualified(function.func) == "functools.partial" and function.args:
        function = function.args[0]
    local = function if isinstance(function, ast.Lambda) else code.definitions.function_named(function)
    if local is None:
        made = function.func if isinstance(function, ast.Call) else function
        return _is_work(made, code)
    parts = [local.body] if isinstance(local, ast.Lambda) else local.body
    nodes = [n for p in parts for n in ast.walk(p)]
    called = [n.func for n in nodes if isinstance(n, ast.Call)]
    named = {_last_name(f) for f in called}
    if named & (_OF_DATASETS | _STATEFUL) or any(_is_model(f, code) for f in called):
        return False
    scales = (isinstance(n, ast.BinOp) and isinstance(n.op, _SCALES) for n in nodes)
    if isinstance(local, ast.FunctionDef) and any(scales):
        return True
    return any(_is_work(f, code) for f in called)


def only_arranges(function: ast.expr, code: Code) -> bool:
    """True for a function in sight that picks and renames what it is given, and computes nothing."""
    local = function if isinstance(function, ast.Lambda) else code.definitions.function_named(function)
    if local is None:
        return False
    nodes = list(ast.walk(local))
    named = {_last_name(n.func) for n in nodes if isinstance(n, ast.Call)}
    return named <= _ARRANGES and not any(isinstance(n, ast.BinOp) for n in nodes)


def _is_work(function: ast.expr, code: Code) -> bool:
    name = code.qualified(function) or _last_name(function).lower()
    return name.startswith("tensorflow.data.") or _WORK.search(name) is not None


def _is_model(function: ast.expr, code: Code) -> bool:
    return code.is_a(function, makers.KERAS_MODEL) or _last_name(function).lower().endswith("model")


def _last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")

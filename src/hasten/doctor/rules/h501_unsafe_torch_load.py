"""`torch.load` without `weights_only=True`.

## What it does
Finds `torch.load(...)` that does not say `weights_only=True`, but for temporary files and buffers that the same file
saved, for a path that the lines before have just written (the best epoch of the same training, too), for a cache that
the file writes itself, for what a function returns if it is there and else makes and saves, for what the trainer of
this run (Lightning, Ray) says that it has kept, for `weights_only=False` beneath a comment or in a docstring that tells
why, for files of an installed package that are asked for as such, and for projects whose own files ask for torch 2.6 or
newer.

## Why is this bad
A pickled file can run any code when it is opened. Since torch 2.6 the default is safe, but the same line on an older
torch is not, and `weights_only=False` is not anywhere.

## Cost
The machine, to whoever wrote the file. Its cost is not time: the safe reader is the slower of the two, once a load.

## Example
```python
state = torch.load("weights.pt")
```

## Use instead
```python
state = torch.load("weights.pt", weights_only=True)
```

## Fix safety
Unsafe: files that hold whole pickled models or other objects are refused then.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor.around import FUNCTIONS
from hasten.doctor.code import Code
from hasten.doctor.requirements import least_torch
from hasten.doctor.rule import Edit, Hit, Rule, hit, keyword
from hasten.doctor.samples import comes_from, is_buffer, value_of
from hasten.doctor.saved import NOWHERE, ON_DISK, is_own_cache, path_of, saves, target_of
from hasten.doctor.words import words

_TEMPORARY = words("tempfile.NamedTemporaryFile tempfile.TemporaryFile tempfile.SpooledTemporaryFile tempfile.mkstemp")

_PACKED = words(
    "pkgutil.get_data pkg_resources.resource_filename pkg_resources.resource_stream importlib.resources.files "
    "importlib.resources.path importlib.resources.open_binary importlib_resources.files importlib_resources.path"
)
_REASON = re.compile("weights_only|pickled? |arbitrary code|trusted")
_SENTENCE = 4  # words; fewer only name the setting
_ABOVE = 3  # lines above a call where a comment on it stands
_SAFE = (2, 6)  # the torch whose default is the safe reader
_EXISTS = re.compile(rf"{ON_DISK.pattern}|resume")
_BEST = re.compile(r"best|early_?stop", re.IGNORECASE)
_KEEPERS = ("lightning", "pytorch_lightning")
_KEPT = words("best_model_path best_k_models last_model_path")  # what their checkpoint callback has written
_STOPPER = re.compile(r"early_?stop(per|ping)?$", re.IGNORECASE)
_TRAINS = re.compile(r"(^|[._])(train|fit)$")
_TRAINS_ALL = re.compile(
    r"(^|[._])(run_training|train(ing)?_loop|train_(model|with_\w+|net(work)?|and_\w+)|train|fit)$"
)
_TRAINER = re.compile(r"(trainer|learner|engine|solver|experiment|runner)\w*\.train$", re.IGNORECASE)
_OPENS = re.compile(r"load|restore|resume|read|from|open|init|setup|predict|infer")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Loads that may unpickle."""
    assert isinstance(node, ast.Call)
    if code.qualified(node.func) != "torch.load" or any(k.arg is None for k in node.keywords):
        return
    value = keyword(node, "weights_only")
    if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
        return
    if value is None and (keyword(node, "pickle_module") is not None or _is_fallback(node, code)):
        return
    if value is not None and (_is_said_fallback(node, code) or _is_explained(node, code)):
        return
    if _never_runs(node, code) or _is_own_copy(node, code) or _is_just_written(node, code):
        return
    if (
        _is_of_dataset(node)
        or is_own_cache(node, code)
        or comes_from(path_of(node), code, lambda n: _is_of_run(n, code))
    ):
        return
    if value is None and (least_torch(code.file) or (0, 0)) >= _SAFE:
        return
    reason = (
        "`weights_only=False` lets the file run code"
        if value is not None
        else "`torch.load` may run code from the file"
    )
    yield hit(node, reason, Edit("argument", node, "True", "weights_only"))


def _never_runs(node: ast.Call, code: Code) -> bool:
    """True beneath a flag that the function itself has just put to False, and nowhere else to anything."""
    inner: ast.AST = node
    for around in code.ancestors(node) if code.function(node) is not None else ():
        if isinstance(around, ast.If) and isinstance(around.test, ast.Name) and any(inner is s for s in around.body):
            bindings = code.names.find(around.test.id, around.test)[1]
            own = [b.value for b in bindings if b.role == "value" and code.function(b.node) is code.function(node)]
            off = all(isinstance(v, ast.Constant) and v.value is False for v in own)
            if own and off and len(own) == len(bindings):
                return True
        inner = around
    return False


def _is_fallback(node: ast.Call, code: Code) -> bool:
    """True where the safe call stands beside it, and this one is for a torch that does not know the option."""
    for around in code.ancestors(node):
        tried = code.parent(around) if isinstance(around, ast.ExceptHandler) else None
        if isinstance(tried, ast.Try) and any("weights_only" in ast.unparse(s) for s in tried.body):
            return True
        if isinstance(around, (ast.If, ast.IfExp)) and "weights_only" in ast.unparse(around.test):
            return True
        if isinstance(around, ast.If) and _asks_version(around) and "weights_only" in ast.unparse(around):
            return True
    return False


def _is_said_fallback(node: ast.Call, code: Code) -> bool:
    """True where the safe reader has refused the file, and a warning says what comes next."""
    for around in code.ancestors(node):
        tried = code.parent(around) if isinstance(around, ast.ExceptHandler) else None
        if isinstance(tried, ast.Try) and any("weights_only=True" in ast.unparse(s) for s in tried.body):
            return "warn" in code.source(around)
    return False


def _asks_version(branch: ast.If) -> bool:
    test = ast.unparse(branch.test).lower()
    return "version" in test and "torch" in test


def _is_explained(node: ast.Call, code: Code) -> bool:
    """True for `weights_only=False` beneath a comment, or in a function whose docstring or warning, tells why."""
    lines = code.lines[max(0, node.lineno - 1 - _ABOVE) : node.end_lineno or node.lineno]
    around = code.function(node)
    texts = (n.value for n in ast.walk(around or node) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return any(
        _REASON.search(t) and len(t.split()) >= _SENTENCE for t in (*(line.partition("#")[2] for line in lines), *texts)
    )


def _is_own_copy(node: ast.Call, code: Code) -> bool:
    """True for a package's own bytes, and bytes in memory and temporary files where the file writes such itself."""
    if path_of(node) is NOWHERE:
        return False
    if comes_from(path_of(node), code, lambda n: isinstance(n, ast.Call) and code.qualified(n.func) in _PACKED):
        return True  # a package's own files came with its code
    if comes_from(path_of(node), code, lambda n: _is_temporary(n, code)):
        saved = (c for c in code.calls_named("save") if code.qualified(c.func) == "torch.save")
        written = any(comes_from(a, code, lambda n: _is_temporary(n, code)) for c in saved for a in c.args[1:])
        return written or code.fact(_saves_to_memory)
    around = code.function(node)
    unpickled = around is not None and around.name in (
        "__setstate__",
        "find_class",
    )  # who reads a pickle has trusted it already
    return is_buffer(path_of(node), code) and (unpickled or code.fact(_saves_to_memory))


def _is_just_written(node: ast.Call, code: Code) -> bool:
    """True for a path that the lines before have written, or that a trainer keeps its own best weights at.

    Where anything asks whether the file is there already, another run, or another person, may have made it: then only a
    save that surely ran, or a function that the lines before have run to make it, counts.
    """
    around = code.function(node)
    asked = code.source(around) if around is not None else "\n".join(code.source(s) for s in _own_statements(code))
    path = ast.unparse(path_of(node))  # (quotes of either kind)
    if any(_wrote(s, node, path, code) or _wrote_just_before(s, node, code) for s in saves(code)):
        return True
    if any(_is_other_arm(c, node, code) for s in saves(code) for c in _runs_of(s, path, code)):
        return True
    if _EXISTS.search(asked):
        return not ON_DISK.search(asked) and any(_is_of_same_rounds(s, node, code) for s in saves(code))
    for save in saves(code):
        writer, target = code.function(save), ast.unparse(target_of(save))
        kept = around is not None or any(True for _ in code.loops(save))  # a script's best weights, in its epochs
        if (
            writer is around
            and save.lineno < node.lineno
            and ((kept and target == path) or _is_same_text(save, node, code))
        ):
            return True
        if writer is None or around is None:
            continue
        own = code.klass(writer) is not None and code.klass(writer) is code.klass(around)
        if own and target == path and path.startswith("self.") and not _OPENS.search(around.name):
            return True
        if own and _is_taken_back(save, node, code):
            return True
    return _is_best_of_training(node, code)


def _wrote_just_before(save: ast.Call, node: ast.Call, code: Code) -> bool:
    """True where every way to a load leads past a save at the same path, both of one function."""
    around = code.function(node)
    if (
        around is None
        or code.function(save) is not around
        or ast.unparse(target_of(save)) != ast.unparse(path_of(node))
    ):
        return False
    if save.lineno >= node.lineno:
        return _is_other_arm(save, node, code)
    return _is_other_arm(save, node, code) or any(
        s is a for s in code.block(code.statement(save)) for a in (code.statement(node), *code.ancestors(node))
    )


def _is_other_arm(save: ast.Call, node: ast.Call, code: Code) -> bool:
    """True for `if path.exists(): load(path) else: …; save(…, path)`: what was kept is what the other arm makes."""
    outer = [a for a in code.ancestors(save) if isinstance(a, ast.If)]
    inside = {id(a) for a in code.ancestors(node)}
    arms = (a for a in outer if id(a) in inside and _EXISTS.search(ast.unparse(a.test)))
    return any(not any(id(s) in inside or s is code.statement(node) for s in _arm_of(save, a, code)) for a in arms)


def _arm_of(inner: ast.AST, branch: ast.If, code: Code) -> list[ast.stmt]:
    around = [inner, *code.ancestors(inner)]
    return branch.body if any(s is a for s in branch.body for a in around) else branch.orelse


def _is_taken_back(save: ast.Call, node: ast.Call, code: Code) -> bool:
    """True where a class's own method reads what another writes, and whoever trains runs it after the rounds."""
    around = code.function(node)
    written, read = (ast.unparse(value_of(path, code) or path) for path in (target_of(save), path_of(node)))
    if around is None or not around.name.startswith("_") or written != read or "self." not in read:
        return False
    takers = code.callers(around)
    return bool(takers) and all(_has_trained(call, code) for call in takers)


def _has_trained(call: ast.Call, code: Code) -> bool:
    """True where a function that trains, by its name, has run its rounds before a call."""
    by = code.function(call)
    before = [s for s in ast.walk(by or call) if (getattr(s, "end_lineno", None) or call.lineno) < call.lineno]
    rounds = any(
        isinstance(s, (ast.For, ast.While))
        or (isinstance(s, ast.Call) and _TRAINS.search(code.names.dotted(s.func)) is not None)
        for s in before
    )
    return by is not None and _TRAINS.search(by.name) is not None and rounds


def _is_of_same_rounds(save: ast.Call, node: ast.Call, code: Code) -> bool:
    """True where rounds keep weights and take them back later on: no start from those of another run."""
    outer = list(code.loops(save))
    again = any(loop in outer for loop in code.loops(node)) and code.function(save) is code.function(node)
    same = ast.unparse(target_of(save)) == ast.unparse(path_of(node)) or _is_same_text(save, node, code)
    return again and same and save.lineno < node.lineno


def _is_same_text(save: ast.Call, node: ast.Call, code: Code) -> bool:
    """True where both name one file, by a text."""
    written, read = value_of(target_of(save), code), value_of(path_of(node), code)
    texts = [n.value for n in (written, read) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return len(texts) == 2 and texts[0] == texts[1]


def _own_statements(code: Code) -> list[ast.stmt]:
    return [s for s in code.tree.body if not isinstance(s, (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom))]


def _wrote(save: ast.Call, node: ast.Call, path: str, code: Code) -> bool:
    """True where a function of the file, run before the load, saves what it has made at the path that is loaded."""
    around = code.function(node)
    if code.function(save) is around:
        return False
    return any(code.function(c) is around and c.lineno < node.lineno for c in _runs_of(save, path, code))


def _runs_of(save: ast.Call, path: str, code: Code) -> list[ast.Call]:
    """The calls of the function of the file that saves, where one of them, else the function, names a path."""
    writer, target = code.function(save), target_of(save)
    if writer is None:
        return []
    given = code.kinds.calls.arguments(writer, target.id) if isinstance(target, ast.Name) else []
    return code.callers(writer) if any(ast.unparse(at) == path for at in given or (target,)) else []


def _is_best_of_training(node: ast.Call, code: Code) -> bool:
    """True after a loop that kept its best weights: by an early stopper, or by steps and a path that says so."""
    around, path = code.function(node), path_of(node)
    said = " ".join(ast.unparse(p) for p in (path, value_of(path, code)) if p is not None)
    kept = [c for c in code.calls if _STOPPER.search(code.names.dotted(c.func))]
    if _BEST.search(said):
        kept += code.calls_named("backward")
        own = [*_searches(code), *(c for c in code.calls if _trains(c, code))]
        if any(code.function(c) is around and _comes_before(c, node, code) for c in own):
            return True
    return any(
        code.function(step) is around and any((loop.end_lineno or 0) < node.lineno for loop in code.loops(step))
        for step in kept
    )


def _comes_before(call: ast.Call, node: ast.Call, code: Code) -> bool:
    """True where every way to a load leads past a call, or the rounds it stands in: no branch of its own holds it."""
    inside = [code.statement(node), *code.ancestors(node)]
    at: ast.AST | None = code.statement(call)
    while isinstance(at, ast.stmt) and not isinstance(at, (ast.If, ast.Try, *FUNCTIONS)):
        if any(s is a for s in code.block(at) if s.lineno > at.lineno for a in inside):
            return True
        at = code.parent(at)
    return False


def _trains(call: ast.Call, code: Code) -> bool:
    """True for `trainer.train()`, `fit(net, rows)`, `train_model(…)`; `net.train()` says the mode alone."""
    written = code.names.dotted(call.func)
    if written.endswith(".train"):
        return _TRAINER.search(written) is not None
    return _TRAINS_ALL.search(written) is not None


def _searches(code: Code) -> list[ast.Call]:
    """The calls that train many times over, each with its own settings, and keep the best."""
    return [
        c for c in code.calls_named("run", "fit") if code.qualified(c.func) in ("ray.tune.run", "ray.tune.Tuner.fit")
    ]


def _is_of_run(part: ast.AST, code: Code) -> bool:
    """True for a place that the trainer of this very run tells of: what its callback, or the trial before, has kept."""
    if isinstance(part, ast.Attribute) and part.attr in _KEPT:
        return code.imports(*_KEEPERS)
    if isinstance(part, ast.Call):
        name = code.qualified(part.func)
        return name.startswith("ray.") and name.endswith((".get_checkpoint", ".Checkpoint.from_directory"))
    bindings = code.names.find(part.id, part)[1] if isinstance(part, ast.Name) else []
    around = [b.value for b in bindings if b.role == "element" and b.value is not None]
    return bool(around) and all(comes_from(v, code, lambda n: _is_of_run(n, code)) for v in around)


def _is_of_dataset(node: ast.Call) -> bool:
    """True for what a torch_geometric dataset wrote in its `process`: graphs, which the safe reader refuses."""
    return ast.unparse(path_of(node)).startswith("self.processed_paths")


def _is_temporary(node: ast.AST, code: Code) -> bool:
    return isinstance(node, ast.Call) and code.qualified(node.func) in _TEMPORARY


def _saves_to_memory(code: Code) -> bool:
    saved = (c for c in code.calls_named("save") if code.qualified(c.func) == "torch.save")
    return any(len(c.args) > 1 and is_buffer(c.args[1], code) for c in saved)


RULE = Rule(
    code="H501",
    name="unsafe-torch-load",
    on=(ast.Call,),
    words=("load",),
    remedy="Pass weights_only=True (store state_dicts, or safetensors).",
    check=check,
)

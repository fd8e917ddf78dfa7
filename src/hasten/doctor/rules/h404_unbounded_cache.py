"""An unbounded cache in a `Dataset`.

## What it does
Finds a torch `Dataset` or Keras `Sequence` whose `__getitem__` (or a method it has) stores each sample in a dictionary
that is never bounded or emptied, or is wrapped in `functools.cache` / `lru_cache(maxsize=None)`. A cache that the user
switches on by a flag, or by taking the class that caches another dataset, is left alone.

## Why is this bad
Memory grows by every sample seen until the process is killed, and each worker of a `DataLoader` fills a copy of its
own. With workers that end each epoch, nothing of it is ever used again.

## Cost
The size of the data set, times the workers.

## Example
```python
def __getitem__(self, i):
    if i not in self.cache:
        self.cache[i] = load(self.files[i])
    return self.cache[i]
```

## Use instead
Load everything once in `__init__` where it fits, memory-map what does not (`np.load(..., mmap_mode="r")`), or bound the
cache.

## Fix safety
No fix: how many samples may stay in memory is yours to say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.names import Binding
from hasten.doctor.rule import Hit, Rule, hit, keyword

_WRAPPED = frozenset(("dataset", "ds", "base", "base_dataset", "inner", "original", "source", "wrapped"))
_SEQUENCES = ("keras.utils.Sequence", "keras.utils.PyDataset", "keras.utils.data_utils.Sequence")
_EMPTIED = (".pop", ".clear", ".maxsize")
_BOUNDS = ("pop", "popitem", "clear", "maxsize", "max_size", "capacity", "evict", "limit", "max_cache")


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Dictionaries that a dataset fills and never empties."""
    assert isinstance(node, ast.ClassDef)
    if code.definitions.class_kind(node) != makers.TORCH_DATASET and not _is_sequence(node, code):
        return
    if _is_chosen(node, code):
        return
    text = code.source(node)
    for method in node.body:
        if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) or method.name in (
            "__init__",
            "setup",
            "prepare",
        ):
            continue
        for decorator in method.decorator_list:
            if _caches_all(decorator, method, code):
                yield hit(decorator, "every sample ever read stays in memory, in each worker")
        for statement in ast.walk(method):
            if isinstance(statement, ast.Assign) and not any(word in text for word in _BOUNDS):
                yield from _stores(statement, node, method, code)


def _is_sequence(node: ast.ClassDef, code: Code) -> bool:
    """True for what Keras takes batches from: its workers call `__getitem__` too."""
    return any(code.qualified(b) in _SEQUENCES for b in node.bases)


def _is_chosen(node: ast.ClassDef, code: Code) -> bool:
    """True for a class that is, by its name, the cache around another dataset: whoever wants none takes the other."""
    if "cache" not in node.name.lower():
        return False
    setup = code.definitions.method(node, "__init__")
    given = {a.arg for a in setup.args.args} if setup is not None else set()
    around = {code.names.dotted(b) for b in node.bases} & {
        c.name for c in code.names.nodes if isinstance(c, ast.ClassDef)
    }
    return bool(around or given & _WRAPPED)


def _caches_all(decorator: ast.expr, method: ast.FunctionDef | ast.AsyncFunctionDef, code: Code) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = code.qualified(target)
    if len(method.args.args) < 2:
        return False
    if name == "functools.cache":
        return True
    if name != "functools.lru_cache" or not isinstance(decorator, ast.Call):
        return False
    size = keyword(decorator, "maxsize") or (decorator.args[0] if decorator.args else None)
    return isinstance(size, ast.Constant) and size.value is None


def _stores(statement: ast.Assign, node: ast.ClassDef, method: ast.AST, code: Code) -> Iterator[Hit]:
    for target in statement.targets:
        if not isinstance(target, ast.Subscript) or not _by_parameter(target.slice, method):
            continue
        held = code.names.dotted(target.value)
        if not held or not _gives_back(statement, held, method, code) or _is_number(statement.value, method):
            continue
        if _starts_empty(node, target.value, code) and not _is_optional(statement, held, code):
            yield hit(statement, f"`{held}` keeps every sample ever read, in each worker")


def _gives_back(statement: ast.Assign, held: str, method: ast.AST, code: Code) -> bool:
    """True where the method returns what it stores, or what the dictionary holds: samples, not book-keeping."""
    assert isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
    value = statement.value
    stored = [*statement.targets, *(value.elts if isinstance(value, (ast.Tuple, ast.List)) else [value])]
    kept = {held} | {n.id for n in stored if isinstance(n, ast.Name)}
    for inner in ast.walk(method):  # `sample = self.cache[i]` before `return sample`
        if isinstance(inner, ast.Assign) and any(
            isinstance(n, (ast.Attribute, ast.Name)) and code.names.dotted(n) == held for n in ast.walk(inner.value)
        ):
            kept.update(n.id for t in inner.targets for n in ast.walk(t) if isinstance(n, ast.Name))
    returned = [r for r in code.definitions.returns(method) if r is not None]
    return any(code.names.dotted(n) in kept for r in returned for n in ast.walk(r))


def _is_number(value: ast.expr, method: ast.AST) -> bool:
    """True for a length or a count that the method made: `len(x)`, or a name that it counts up from 0."""
    if isinstance(value, ast.Call):
        return getattr(value.func, "id", "") in ("len", "int", "float", "bool")
    if not isinstance(value, ast.Name):
        return isinstance(value, ast.Constant)
    sums = (n for n in ast.walk(method) if isinstance(n, ast.AugAssign) and isinstance(n.value, ast.Constant))
    if any(isinstance(n.target, ast.Name) and n.target.id == value.id for n in sums):
        return True
    given = [n.value for n in ast.walk(method) if isinstance(n, ast.Assign)
             and any(isinstance(t, ast.Name) and t.id == value.id for t in n.targets)]  # fmt: skip
    return bool(given) and not any(isinstance(g, ast.Name) for g in given) and all(_is_number(g, method) for g in given)


def _by_parameter(index: ast.expr, method: ast.AST) -> bool:
    assert isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
    parameters = {a.arg for a in method.args.args} - {"self"}
    derived = set(parameters)
    for inner in ast.walk(method):
        if isinstance(inner, ast.Assign) and any(
            isinstance(n, ast.Name) and n.id in derived for n in ast.walk(inner.value)
        ):
            derived.update(n.id for t in inner.targets for n in ast.walk(t) if isinstance(n, ast.Name))
    return any(isinstance(n, ast.Name) and n.id in derived for n in ast.walk(index))


def _starts_empty(node: ast.ClassDef, held: ast.expr, code: Code) -> bool:
    """True for `self.cache = {}` and its like in the class or its body, and for the module's own `CACHE = {}`."""
    bindings: list[Binding] = []
    if isinstance(held, ast.Attribute) and code.names.dotted(held.value) in ("self", "cls", node.name):
        own = code.names.own_scope(node).names.get(held.attr, [])
        bindings = [*code.names.attributes.get(node, {}).get(held.attr, []), *own]
    elif isinstance(held, ast.Name) and not code.mentions(*(f"{held.id}{end}" for end in _EMPTIED)):
        scope, found = code.names.find(held.id, held)
        bindings = found if scope is code.names.module else []
    return any(_is_empty_dict(b) for b in bindings)


def _is_empty_dict(binding: Binding) -> bool:
    value = binding.value
    for place in binding.path:  # `self.files, self.cache = files, {}`
        value = value.elts[place] if isinstance(value, ast.Tuple) and place < len(value.elts) else None
    if isinstance(value, ast.Dict):
        return not value.keys
    made = value.func if isinstance(value, ast.Call) and not value.args else None
    return getattr(made, "attr", getattr(made, "id", "")) in ("dict", "OrderedDict")


def _is_optional(statement: ast.AST, held: str, code: Code) -> bool:
    """True beneath a flag: anything but the question whether the key is there yet, or how full it is."""
    for around in code.ancestors(statement):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        if isinstance(around, ast.If):
            text = ast.unparse(around.test)
            asked = re.search(rf"\b{re.escape(held)}\b", text) is not None
            plain = asked and "len(" not in text and " and " not in text
            if not plain and not text.endswith(("is None", "is not None")) and not _stores_in_both(around, held, code):
                return True
    return False


def _stores_in_both(branch: ast.If, held: str, code: Code) -> bool:
    """True where either arm keeps what it has read: the question is what to read, not whether to keep it."""
    arms = (
        {code.names.dotted(n.value) for s in arm for n in ast.walk(s)
         if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)}
        for arm in (branch.body, branch.orelse)
    )  # fmt: skip
    return all(held in arm for arm in arms)


RULE = Rule(
    code="H404",
    name="unbounded-cache",
    on=(ast.ClassDef,),
    words=("Dataset", "Sequence"),
    remedy="Load once in __init__, memory-map, or bound the cache.",
    check=check,
)

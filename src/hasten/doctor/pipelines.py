"""How a `tf.data` pipeline was put together: its steps, wherever the file spreads them. Shared by the data rules."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from hasten.doctor import makers
from hasten.doctor.code import Code

__all__ = ["Pipeline", "consumed", "pipeline_of"]

_CONSUMERS = ("fit", "evaluate", "predict")
_WRAPPERS = ("enumerate", "tqdm", "iter", "list", "zip")


@dataclass(frozen=True)
class Pipeline:
    """The steps of a pipeline, and whether all of them were seen."""

    steps: frozenset[str]
    sources: frozenset[str]
    """Qualified names of what it starts from; '' for one not seen."""
    last: ast.Call | None

    @property
    def is_whole(self) -> bool:
        """True when every source was seen being made."""
        return bool(self.sources) and "" not in self.sources


def pipeline_of(node: ast.expr | None, code: Code) -> Pipeline:
    """The pipeline behind an expression that is a dataset."""
    steps: set[str] = set()
    sources: set[str] = set()
    last = _collect(node, code, steps, sources, set())
    return Pipeline(frozenset(steps), frozenset(sources), last)


def consumed(node: ast.AST, code: Code) -> ast.expr | None:
    """The dataset that a `fit` call or a `for` loop consumes, if the node is one."""
    if isinstance(node, ast.Call):
        consumes = isinstance(node.func, ast.Attribute) and node.func.attr in _CONSUMERS and bool(node.args)
        return node.args[0] if consumes and code.is_a(node.args[0], makers.TF_DATASET) else None
    iterable = getattr(node, "iter", None)
    while isinstance(iterable, ast.Call) and getattr(iterable.func, "id", "") in _WRAPPERS and iterable.args:
        iterable = iterable.args[0]
    return iterable if isinstance(iterable, ast.expr) and code.is_a(iterable, makers.TF_DATASET) else None


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
            if binding.role != "value" or binding.path:
                sources.add("")
            else:
                last = _collect(binding.value, code, steps, sources, seen) or last
        return last
    if not isinstance(node, ast.Call):
        sources.add("")
        return None
    name = code.qualified(node.func)
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

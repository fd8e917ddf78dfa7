"""One Python file as the rules see it: its tree, what names mean, and what surrounds each line.

Text enters; rules ask ``qualified``, ``kind``, ``loop``, ``hot``, ``varies``. Nothing is imported or run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hasten.doctor import makers
from hasten.doctor.around import FUNCTIONS, Loop
from hasten.doctor.handlers import ONCE, is_handler
from hasten.doctor.kind import Kind
from hasten.doctor.kinds import Kinds
from hasten.doctor.names import Function, Names
from hasten.doctor.read import lines_of, without_comments
from hasten.doctor.rounds import Rounds

__all__ = ["Code", "Hot", "Loop"]

Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Hot:
    """Why a line runs many times: the loop around it, the handler it stands in, or the call that repeats it."""

    reason: str
    loop: Loop | None = None


class Code(Rounds):
    """A parsed file and the questions that rules ask of it.

    Raises:  SyntaxError, ValueError, RecursionError: the text is no Python
    """

    def __init__(self, text: str, *, path: str = "<stdin>", file: Path | None = None, is_test: bool = False) -> None:
        self.text = text
        self.path = path
        self.file = file
        """Where the text lies, for what the files beside it say; None for a text in no file."""
        self.is_test = is_test
        self.tree = parse(text)
        super().__init__(Names(self.tree))
        self.kinds = Kinds(self.names)
        self.definitions = self.kinds.definitions
        self._mentioned: dict[tuple[str, ...], bool] = {}
        self._found: dict[re.Pattern[str], bool] = {}
        self._facts: dict[Any, Any] = {}

    # -- what things are -----------------------------------------------------------------------------------------------

    def qualified(self, node: ast.AST) -> str:
        """The full dotted name behind an expression; '' where unknown."""
        return self.names.qualified(node)

    def kind(self, node: ast.AST | None) -> Kind | None:
        """What an expression is; None where nothing proves it."""
        return self.kinds.of(node)

    def is_a(self, node: ast.AST | None, *kinds: str) -> bool:
        """True when the expression is known to be one of these kinds."""
        return self.kinds.is_a(node, *kinds)

    def source(self, node: ast.AST) -> str:
        """The text of a node, as written."""
        return ast.get_source_segment(self.text, node) or ast.unparse(node)

    def imports(self, *roots: str) -> bool:
        """True when the file imports one of these packages."""
        return any(r in self.names.roots for r in roots)

    @cached_property
    def lines(self) -> list[str]:
        """The text line by line, as Python counts them."""
        return lines_of(self.text)

    @cached_property
    def calls(self) -> list[ast.Call]:
        """Every call, in textual order."""
        return [n for n in self.names.nodes if isinstance(n, ast.Call)]

    def calls_named(self, *names: str) -> list[ast.Call]:
        """The calls whose last name is one of these: ``x.eval()`` for ``eval``."""
        return [call for name in names for call in self.kinds.calls.by_last_name.get(name, [])]

    def callers(self, function: Function) -> list[ast.Call]:
        """The calls of this file that run ``function``."""
        return self.kinds.calls.callers(function)

    def function_run(self, call: ast.Call) -> Function | None:
        """The function or method of this file that a call runs."""
        return self.kinds.calls.function_of(call)

    def mentions(self, *words: str) -> bool:
        """True when one of these words stands anywhere in the code; comments may say what is missing, and count not."""
        if words not in self._mentioned:
            self._mentioned[words] = any(w in self._bare for w in words)
        return self._mentioned[words]

    def finds(self, pattern: re.Pattern[str]) -> bool:
        """True when a pattern matches anywhere in the code, its comments aside."""
        if pattern not in self._found:
            self._found[pattern] = pattern.search(self._bare) is not None
        return self._found[pattern]

    @cached_property
    def _bare(self) -> str:
        return without_comments(self.text)

    def fact(self, question: Callable[[Code], Fact]) -> Fact:
        """The answer to a question about the whole file, asked once."""
        if question not in self._facts:
            self._facts[question] = question(self)
        answer: Fact = self._facts[question]
        return answer

    # -- what is around ------------------------------------------------------------------------------------------------

    def in_class_of(self, node: ast.AST, *kinds: str) -> bool:
        """True inside a local class whose instances are one of these kinds."""
        return any(
            isinstance(a, ast.ClassDef) and self.definitions.class_kind(a) in kinds for a in self.ancestors(node)
        )

    def in_layer(self, node: ast.AST) -> bool:
        """True inside a class that is a layer or model itself, by its bases or by having ``forward``."""
        if self.in_class_of(node, makers.TORCH_MODULE, makers.KERAS_MODEL, makers.KERAS_LAYER):
            return True
        classes = [a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)]
        return any(c.bases and self.definitions.method(c, "forward") is not None for c in classes)

    def handler(self, node: ast.AST) -> Function | None:
        """The request handler that a node is, or stands in: a route, a servicer's method, a serving class's predict."""
        for at in (node, *self.ancestors(node)):
            if isinstance(at, FUNCTIONS):
                if at not in self._handlers:
                    self._handlers[at] = is_handler(at, self.kinds)
                if self._handlers[at]:
                    return at
        return None

    @cached_property
    def _handlers(self) -> dict[Function, bool]:
        return {}

    def hot(self, node: ast.AST, depth: int = 2) -> Hot | None:
        """Why a line runs many times, as far as this file shows; None where it does not."""
        loop = self.loop(node)
        if loop is not None:
            return Hot("in a loop", loop)
        handler = self.handler(node)
        if handler is not None:
            return Hot(f"in the request handler '{handler.name}'")
        if self.mapped(next((a for a in self.ancestors(node) if isinstance(a, ast.Lambda)), None)) is not None:
            return Hot("for each item of a `map`")
        function = self.function(node)
        if function is None or depth == 0 or function.name in ONCE:
            return None
        applied = self._applied(function)
        if applied is not None:
            return Hot(f"in '{function.name}', which line {applied.lineno} applies row by row")
        mapped = self.mapped(function)
        if mapped is not None:
            return Hot(f"in '{function.name}', which line {mapped.lineno} maps over many")
        for call in self.callers(function):
            if self.function(call) is function:
                continue
            outer = self.hot(call, depth - 1)
            if outer is not None:
                return Hot(f"in '{function.name}', which line {call.lineno} calls {outer.reason}", outer.loop)
        return None

    def mapped(self, function: Function | ast.Lambda | None) -> ast.Call | None:
        """The call of Python's `map` that runs a function or a lambda on each item: `map(score, rows)`."""
        calls = (c for c in self.calls_named("map") if isinstance(c.func, ast.Name) and c.args)
        if function is None:
            return None
        return next((c for c in calls if function in (c.args[0], self.definitions.function_named(c.args[0]))), None)

    def _applied(self, function: Function) -> ast.Call | None:
        """The call of pandas' `apply` that runs a function on each row or value: `table.apply(score, axis=1)`."""
        if not self.imports("pandas"):
            return None
        given = ((c, c.args[0]) for c in self.calls_named("apply", "applymap", "progress_apply") if c.args)
        return next((c for c, f in given if self.definitions.function_named(f) is function), None)

    def uses_of(self, call: ast.Call) -> list[ast.Name]:
        """Where the name that is given a call's value stands again, in the same function; [] where no name holds it."""
        statement = self.statement(call)
        target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is call else None
        if not isinstance(target, ast.Name):
            return []
        around = self.function(call) or self.tree
        return [n for n in ast.walk(around) if isinstance(n, ast.Name) and n.id == target.id and n is not target]

    # -- models at work ------------------------------------------------------------------------------------------------

    def runs_model(self, call: ast.AST) -> Kind | None:
        """The kind of model that this call runs, or None when it runs none."""
        if not isinstance(call, ast.Call):
            return None
        if isinstance(call.func, ast.Attribute):
            kind = self.kind(call.func.value)
            if kind is not None and call.func.attr in _RUNS.get(kind.name, ()):
                return kind
        kind = self.kind(call.func)
        return kind if kind is not None and kind.name in _CALLED else None

    def model_runs(self, nodes: list[ast.stmt]) -> list[ast.Call]:
        """The calls in these statements that run a model."""
        found = (n for s in nodes for n in ast.walk(s) if isinstance(n, ast.Call))
        return [n for n in found if self.runs_model(n) is not None]

    @cached_property
    def trains(self) -> bool:
        """True when the file trains something: a backward pass, an optimizer, ``fit``, a gradient tape."""
        return self.mentions(
            ".backward(", "GradientTape", ".fit(", "train_on_batch(", "Trainer(", "optim.", "autograd.grad"
        )

    @cached_property
    def uses_gpu(self) -> bool:
        """True when the file moves things to a CUDA device."""
        if self.calls_named("cuda"):
            return True
        strings = (n.value for n in self.names.nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
        return any(re.fullmatch(r"cuda(:\d+|:\{?)?", s) or s == "/GPU:0" for s in strings)


_RUNS: dict[str, tuple[str, ...]] = {
    makers.KERAS_MODEL: ("predict", "predict_on_batch", "call", "__call__"),
    makers.TORCH_MODULE: ("forward", "generate"),
    makers.ORT_SESSION: ("run", "run_with_iobinding"),
    makers.TFLITE: ("invoke",),
    makers.OPENVINO: ("infer_new_request",),
}
_CALLED = (makers.KERAS_MODEL, makers.TORCH_MODULE, makers.TF_FUNCTION, makers.OPENVINO)


def parse(text: str) -> ast.Module:
    """The tree of a module or of notebook cells (``await`` outside a function is allowed).

    Raises:  SyntaxError, ValueError
    """
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(text, "<code>", "exec", flags=flags, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    return tree

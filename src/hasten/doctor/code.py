"""One Python file as the rules see it: its tree, what names mean, and what surrounds each line.

Text enters; rules ask ``qualified``, ``kind``, ``loop``, ``hot``, ``varies``. Nothing is imported or run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from hasten.doctor import makers
from hasten.doctor.kinds import Kind, Kinds
from hasten.doctor.names import Binding, Function, Names
from hasten.doctor.words import words

__all__ = ["Code", "Hot", "Loop"]

Loop = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Fact = TypeVar("Fact")
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SHORT = 3  # a range or literal of so few rounds is no hot loop
_SHORT_LITERAL = 8

_ROUTES = words("route get post put patch delete websocket api_route api endpoint task")
_HANDLER_BASES = re.compile(
    r"(Servicer|RequestHandler|BaseHTTPRequestHandler|Resource|APIView|MethodView|BaseHandler|LitAPI|BasePredictor"
    r"|HTTPEndpoint|ModelHandler)$"
)
_HANDLER_METHODS = words("get post put handle predict inference initialize_request do_GET do_POST execute")
_HANDLER_DECORATORS = frozenset(("bentoml.api", "ray.serve.batch", "modal.method", "modal.web_endpoint"))
_ONCE = words("__init__ setup load initialize startup on_startup lifespan load_model init warmup warm_up")

# Calls that give the same answer each time they are given the same arguments.
_PURE = words(
    "int float bool str len list tuple abs min max sum round range set dict slice isinstance getattr "
    "expand_dims reshape astype array asarray zeros ones full arange linspace eye squeeze transpose tensor as_tensor "
    "constant convert_to_tensor cast from_numpy to cuda cpu numpy view unsqueeze permute float32 zeros_like ones_like "
    "join Path device astensor FloatTensor LongTensor SessionOptions function compile trace script "
    "InferenceSession Interpreter load_model from_pretrained abspath dirname"
)
_MUTATORS = words("append extend insert pop remove update clear add discard popleft appendleft fill sort")


@dataclass(frozen=True)
class Hot:
    """Why a line runs many times: the loop around it, the handler it stands in, or the call that repeats it."""

    reason: str
    loop: ast.AST | None = None


class Code:
    """A parsed file and the questions that rules ask of it.

    Raises:  SyntaxError, ValueError, RecursionError: the text is no Python
    """

    def __init__(self, text: str, *, path: str = "<stdin>", is_test: bool = False) -> None:
        self.text = text
        self.path = path
        self.is_test = is_test
        self.tree = parse(text)
        self.names = Names(self.tree)
        self.kinds = Kinds(self.names)
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
    def calls(self) -> list[ast.Call]:
        """Every call, in textual order."""
        return [n for n in self.names.nodes if isinstance(n, ast.Call)]

    @cached_property
    def _by_last_name(self) -> dict[str, list[ast.Call]]:
        found: dict[str, list[ast.Call]] = {}
        for call in self.calls:
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            found.setdefault(name, []).append(call)
        return found

    def calls_named(self, *names: str) -> list[ast.Call]:
        """The calls whose last name is one of these: ``x.eval()`` for ``eval``."""
        return [call for name in names for call in self._by_last_name.get(name, [])]

    def mentions(self, *words: str) -> bool:
        """True when one of these words stands anywhere in the text."""
        if words not in self._mentioned:
            self._mentioned[words] = any(w in self.text for w in words)
        return self._mentioned[words]

    def finds(self, pattern: re.Pattern[str]) -> bool:
        """True when a pattern matches anywhere in the text."""
        if pattern not in self._found:
            self._found[pattern] = pattern.search(self.text) is not None
        return self._found[pattern]

    def fact(self, question: Callable[[Code], Fact]) -> Fact:
        """The answer to a question about the whole file, asked once."""
        if question not in self._facts:
            self._facts[question] = question(self)
        answer: Fact = self._facts[question]
        return answer

    # -- what is around ------------------------------------------------------------------------------------------------

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that holds this one."""
        return self.names.parents.get(node)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Parents, from the nearest outwards."""
        at = self.names.parents.get(node)
        while at is not None:
            yield at
            at = self.names.parents.get(at)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that a node is part of."""
        while not isinstance(node, ast.stmt):
            node = self.names.parents[node]
        return node

    def block(self, statement: ast.stmt) -> list[ast.stmt]:
        """The list of statements that holds this one."""
        parent = self.names.parents[statement]
        for _, value in ast.iter_fields(parent):
            if isinstance(value, list) and any(v is statement for v in value):
                return value
        return [statement]

    def function(self, node: ast.AST) -> Function | None:
        """The ``def`` around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, _FUNCTIONS)), None)

    def klass(self, node: ast.AST) -> ast.ClassDef | None:
        """The class around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)), None)

    def in_class_of(self, node: ast.AST, *kinds: str) -> bool:
        """True inside a local class whose instances are one of these kinds."""
        return any(isinstance(a, ast.ClassDef) and self.kinds.class_kind(a) in kinds for a in self.ancestors(node))

    def in_layer(self, node: ast.AST) -> bool:
        """True inside a class that is a layer or model itself, by its bases or by having ``forward``."""
        if self.in_class_of(node, makers.TORCH_MODULE, makers.KERAS_MODEL, makers.KERAS_LAYER):
            return True
        classes = [a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)]
        return any(c.bases and self.kinds.method(c, "forward") is not None for c in classes)

    def loops(self, node: ast.AST) -> Iterator[Loop]:
        """The loops that repeat ``node`` in its own function, nearest first."""
        child, at = node, self.names.parents.get(node)
        while at is not None and not isinstance(at, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            if isinstance(at, _LOOPS) and _repeats(at, child):
                yield at
            if not isinstance(at, ast.comprehension) or not _is_first_iter(at, child, self.names):
                child = at
            at = self.names.parents.get(at)

    def loop(self, node: ast.AST) -> Loop | None:
        """The nearest loop that repeats ``node`` more than a few times, in the same function."""
        return next((loop for loop in self.loops(node) if not self.is_short(loop)), None)

    def is_short(self, loop: ast.AST) -> bool:
        """True for a loop whose few rounds are written out: a literal, ``range(3)``, a dict of splits."""
        if isinstance(loop, ast.While):
            return False
        iterable = loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].iter  # type: ignore[attr-defined]
        if isinstance(iterable, ast.Call):
            name = self.names.dotted(iterable.func)
            if name == "range" and len(iterable.args) == 1 and isinstance(iterable.args[0], ast.Constant):
                value = iterable.args[0].value
                return isinstance(value, int) and value <= _SHORT
            if isinstance(iterable.func, ast.Attribute) and iterable.func.attr in ("items", "values", "keys"):
                iterable = iterable.func.value
            elif name in ("enumerate", "zip") and iterable.args:
                iterable = iterable.args[0]
        if isinstance(iterable, ast.Dict):
            return len(iterable.keys) <= _SHORT_LITERAL
        return isinstance(iterable, (ast.Tuple, ast.List, ast.Set)) and len(iterable.elts) <= _SHORT_LITERAL

    def handler(self, node: ast.AST) -> Function | None:
        """The request handler around a node: a route, a servicer's method, a serving class's predict."""
        for at in self.ancestors(node):
            if isinstance(at, _FUNCTIONS) and at.name not in _ONCE and self._is_handler(at):
                return at
        return None

    def _is_handler(self, function: Function) -> bool:
        for decorator in function.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.qualified(target) in _HANDLER_DECORATORS:
                return True
            if isinstance(target, ast.Attribute) and target.attr in _ROUTES and self.is_a(target.value, makers.WEB_APP):
                return True
        owner = self.parent(function)
        if isinstance(owner, ast.ClassDef):
            bases = [self.names.dotted(b) for b in owner.bases]
            servicer = any(b.endswith("Servicer") for b in bases)
            if servicer and not function.name.startswith("_"):
                return True
            if owner.name == "TritonPythonModel" and function.name == "execute":
                return True
            return function.name in _HANDLER_METHODS and any(_HANDLER_BASES.search(b) for b in bases)
        arguments = [a.arg for a in function.args.args]
        if arguments == ["event", "context"]:
            return True
        return bool(arguments) and arguments[0] == "request" and self.imports("django", "rest_framework")

    def hot(self, node: ast.AST, depth: int = 2) -> Hot | None:
        """Why a line runs many times, as far as this file shows; None where it does not."""
        loop = self.loop(node)
        if loop is not None:
            return Hot("in a loop", loop)
        handler = self.handler(node)
        if handler is not None:
            return Hot(f"in the request handler '{handler.name}'")
        function = self.function(node)
        if function is None or depth == 0 or function.name in _ONCE:
            return None
        for call in self.kinds.callers(function):
            if self.function(call) is function:
                continue
            outer = self.hot(call, depth - 1)
            if outer is not None:
                return Hot(f"in '{function.name}', which line {call.lineno} calls {outer.reason}", outer.loop)
        return None

    # -- what changes --------------------------------------------------------------------------------------------------

    def bound_in(self, name: ast.Name, around: ast.AST) -> list[Binding]:
        """The bindings of a name that lie inside a loop."""
        _, bindings = self.names.find(name.id, name)
        return [b for b in bindings if b.node is around or self._inside(b.node, around)]

    def _inside(self, node: ast.AST, around: ast.AST) -> bool:
        return any(a is around for a in self.ancestors(node))

    def depends_on_round(self, node: ast.AST, loop: ast.AST) -> bool:
        """True when an expression reads a name that the loop binds or changes."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
                if self.bound_in(inner, loop) or inner.id in self._changed(loop):
                    return True
            elif isinstance(inner, ast.Attribute) and self.names.dotted(inner) in self._changed(loop):
                return True
        return False

    def varies(self, node: ast.AST, loop: ast.AST) -> bool:
        """True unless an expression surely gives the same value in every round of the loop."""
        if self.depends_on_round(node, loop):
            return True
        for inner in ast.walk(node):
            if isinstance(inner, (ast.Await, ast.Yield, ast.YieldFrom, ast.Lambda, ast.NamedExpr)):
                return True
            if isinstance(inner, ast.Call):
                name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
                if name not in _PURE:
                    return True
        return False

    def _changed(self, loop: ast.AST) -> frozenset[str]:
        if loop not in self._changes:
            self._changes[loop] = frozenset(self._find_changed(loop))
        return self._changes[loop]

    @cached_property
    def _changes(self) -> dict[ast.AST, frozenset[str]]:
        return {}

    def _find_changed(self, loop: ast.AST) -> Iterator[str]:
        for inner in ast.walk(loop):
            if isinstance(inner, (ast.Attribute, ast.Subscript)) and isinstance(inner.ctx, (ast.Store, ast.Del)):
                yield self.names.dotted(inner.value if isinstance(inner, ast.Subscript) else inner)
            elif isinstance(inner, ast.AugAssign):
                yield self.names.dotted(inner.target)
            elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and _mutates(inner.func.attr):
                yield self.names.dotted(inner.func.value)

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


def _mutates(method: str) -> bool:
    """True for list methods that change their list, and torch's `add_` and its like."""
    return method in _MUTATORS or (method.endswith("_") and not method.startswith("_"))


def _repeats(loop: ast.AST, child: ast.AST) -> bool:
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return any(child is s for s in loop.body)
    if isinstance(loop, ast.While):
        return child is loop.test or any(child is s for s in loop.body)
    generators: list[ast.comprehension] = loop.generators  # type: ignore[attr-defined]
    return child is not generators[0].iter


def _is_first_iter(at: ast.comprehension, child: ast.AST, names: Names) -> bool:
    owner = names.parents.get(at)
    return child is at.iter and getattr(owner, "generators", [None])[0] is at

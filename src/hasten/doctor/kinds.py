"""What an expression is: a Keras model, a torch module, a tensor, an array, a session; None where nothing proves it.

``Names`` enters, ``Kinds.of(expression)`` answers. It follows assignments, tuples, ``self.x``, ``app.state.x``,
``models["x"]``, parameters (annotation, else what the file's own calls pass), properties, local functions' returns and
local classes' bases. Where two roads disagree the answer is None: a rule fires on evidence alone.
"""

from __future__ import annotations

import ast
import re

from hasten.doctor import makers, tfds
from hasten.doctor.annotations import annotated
from hasten.doctor.calls import Calls
from hasten.doctor.definitions import Definitions
from hasten.doctor.elements import Elements
from hasten.doctor.flow import reaching
from hasten.doctor.kind import Kind, agree, is_nothing
from hasten.doctor.names import Binding, Function, Names, Scope

__all__ = ["Kinds"]

_DEPTH = 12  # assignments and calls followed before giving up
_BASES = 4  # classes followed upwards
_PARTS = ("T", "data", "grad", "real", "imag", "values", "indices")
_OUTPUTS = ("logits", "last_hidden_state", "pooler_output", "loss")
_OPENS = re.compile("(load|build|create|make|get|init|open).*(model|net)")
_A_MODEL = re.compile(r"(model|net|network|[cr]nn|lstm|gru|generator|classifier|detector|policy|actor)\d*$", re.I)
_PROPERTIES = ("property", "cached_property")
_MOVES = ("to", "cuda", "cpu", "half", "float", "train", "eval")


class Kinds:
    """The kinds of one file's expressions, each worked out once."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.definitions = Definitions(names)
        self.calls = Calls(names, self.definitions, self._owner)
        self.elements = Elements(names, self.calls, self.of)
        self._known: dict[tuple[ast.AST, tuple[int, ...]], Kind | None] = {}
        self._open: set[tuple[ast.AST, tuple[int, ...]]] = set()
        self._used: dict[tuple[str, Scope | ast.ClassDef | None], str] | None = None

    def of(self, node: ast.AST | None, path: tuple[int, ...] = ()) -> Kind | None:
        """The kind of an expression, or of the element at ``path`` of the tuple it gives."""
        if node is None:
            return None
        key = (node, path)
        if key in self._known:
            return self._known[key]
        if key in self._open or len(self._open) > _DEPTH:
            return None
        self._open.add(key)
        found = self._of(node, path)
        self._open.discard(key)
        self._known[key] = found
        return found

    def is_a(self, node: ast.AST | None, *names: str) -> bool:
        """True when the expression is known to be one of these kinds."""
        kind = self.of(node)
        return kind is not None and kind.name in names

    # -- expressions -------------------------------------------------------------------------------------------------

    def _of(self, node: ast.AST, path: tuple[int, ...]) -> Kind | None:
        if isinstance(node, ast.Call) and self.names.qualified(node.func) == tfds.LOAD:
            return Kind(makers.TF_DATASET, node) if tfds.gives_dataset(node, path) else None
        if path:
            return self._element_of_tuple(node, path)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Constant):
            number = isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
            return Kind(makers.NUMBER) if number else None
        if isinstance(node, ast.NamedExpr):
            return self.of(node.value)
        if isinstance(node, ast.IfExp):
            return agree([self.of(v) for v in (node.body, node.orelse) if not is_nothing(v)])
        if isinstance(node, ast.BoolOp):
            return agree([self.of(v) for v in node.values])
        if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Compare)):
            return self._operator(node)
        return self._subscript(node) if isinstance(node, ast.Subscript) else None

    def _operator(self, node: ast.BinOp | ast.UnaryOp | ast.Compare) -> Kind | None:
        if isinstance(node, ast.BinOp):
            parts: list[ast.expr] = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            parts = [node.operand]
        else:
            parts = [node.left, *node.comparators]
        kinds = [self.of(p) for p in parts]
        for wanted in makers.TENSORS:
            if any(k is not None and k.name == wanted for k in kinds):
                return Kind(wanted)
        if kinds and all(k is not None and k.name == makers.NUMBER for k in kinds):
            return Kind(makers.NUMBER)
        return None

    def _subscript(self, node: ast.Subscript) -> Kind | None:
        kind = self.of(node.value)
        if kind is not None and kind.name in makers.TENSORS:
            return Kind(kind.name)
        held = self._merge(self.names.held(node))
        if held is None and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
            held = self.of(node.value, (node.slice.value,))
        return held or self.elements.held(node.value)

    def _element_of_tuple(self, node: ast.AST, path: tuple[int, ...]) -> Kind | None:
        if isinstance(node, (ast.Tuple, ast.List)):
            index = path[0]
            return self.of(node.elts[index], path[1:]) if -len(node.elts) <= index < len(node.elts) else None
        if isinstance(node, ast.Call):
            function = self.calls.function_of(node)
            if function is not None:
                return self._returned(function, path)
        return None

    # -- names and attributes ----------------------------------------------------------------------------------------

    def _name(self, node: ast.Name) -> Kind | None:
        scope, bindings = self.names.find(node.id, node)
        if scope is None:
            return None
        if scope is self.names.scope_of(node):
            plain = isinstance(scope.node, (ast.Module, ast.ClassDef))
            bindings = reaching(node, bindings, self.names) or (bindings if plain else [])
        return self._merge(bindings) or self._by_use(node.id, scope, bindings)

    def _by_use(self, written: str, scope: Scope | ast.ClassDef | None, bindings: list[Binding]) -> Kind | None:
        """A model made elsewhere, known by its use: ``net.parameters()``, ``model.compile(loss=…)``."""
        used = self._uses().get((written, scope))
        if used is None or any(k is not None and k.name != used for k in map(self._bound, bindings)):
            return None
        if any(self._wraps(b, written) for b in bindings):
            return None
        made = next(
            (b.value for b in reversed(bindings) if b.role == "value" and not b.path and isinstance(b.value, ast.Call)),
            None,
        )
        return Kind(used, made if isinstance(made, ast.Call) else None)

    def _wraps(self, binding: Binding, written: str) -> bool:
        """True for ``model = Wrapper(model)``, the class unknown: what was said of the model is not said of it."""
        call = binding.value if binding.role == "value" and not binding.path else None
        if not isinstance(call, ast.Call) or self._bound(binding) is not None:
            return False
        given = any(self.names.dotted(a) == written for a in call.args)
        return given and self.names.dotted(call.func).rsplit(".", 1)[-1][:1].isupper()

    def _uses(self) -> dict[tuple[str, Scope | ast.ClassDef | None], str]:
        if self._used is None:
            self._used = {}
            for node in self.names.nodes:
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    kind = makers.kind_by_use(node, self.names.roots)
                    written = self.names.dotted(_before_moves(node.func.value)) if kind else ""
                    if written and "." not in written:
                        self._used[written, self.names.find(written, node)[0]] = kind
                    elif written.startswith("self.") and written.count(".") == 1:
                        self._used[written, self.names.class_around(node)] = kind
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _A_MODEL.search(node.func.id):
                    scope, bindings = self.names.find(node.func.id, node)
                    if any(self._loads_whole(b) for b in bindings):
                        self._used[node.func.id, scope] = makers.TORCH_MODULE
        return self._used

    def _loads_whole(self, binding: Binding) -> bool:
        """True for ``net = torch.load("net.pt")``: where ``net`` is called, the file holds no table of weights."""
        call = binding.value if binding.role == "value" and not binding.path else None
        return isinstance(call, ast.Call) and self.names.qualified(call.func) == "torch.load"

    def _merge(self, bindings: list[Binding]) -> Kind | None:
        kinds = []
        for binding in bindings:
            if binding.role in ("value", "other") and binding.value is not None and is_nothing(binding.value):
                continue
            if binding.role == "other" and isinstance(binding.node, ast.AugAssign):
                continue
            kinds.append(self._bound(binding))
        return agree(kinds) or self._loaded(bindings)

    def _loaded(self, bindings: list[Binding]) -> Kind | None:
        """The model that one road opens, where each other road opens one by a function that is not seen."""
        kinds = [self._bound(b) for b in bindings if not is_nothing(b.value)]
        known = agree([k for k in kinds if k is not None])
        if known is None or known.name not in (makers.KERAS_MODEL, makers.TORCH_MODULE):
            return None
        unseen = [b for b in bindings if not is_nothing(b.value) and self._bound(b) is None]
        return known if all(self._opens_model(b) for b in unseen) else None

    def _opens_model(self, binding: Binding) -> bool:
        called = binding.value.func if isinstance(binding.value, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        plain = binding.role == "value" and not binding.path
        return plain and _OPENS.search(name.lower()) is not None

    def _bound(self, binding: Binding) -> Kind | None:
        if binding.role == "value":
            return self.of(binding.value, binding.path) or self._annotation(binding.node)
        if binding.role == "element":
            return self.elements.target(binding.value, binding.path)
        if binding.role == "parameter":
            return self._parameter(binding)
        if binding.role == "other" and isinstance(binding.node, (ast.With, ast.AsyncWith)):
            return self.of(binding.value)
        if binding.role == "function" and isinstance(binding.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return self._property(binding.node) or self._decorated(binding.node)
        return None

    def _annotation(self, node: ast.AST) -> Kind | None:
        written = node.annotation if isinstance(node, ast.AnnAssign) else None
        return annotated(written, self.names, self.definitions)

    def _parameter(self, binding: Binding) -> Kind | None:
        declared = annotated(binding.value, self.names, self.definitions)
        if binding.function is None or isinstance(binding.function, ast.Lambda):
            return declared
        if declared is not None and (declared.local is not None or declared.name != makers.TORCH_MODULE):
            return declared
        given = [self.of(a) for a in self.calls.arguments(binding.function, binding.name)]
        if declared is None:
            return agree(given)
        same = agree([declared, *given]) is not None and len({k.made for k in given if k is not None}) == 1
        return given[0] if same else declared  # `net: nn.Module` says what it is, and not what made it

    def _attribute(self, node: ast.Attribute) -> Kind | None:
        owner = self._owner(node.value)
        if owner is not None:
            found = self._attribute_of_class(owner, node.attr, 0)
            if found is None and self.names.class_of_self(node.value) is owner:
                bindings = self.names.attributes.get(owner, {}).get(node.attr, [])
                found = self._by_use(f"self.{node.attr}", owner, bindings)
            if found is not None:
                return found
        base = self.of(node.value)
        if base is None:
            return self._merge(self.names.held(node))
        if node.attr == "module" and base.name == makers.TORCH_MODULE:
            return Kind(makers.TORCH_MODULE)
        if node.attr in _PARTS and base.name in makers.TENSORS:
            return Kind(base.name)
        if node.attr in _OUTPUTS and base.name == makers.TORCH_TENSOR:
            return Kind(makers.TORCH_TENSOR)
        return self._merge(self.names.held(node))

    def _owner(self, node: ast.AST) -> ast.ClassDef | None:
        """The local class that an expression is an instance of, or is."""
        around = self.names.class_of_self(node)
        if around is not None:
            return around
        named = self.definitions.class_named(node)
        if named is not None:
            return named
        kind = self.of(node)
        return kind.local if kind is not None else None

    def _attribute_of_class(self, owner: ast.ClassDef, attr: str, depth: int) -> Kind | None:
        bindings = self.names.attributes.get(owner, {}).get(attr, [])
        declared = self.names.own_scope(owner).names.get(attr, [])
        if bindings or declared:
            values = [b for b in (*bindings, *declared) if not (isinstance(b.node, ast.AnnAssign) and b.value is None)]
            said = [self._annotation(b.node) for b in (*bindings, *declared)]
            return self._merge(values) or agree([k for k in said if k is not None])
        for base in owner.bases if depth < _BASES else ():
            local = self.definitions.class_named(base)
            if local is not None:
                return self._attribute_of_class(local, attr, depth + 1)
        return None

    # -- calls -------------------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call) -> Kind | None:
        name = self.names.qualified(node.func)
        made = makers.made_by(name) if name else ""
        if made:
            return Kind(made, node)
        if name in makers.WRAPPERS:
            return self._wrapped(node, makers.WRAPPERS[name])
        local = self.definitions.class_named(node.func)
        if local is not None:
            return Kind(self.definitions.class_kind(local), node, local)
        function = self.calls.function_of(node)
        if function is not None:
            decorated = self._decorated(function)
            if decorated is not None and decorated.name == makers.TF_FUNCTION:
                return Kind(makers.TF_TENSOR)
            return self._returned(function, ())
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        return self._result(node.func)

    def _result(self, called: ast.expr) -> Kind | None:
        """What calling a known thing gives: a model's output."""
        kind = self.of(called)
        result = makers.CALL_RESULTS.get(kind.name) if kind is not None else None
        return Kind(result) if result else None

    def _wrapped(self, node: ast.Call, default: str) -> Kind | None:
        if default == makers.TF_FUNCTION:
            return Kind(default, node)
        inner = self.of(node.args[0]) if node.args else None
        if inner is not None and inner.name in (makers.TORCH_MODULE, makers.KERAS_MODEL):
            return Kind(inner.name, inner.made, inner.local)
        return Kind(default, node) if default else None

    def _method(self, node: ast.Call, func: ast.Attribute) -> Kind | None:
        owner = self.definitions.class_named(func.value)
        if owner is not None and func.attr in makers.CLASS_MAKERS:
            return Kind(self.definitions.class_kind(owner), node, owner)
        receiver = self.of(func.value)
        if receiver is None:
            evaluates = func.attr == "eval" and makers.kind_by_use(node, self.names.roots) == makers.TORCH_MODULE
            return Kind(makers.TORCH_MODULE) if evaluates else self._result(func)
        if func.attr in makers.SAME_KIND.get(receiver.name, ()):
            return receiver
        result = makers.METHOD_RESULTS.get((receiver.name, func.attr))
        if result is None and receiver.name in makers.TENSORS and func.attr not in makers.NOT_TENSORS:
            result = receiver.name
        if result is None:
            return self._result(func)
        return Kind(result, node if result in makers.OPENED_BY_METHOD else None) if result else None

    def _decorated(self, function: Function) -> Kind | None:
        for decorator in function.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.names.qualified(target) == "tensorflow.function":
                return Kind(makers.TF_FUNCTION, decorator if isinstance(decorator, ast.Call) else None)
        return None

    def _property(self, function: Function) -> Kind | None:
        names = (self.names.dotted(d).rsplit(".", 1)[-1] for d in function.decorator_list)
        return self._returned(function, ()) if any(n in _PROPERTIES for n in names) else None

    def _returned(self, function: Function, path: tuple[int, ...]) -> Kind | None:
        returns = [r for r in self.definitions.returns(function) if r is not None and not is_nothing(r)]
        found = agree([self.of(r, path) for r in returns])
        return found or (None if path else annotated(function.returns, self.names, self.definitions))


def _before_moves(model: ast.expr) -> ast.expr:
    """The ``net`` of ``net.to(device).eval()``: these methods give back the model itself."""
    while isinstance(model, ast.Call) and isinstance(model.func, ast.Attribute) and model.func.attr in _MOVES:
        model = model.func.value
    return model

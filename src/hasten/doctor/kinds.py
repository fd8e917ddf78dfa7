"""What an expression is: a Keras model, a torch module, a tensor, an array, a session; None where nothing proves it.

``Names`` enters, ``Kinds.of(expression)`` answers. It follows assignments, tuples, ``self.x``, parameters (annotation,
else what the file's own calls pass), local functions' returns and local classes' bases. Where two roads disagree the
answer is None: a rule fires on evidence alone.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from hasten.doctor import makers
from hasten.doctor.flow import reaching
from hasten.doctor.names import SCOPES, Binding, Function, Names, Scope

__all__ = ["Kind", "Kinds"]

_DEPTH = 12  # assignments and calls followed before giving up


@dataclass(frozen=True)
class Kind:
    """What a thing is, and the local class it is an instance of where there is one."""

    name: str
    made: ast.Call | None = None
    """The call that made it, where that was seen."""
    local: ast.ClassDef | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Kinds:
    """The kinds of one file's expressions, each worked out once."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._known: dict[tuple[ast.AST, tuple[int, ...]], Kind | None] = {}
        self._open: set[tuple[ast.AST, tuple[int, ...]]] = set()
        self._class_kinds: dict[ast.ClassDef, str] = {}
        self._callers: dict[str, list[ast.Call]] | None = None
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
        if isinstance(node, ast.Await):
            return None
        if isinstance(node, ast.IfExp):
            return _agree([self.of(v) for v in (node.body, node.orelse) if not _nothing(v)])
        if isinstance(node, ast.BoolOp):
            return _agree([self.of(v) for v in node.values])
        if isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Compare)):
            return self._operator(node)
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        return None

    def _operator(self, node: ast.BinOp | ast.UnaryOp | ast.Compare) -> Kind | None:
        if isinstance(node, ast.BinOp):
            parts: list[ast.expr] = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            parts = [node.operand]
        else:
            parts = [node.left, *node.comparators]
        kinds = [self.of(p) for p in parts]
        for wanted in (makers.TORCH_TENSOR, makers.TF_TENSOR, makers.NUMPY):
            if any(k is not None and k.name == wanted for k in kinds):
                return Kind(wanted)
        if kinds and all(k is not None and k.name == makers.NUMBER for k in kinds):
            return Kind(makers.NUMBER)
        return None

    def _subscript(self, node: ast.Subscript) -> Kind | None:
        kind = self.of(node.value)
        if kind is not None and kind.name in (makers.TORCH_TENSOR, makers.TF_TENSOR, makers.NUMPY):
            return Kind(kind.name)
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
            return self.of(node.value, (node.slice.value,))
        return None

    def _element_of_tuple(self, node: ast.AST, path: tuple[int, ...]) -> Kind | None:
        if isinstance(node, (ast.Tuple, ast.List)):
            index = path[0]
            return self.of(node.elts[index], path[1:]) if -len(node.elts) <= index < len(node.elts) else None
        if isinstance(node, ast.Call):
            function = self.function_of_call(node)
            if function is not None:
                return self._returned(function, path)
        return None

    # -- names and attributes ----------------------------------------------------------------------------------------

    def _name(self, node: ast.Name) -> Kind | None:
        scope, bindings = self.names.find(node.id, node)
        if scope is None:
            return None
        if scope is self.names.scope_of(node) and not isinstance(scope.node, ast.Module | ast.ClassDef):
            bindings = reaching(node, bindings, self.names)
        elif scope is self.names.scope_of(node):
            bindings = reaching(node, bindings, self.names) or bindings
        return self._merge(bindings) or self._by_use(node.id, scope, bindings)

    def _by_use(self, written: str, scope: Scope | ast.ClassDef | None, bindings: list[Binding]) -> Kind | None:
        """A model made elsewhere, known by its use: ``net.parameters()``, ``model.compile(loss=…)``."""
        if any(self._bound(b) is not None for b in bindings):
            return None
        used = self._uses().get((written, scope))
        if used is None:
            return None
        made = next((b.value for b in reversed(bindings) if b.role == "value" and isinstance(b.value, ast.Call)), None)
        return Kind(used, made if isinstance(made, ast.Call) else None)

    def _uses(self) -> dict[tuple[str, Scope | ast.ClassDef | None], str]:
        if self._used is None:
            self._used = {}
            for node in self.names.nodes:
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    kind = makers.kind_by_use(node, self.names.roots)
                    written = self.names.dotted(node.func.value) if kind else ""
                    if written and "." not in written:
                        self._used[written, self.names.find(written, node)[0]] = kind
                    elif written.startswith("self.") and written.count(".") == 1:
                        self._used[written, self.names._class_around(self.names.scope_of(node))] = kind
        return self._used

    def _merge(self, bindings: list[Binding]) -> Kind | None:
        kinds = []
        for binding in bindings:
            if binding.role in ("value", "other") and _nothing(binding.value) and binding.value is not None:
                continue
            if binding.role == "other" and isinstance(binding.node, ast.AugAssign):
                continue
            kinds.append(self._bound(binding))
        return _agree(kinds)

    def _bound(self, binding: Binding) -> Kind | None:
        if binding.role == "value":
            annotated = self._annotation(binding.node)
            return self.of(binding.value, binding.path) or annotated
        if binding.role == "element":
            return self._element(binding.value, binding.path)
        if binding.role == "parameter":
            return self._parameter(binding)
        if binding.role == "other" and isinstance(binding.node, (ast.With, ast.AsyncWith)):
            return self.of(binding.value)
        if binding.role == "function" and isinstance(binding.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return self._decorated(binding.node)
        return None

    def _annotation(self, node: ast.AST) -> Kind | None:
        return self._annotated(node.annotation) if isinstance(node, ast.AnnAssign) else None

    def _annotated(self, annotation: ast.expr | None) -> Kind | None:
        """``tf.keras.Model``, ``Optional[nn.Module]``, ``"nn.Module"``, ``nn.Module | None``, a local class."""
        if annotation is None:
            return None
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                parsed = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                return None
            for inner in ast.walk(parsed):
                self.names.scopes[inner] = self.names.scope_of(annotation)
            return self._annotated(parsed)
        if isinstance(annotation, ast.Subscript):
            outer = self.names.dotted(annotation.value).rsplit(".", 1)[-1]
            return (
                self._annotated(annotation.slice) if outer in ("Optional", "Annotated", "Final", "ClassVar") else None
            )
        if isinstance(annotation, ast.BinOp):
            return _agree([self._annotated(s) for s in (annotation.left, annotation.right) if not _nothing(s)])
        name = self.names.qualified(annotation)
        if name in makers.ANNOTATIONS:
            return Kind(makers.ANNOTATIONS[name])
        made = makers.made_by_class(name)
        if made:
            return Kind(made)
        local = self.class_of_name(annotation)
        return Kind(self.class_kind(local), None, local) if local is not None else None

    def _parameter(self, binding: Binding) -> Kind | None:
        annotated = self._annotated(binding.value)
        if annotated is not None or binding.function is None or isinstance(binding.function, ast.Lambda):
            return annotated
        return _agree([self.of(a) for a in self.arguments_passed(binding.function, binding.name)])

    def _element(self, iterable: ast.expr | None, path: tuple[int, ...]) -> Kind | None:
        """What a loop target is, from what is looped over."""
        while isinstance(iterable, ast.Call) and iterable.args:
            called = self.names.dotted(iterable.func).rsplit(".", 1)[-1]
            if called == "enumerate" and path:
                if path[0] == 0:
                    return Kind(makers.NUMBER)
                path = path[1:]
            elif self.names.dotted(iterable.func) == "range":
                return Kind(makers.NUMBER)
            elif called == "zip" and path and path[0] < len(iterable.args):
                iterable, path = iterable.args[path[0]], path[1:]
                continue
            elif called not in ("tqdm", "trange", "list", "iter", "reversed", "sorted", "track", "islice"):
                break
            iterable = iterable.args[0]
        if isinstance(iterable, ast.Call) and self.names.dotted(iterable.func) == "range":
            return Kind(makers.NUMBER)
        kind = self.of(iterable)
        if kind is None:
            return None
        element = makers.ELEMENTS.get(kind.name)
        return Kind(element) if element and not (element == makers.NUMPY and path) else None

    def _attribute(self, node: ast.Attribute) -> Kind | None:
        owner = self._owner(node.value)
        if owner is not None:
            found = self._attribute_of_class(owner, node.attr, 0)
            if found is None and isinstance(node.value, ast.Name) and node.value.id == "self":
                bindings = self.names.attributes.get(owner, {}).get(node.attr, [])
                found = self._by_use(f"self.{node.attr}", owner, bindings)
            if found is not None:
                return found
        base = self.of(node.value)
        if base is None:
            return None
        if node.attr == "module" and base.name == makers.TORCH_MODULE:
            return Kind(makers.TORCH_MODULE)
        if node.attr in ("T", "data", "grad", "real", "imag", "values", "indices") and base.name in makers.TENSORS:
            return Kind(base.name)
        if node.attr in ("logits", "last_hidden_state", "pooler_output", "loss") and base.name == makers.TORCH_TENSOR:
            return Kind(makers.TORCH_TENSOR)
        return None

    def _owner(self, node: ast.AST) -> ast.ClassDef | None:
        if isinstance(node, ast.Name) and node.id in ("self", "cls"):
            return self.names._class_around(self.names.scope_of(node))
        kind = self.of(node)
        return kind.local if kind is not None else None

    def _attribute_of_class(self, owner: ast.ClassDef, attr: str, depth: int) -> Kind | None:
        bindings = self.names.attributes.get(owner, {}).get(attr, [])
        declared = self.names.own_scope(owner).names.get(attr, [])
        if bindings or declared:
            values = [b for b in (*bindings, *declared) if not (isinstance(b.node, ast.AnnAssign) and b.value is None)]
            annotated = [self._annotation(b.node) for b in (*bindings, *declared)]
            return self._merge(values) or _agree([k for k in annotated if k is not None])
        for base in owner.bases if depth < 4 else ():
            local = self.class_of_name(base)
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
        local = self.class_of_name(node.func)
        if local is not None:
            return Kind(self.class_kind(local), node, local)
        function = self.function_of_call(node)
        if function is not None:
            decorated = self._decorated(function)
            if decorated is not None and decorated.name == makers.TF_FUNCTION:
                return Kind(makers.TF_TENSOR)
            return self._returned(function, ())
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        called = self.of(node.func)
        result = makers.CALL_RESULTS.get(called.name) if called is not None else None
        return Kind(result) if result else None

    def _wrapped(self, node: ast.Call, default: str) -> Kind | None:
        if default == makers.TF_FUNCTION:
            return Kind(default, node)
        inner = self.of(node.args[0]) if node.args else None
        if inner is not None and inner.name in (makers.TORCH_MODULE, makers.KERAS_MODEL):
            return Kind(inner.name, inner.made, inner.local)
        return Kind(default, node) if default else None

    def _method(self, node: ast.Call, func: ast.Attribute) -> Kind | None:
        owner = self.class_of_name(func.value)
        if owner is not None and func.attr in makers.CLASS_MAKERS:
            return Kind(self.class_kind(owner), node, owner)
        receiver = self.of(func.value)
        if receiver is None:
            attribute = self.of(func)
            result = makers.CALL_RESULTS.get(attribute.name) if attribute is not None else None
            return Kind(result) if result else None
        if func.attr in makers.SAME_KIND.get(receiver.name, ()):
            return receiver
        result = makers.METHOD_RESULTS.get((receiver.name, func.attr))
        if result is None and receiver.name in makers.TENSORS and func.attr not in makers.NOT_TENSORS:
            result = receiver.name
        if result is None:
            attribute = self.of(func)
            result = makers.CALL_RESULTS.get(attribute.name) if attribute is not None else None
        return Kind(result) if result else None

    def _decorated(self, function: Function) -> Kind | None:
        for decorator in function.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.names.qualified(target) == "tensorflow.function":
                return Kind(makers.TF_FUNCTION, decorator if isinstance(decorator, ast.Call) else None)
        return None

    def _returned(self, function: Function, path: tuple[int, ...]) -> Kind | None:
        returns = [r for r in self.returns(function) if r is not None and not _nothing(r)]
        return _agree([self.of(r, path) for r in returns]) or (None if path else self._annotated(function.returns))

    def returns(self, function: Function) -> list[ast.expr | None]:
        """What each ``return`` of a function gives, nested functions aside."""
        found: list[ast.expr | None] = []
        stack: list[ast.AST] = list(function.body)
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Return):
                found.append(node.value)
            elif not isinstance(node, SCOPES):
                stack.extend(ast.iter_child_nodes(node))
        return found

    # -- local functions and classes -----------------------------------------------------------------------------------

    def class_of_name(self, node: ast.AST) -> ast.ClassDef | None:
        """The class of this file that a name refers to."""
        if not isinstance(node, ast.Name):
            return None
        _, bindings = self.names.find(node.id, node)
        if len(bindings) == 1 and isinstance(bindings[0].node, ast.ClassDef):
            return bindings[0].node
        return None

    def class_kind(self, node: ast.ClassDef) -> str:
        """What instances of a local class are: the kind of its bases, else ``object``."""
        if node not in self._class_kinds:
            self._class_kinds[node] = makers.OBJECT
            for base in node.bases:
                local = self.class_of_name(base)
                name = self.class_kind(local) if local is not None else makers.base_kind(self.names.qualified(base))
                if name and name != makers.OBJECT:
                    self._class_kinds[node] = name
                    break
        return self._class_kinds[node]

    def function_of_call(self, node: ast.Call) -> Function | None:
        """The function or method of this file that a call runs."""
        if isinstance(node.func, ast.Name):
            return self.function_named(node.func)
        if isinstance(node.func, ast.Attribute):
            owner = self._owner(node.func.value)
            return self.method(owner, node.func.attr) if owner is not None else None
        return None

    def function_named(self, node: ast.AST) -> Function | None:
        """The function of this file that a name refers to."""
        if not isinstance(node, ast.Name):
            return None
        _, bindings = self.names.find(node.id, node)
        found = bindings[0].node if len(bindings) == 1 else None
        return found if isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)) else None

    def method(self, owner: ast.ClassDef, name: str, depth: int = 0) -> Function | None:
        """The method of that name, of the class or a base in this file."""
        for item in owner.body:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and item.name == name:
                return item
        for base in owner.bases if depth < 4 else ():
            local = self.class_of_name(base)
            found = self.method(local, name, depth + 1) if local is not None else None
            if found is not None:
                return found
        return None

    def callers(self, function: Function) -> list[ast.Call]:
        """The calls of this file that run ``function``."""
        if self._callers is None:
            self._callers = {}
            for node in self.names.nodes:
                if isinstance(node, ast.Call):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    self._callers.setdefault(name, []).append(node)
        owner = self.names.parents.get(function)
        name = function.name
        if name == "__init__" and isinstance(owner, ast.ClassDef):
            return [c for c in self._callers.get(owner.name, []) if self.class_of_name(c.func) is owner]
        return [c for c in self._callers.get(name, []) if self.function_of_call(c) is function]

    def arguments_passed(self, function: Function, name: str) -> list[ast.expr]:
        """What the file's own calls pass for one parameter."""
        positional = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        bound = isinstance(self.names.parents.get(function), ast.ClassDef) and not any(
            self.names.dotted(d) == "staticmethod" for d in function.decorator_list
        )
        passed: list[ast.expr] = []
        for call in self.callers(function):
            value = next((k.value for k in call.keywords if k.arg == name), None)
            if value is None and name in positional:
                index = positional.index(name) - bound
                starred = any(isinstance(a, ast.Starred) for a in call.args[: index + 1])
                value = call.args[index] if 0 <= index < len(call.args) and not starred else None
            if value is not None:
                passed.append(value)
        return passed


def _agree(kinds: list[Kind | None]) -> Kind | None:
    """The one kind all have; None where one is unknown or two differ."""
    if not kinds or any(k is None or k != kinds[0] for k in kinds):
        return None
    return next((k for k in kinds if k is not None and (k.local or k.made)), kinds[0])


def _nothing(node: ast.AST | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)

"""Where a file runs torch models for their answers, not to train them. Shared by the eval and no_grad rules.

Evidence: the file loads weights and trains nothing; or the function is an evaluation by its name, takes no step, and
turns the outputs into numbers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.names import Function
from hasten.doctor.rule import keyword
from hasten.doctor.samples import value_of
from hasten.doctor.weights import has_weights, is_given_weights, is_meant

__all__ = [
    "answers",
    "is_covered",
    "is_loaded_here",
    "leading_to",
    "loads_own",
    "loads_weights",
    "model_run",
    "own_calls",
    "runs_here",
]

_EVALUATES = re.compile(
    r"(^|_)(validate|validation|evaluate|evaluation|eval|test|predict|infer|inference|serve|score|classify)(_|$)"
)
_GRADIENTS = re.compile(
    r"requires_grad(_\(\)|_\(True\)|\s*=\s*True)|retain_grad|register_full_backward|GradCAM|\bforces\b|compute_force|=\s*\w+\.requires_grad\b"
)
# What these repositories' hubs give is in eval mode, and switches gradients off itself.
_OWN_CARE = re.compile("yolo|ultralytics|silero")
# Repositories of torch.hub whose models are networks with weights; others may give mere feature extractors.
_HUBS = re.compile("pytorch/|facebookresearch/|intel-isl/|isl-org/|nvidia/|huggingface/|mateuszbuda/|rwightman/")
_TRAINING = (
    ".backward(",
    "optim.",
    "Trainer(",
    "autograd.grad",
    "Accelerator(",
    ".training_step",
    "create_optimizer",
    "GradScaler",
)
_MADE_UP = frozenset(f"torch.{f}" for f in ("randn", "rand", "zeros", "ones", "randint"))
_TRAINS = re.compile(r"(^|_)train(ing)?(_|$)")
_CONVERTS = re.compile(r"(^|_)(convert|export|port)(_|$)")
_STEPS = frozenset(("backward", "step", "zero_grad", "grad", "train_step", "fit"))
_NUMBERS = frozenset(("item", "tolist", "numpy", "argmax", "topk", "softmax", "sigmoid", "max", "detach", "eq"))
_PLAIN = frozenset(("item", "tolist", "numpy"))
_WEIGHTS = ("load_state_dict", "from_pretrained", "load_from_checkpoint", "load_weights", "load_checkpoint")


def answers(scope: ast.AST, code: Code) -> Iterator[ast.Call]:
    """The runs of torch models in a function (or the module's own lines) that are inference."""
    if not isinstance(scope, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)) or not _may_be(scope, code):
        return
    for call in own_calls(_own_part(scope, code)):
        if (
            model_run(call, code)
            and _is_known(call, code)
            and not _is_for_loss(call, code)
            and not _is_run_to_train(scope, code)
            and not _is_trial(call, code)
            and not _takes_no_tensor(call, code)
            and (code.mentions(*_TRAINING) or is_meant(call, code))
        ):
            yield call


def _own_part(scope: ast.Module | Function, code: Code) -> ast.Module | Function:
    """The lines that can be inference: in a script that trains, those after the weights are read back in."""
    trains = isinstance(scope, ast.Module) and code.mentions(*_TRAINING)
    return ast.Module(_after_reload(scope.body), []) if trains else scope


def _after_reload(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements after the last `load_state_dict`, where nothing trains any more; none without one."""
    start = len(body)
    for place, statement in enumerate(body):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        attributes = {n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
        if attributes & _STEPS:
            start = len(body)
        elif attributes & set(_WEIGHTS[:1]):
            start = place + 1
    return body[start:]


def _is_trial(call: ast.Call, code: Code) -> bool:
    """True for one run on random numbers that nothing times: a module's own lines show the shapes of its outputs."""
    loop = code.loop(call)
    each = loop is not None and isinstance(call.func, ast.Name) and bool(code.bound_in(call.func, loop))
    timed = code.imports("time", "timeit") and not _is_demonstration(call, code)
    if (loop is not None and not each) or timed:
        return False  # (each round tries another model)
    inputs = [value_of(a, code) for a in call.args[:1]]  # (what goes with it may be as made up)
    made = [_origin(i) for i in inputs if i is not None]
    if _is_untrained(call, code):
        return True
    made_up = bool(made) and all(m is not None and code.qualified(m.func) in _MADE_UP for m in made)
    return made_up and not (has_weights(call, code) and _is_read(call, code))


def _is_read(call: ast.Call, code: Code) -> bool:
    """True where an answer becomes classes or numbers: more than its shape is looked at."""
    parent, statement = code.parent(call), code.statement(call)
    if isinstance(parent, ast.Attribute) and parent.attr in _NUMBERS:
        return True
    if not isinstance(statement, ast.Assign) or statement.value is not call:
        return False
    names = {t.id for t in statement.targets if isinstance(t, ast.Name)}
    calls = (c for c in own_calls(code.function(call) or code.tree) if isinstance(c.func, ast.Attribute))
    read = ([c.func.value, *c.args[:1]] for c in calls if c.func.attr in _NUMBERS)  # type: ignore[attr-defined]
    return any(isinstance(v, ast.Name) and v.id in names for values in read for v in values)


def _is_demonstration(call: ast.Call, code: Code) -> bool:
    """True beneath `if __name__ == "__main__"` in the file that defines the network: how it is called, and its size."""
    guards = (a.test for a in code.ancestors(call) if isinstance(a, ast.If))
    classes = (n for n in code.names.nodes if isinstance(n, ast.ClassDef))
    defines = any(code.definitions.class_kind(c) == makers.TORCH_MODULE for c in classes)
    return defines and any("__name__" in ast.unparse(g) for g in guards)


def _takes_no_tensor(call: ast.Call, code: Code) -> bool:
    """True for a model given arrays, texts or a list of them: that is a wrapper, and sees to modes and gradients."""
    data = value_of(call.args[0], code) if call.args else None
    first = data.elts[0] if isinstance(data, ast.List) and data.elts else None
    return any(_is_text(d) or (d is not None and code.is_a(d, makers.NUMPY)) for d in (data, first))


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_untrained(call: ast.Call, code: Code) -> bool:
    """True for a network of this file that is made where it runs, and that nothing gives weights to."""
    kind = code.runs_model(call)
    if kind is None or kind.local is None or kind.made is None or not isinstance(call.func, ast.Name):
        return False
    if kind.made.args or kind.made.keywords or code.function(kind.made) is not code.function(call):
        return False
    name = call.func.id
    named = (n for c in own_calls(code.function(call) or code.tree) for n in ast.walk(c) if isinstance(n, ast.Name))
    return all(n is call.func for n in named if n.id == name)


def _origin(node: ast.expr) -> ast.Call | None:
    """The ``torch.randn(…)`` of ``torch.randn(…).to(device)`` and of ``Variable(torch.randn(…))``."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
            node = node.func.value
        elif getattr(node.func, "id", getattr(node.func, "attr", "")) == "Variable" and node.args:
            node = node.args[0]
        else:
            return node
    return None


def _is_known(call: ast.Call, code: Code) -> bool:
    """True when the file makes the model, or calls this function itself: else other files may see to it."""
    kind = code.runs_model(call)
    function = code.function(call)
    made = kind is not None and (kind.local is not None or (kind.made is not None and _is_named(kind.made, call, code)))
    return made or (function is not None and runs_here(function, code))


def _is_named(made: ast.Call, run: ast.Call, code: Code) -> bool:
    """False for a method's model whose class stands in a variable: a part of something larger, seen to elsewhere."""
    if code.klass(run) is None or not isinstance(made.func, ast.Name):
        return True
    return all(b.role in ("import", "class", "function") for b in code.names.find(made.func.id, made.func)[1])


def _is_run_to_train(scope: ast.Module | Function, code: Code) -> bool:
    """True for a function that a training step of the file runs: its gradients are wanted there."""
    callers = [] if isinstance(scope, ast.Module) else [code.function(c) for c in code.callers(scope)]
    return any(f is not None and _TRAINS.search(f.name) is not None for f in callers)


def _is_for_loss(call: ast.Call, code: Code) -> bool:
    """True for a model that is given the labels where nothing becomes a number: someone may train by its loss."""
    if keyword(call, "labels") is None:
        return False
    scope = code.function(call) or code.tree
    return not any(isinstance(c.func, ast.Attribute) and c.func.attr in _PLAIN for c in own_calls(scope))


def runs_here(function: Function, code: Code) -> bool:
    """True when the file's own lines lead to a function: from the module, or from a request handler."""
    for run in leading_to(function, code):
        if code.handler(run) is not None or any(code.function(c) is None for c in code.callers(run)):
            return True
    return False


def leading_to(function: Function, code: Code, depth: int = 4) -> list[Function]:
    """A function, those that call it, those that call these, and so on: each once, however many ways lead there."""
    known = code.fact(_followed)
    if function not in known:
        levels = known[function] = [[function]]
        while len(levels) < 5:
            outer = (code.function(c) for f in levels[-1] for c in code.callers(f))
            levels.append([f for f in dict.fromkeys(outer) if f is not None and all(f not in at for at in levels)])
    return [f for at in known[function][: depth + 1] for f in at]


def _followed(_: Code) -> dict[Function, list[list[Function]]]:
    return {}


def model_run(call: ast.Call, code: Code) -> bool:
    """True when the call runs a torch model that is no layer of another."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "generate":
        return False  # transformers' generate switches gradients off itself
    if _replaces_itself(call, code):
        return False
    if keyword(call, "training") is not None:
        return False  # that is how Keras is called: a class may keep a model of either framework under one name
    kind = code.runs_model(call)
    if kind is None or kind.name != makers.TORCH_MODULE:
        return False
    name = code.qualified(kind.made.func) if kind.made is not None else ""
    if name == "torch.hub.load" and kind.made is not None and not _is_network(kind.made):
        return False
    if name == "torch.nn.Sequential" and kind.made is not None and _is_made_on_the_spot(kind.made, call, code):
        return False
    layer = name.startswith("torch.nn.") and name not in ("torch.nn.Sequential", "torch.nn.DataParallel")
    return not layer or is_given_weights(call, code)


def _replaces_itself(call: ast.Call, code: Code) -> bool:
    """True for `model = model(config)`: a class out of a registry, and what it makes takes its name."""
    statement = code.statement(call)
    targets = statement.targets if isinstance(statement, ast.Assign) and statement.value is call else []
    return isinstance(call.func, ast.Name) and any(isinstance(t, ast.Name) and t.id == call.func.id for t in targets)


def _is_network(loaded: ast.Call) -> bool:
    """True for what a known hub gives, unless it sees to modes and gradients itself."""
    written = ast.unparse(loaded).lower()
    return _HUBS.search(written) is not None and _OWN_CARE.search(written) is None


def _is_made_on_the_spot(made: ast.Call, run: ast.Call, code: Code) -> bool:
    """True for layers put together by the very function that runs them, without weights: a step of a computation."""
    function = code.function(run)
    return function is not None and code.function(made) is function and not loads_own(function, code)


def own_calls(scope: ast.AST) -> Iterator[ast.Call]:
    """The calls of a function's own lines, nested functions and classes aside."""
    stack: list[ast.AST] = list(reversed(scope.body))  # type: ignore[attr-defined]
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call):
            yield node
        stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _may_be(scope: ast.Module | Function, code: Code) -> bool:
    if code.in_layer(scope) or code.in_class_of(scope, makers.TORCH_DATASET):
        return False
    if not isinstance(scope, ast.Module) and _is_part_of_network(scope, code):
        return False
    if code.mentions("onnx.export", "jit.trace", "torch.export", "dynamo_export", "export_onnx", "to_onnx"):
        return False  # a converter runs the model once, to see its shapes
    if not isinstance(scope, ast.Module) and (scope.name == "forward" or _TRAINS.search(scope.name)):
        return False  # a wrapper hands the run on, and who calls it may train by it; or it trains itself
    if not isinstance(scope, ast.Module) and _CONVERTS.search(scope.name):
        return False  # it runs both models once, to compare
    if not code.mentions(*_TRAINING):
        return loads_weights(code) and not _wants_gradients(code) and not _is_loss(scope)
    if isinstance(scope, ast.Module):
        scope = ast.Module(_after_reload(scope.body), [])
    elif not (_EVALUATES.search(scope.name.lower()) or loads_own(scope, code)):
        return False
    attributes = {n.attr for n in ast.walk(scope) if isinstance(n, ast.Attribute)}
    return not attributes & _STEPS and bool(attributes & _NUMBERS) and not _wants_gradients(code)


def _is_part_of_network(scope: Function, code: Code) -> bool:
    """True for what a network's own methods call, or make objects of: its gradients are the network's."""
    level, seen = [scope], {scope}  # each function once: names are called from many places
    for _ in range(4):
        outside = []
        for inner in level:
            owner = code.klass(inner)
            made = code.calls_named(owner.name) if owner is not None else []
            for call in [*code.callers(inner), *made]:
                outer = code.function(call)
                if outer is None or outer is inner:
                    continue
                if code.in_layer(call):
                    return True
                if outer not in seen:
                    seen.add(outer)
                    outside.append(outer)
        level = outside
    return False


def _is_loss(scope: ast.Module | Function) -> bool:
    """True for a function that computes a loss and turns nothing into numbers: someone may train by it."""
    if isinstance(scope, ast.Module):
        return False
    called = [n.func for n in ast.walk(scope) if isinstance(n, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in called}
    return any("loss" in n.lower() or "entropy" in n or n == "criterion" for n in names) and not names & _PLAIN


def loads_own(scope: ast.AST, code: Code) -> bool:
    """True when the function itself loads the weights: it stands on its own, whatever the rest of the file does."""
    return any(
        isinstance(call.func, ast.Attribute)
        and (call.func.attr in _WEIGHTS or code.qualified(call.func) in ("torch.load", "torch.jit.load"))
        for call in own_calls(scope)
    )


def is_loaded_here(run: ast.Call, code: Code) -> bool:
    """True where the function that runs a model, or a method of its class, loads the weights."""
    function, owner = code.function(run), code.klass(run)
    methods = [n for n in owner.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))] if owner else []
    return any(loads_own(f, code) for f in (function, *methods) if f is not None)


def loads_weights(code: Code) -> bool:
    """True when trained weights enter the file: what runs here is meant to answer."""
    return code.fact(_loads_weights)


def _loads_weights(code: Code) -> bool:
    if code.calls_named(*_WEIGHTS):
        return True
    for call in code.calls_named("load"):
        if code.qualified(call.func) in ("torch.load", "torch.jit.load", "torch.hub.load"):
            return True
    for call in code.calls:
        value = keyword(call, "pretrained") or keyword(call, "weights")
        plain = isinstance(value, ast.Constant) and value.value in (None, False)
        if value is not None and not plain and code.is_a(call, makers.TORCH_MODULE):
            return True
    return False


def _wants_gradients(code: Code) -> bool:
    return code.finds(_GRADIENTS)


def is_covered(call: ast.AST, code: Code, marks: tuple[str, ...]) -> bool:
    """True when the call, its function, or one that calls it stands under one of ``marks`` (a context or a call)."""
    function = code.function(call)
    if _is_marked(call, code, marks):
        return True
    leading = leading_to(function, code, 2) if function is not None else []
    callers = (c for f in leading for c in code.callers(f) if code.function(c) is not f)
    return any(_is_marked(c, code, marks) for c in callers)


def _is_marked(call: ast.AST, code: Code, marks: tuple[str, ...]) -> bool:
    for around in code.ancestors(call):
        if isinstance(around, (ast.With, ast.AsyncWith)) and any(_named(i.context_expr, marks) for i in around.items):
            return True
        decorators = getattr(around, "decorator_list", ())
        if any(_named(d, marks) for d in decorators):
            return True
    scope: ast.AST = code.function(call) or code.tree
    # A `with` covers what stands in it; a call anywhere else may switch for all that follows.
    if any(_named(c, marks) and not isinstance(code.parent(c), ast.withitem) for c in own_calls(scope)):
        return True
    owner = None if isinstance(scope, ast.Module) else code.klass(scope)
    return owner is not None and any(_named(c, marks) for c in ast.walk(owner) if isinstance(c, ast.Call))


def _named(node: ast.AST, marks: tuple[str, ...]) -> bool:
    """True when an expression is, or calls, something of that name."""
    if isinstance(node, ast.Call):
        node = node.func
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) in marks

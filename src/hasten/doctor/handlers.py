"""Which functions answer requests: routes, servicers' methods, serving classes' predict, cloud functions, tasks of a
queue, subscribers of a topic, and what a Gradio page runs at each click."""

from __future__ import annotations

import ast
import re

from hasten.doctor import makers
from hasten.doctor.kinds import Kinds
from hasten.doctor.names import Function
from hasten.doctor.words import words

__all__ = ["ONCE", "is_handler"]

ONCE = words("__init__ setup load initialize startup on_startup lifespan load_model init warmup warm_up")
_ROUTES = words("route get post put patch delete websocket api_route api endpoint task on")
_BASES = re.compile(
    r"(Servicer|RequestHandler|BaseHTTPRequestHandler|Resource|APIView|MethodView|BaseHandler|LitAPI|BasePredictor"
    r"|HTTPEndpoint|ModelHandler)$"
)
_METHODS = words("get post put handle predict inference initialize_request do_GET do_POST execute")
_EVENTS = words("click submit change upload input select stop_recording stream")
_PAGES = frozenset(("gradio.Interface", "gradio.ChatInterface"))
_REGISTERS = words("Route add_url_rule add_api_route add_route add_get add_post add_put Subscriber create_subscription")
_VERBS = frozenset(f"aiohttp.web.{verb}" for verb in ("get", "post", "put", "patch", "delete", "route"))
_DECORATORS = frozenset(("celery.shared_task", "bentoml.api", "ray.serve.batch", "modal.method", "modal.web_endpoint"))


def is_handler(function: Function, kinds: Kinds) -> bool:
    """True for a function that a server calls once a request."""
    if function.name in ONCE:
        return False
    if any(_is_route(d, kinds) for d in function.decorator_list):
        return True
    if _is_registered(function, kinds) or ("paho" in kinds.names.roots and _is_told_messages(function, kinds)):
        return True
    owner = kinds.names.parents.get(function)
    if isinstance(owner, ast.ClassDef):
        return _is_serving_method(function, owner, kinds)
    arguments = [a.arg for a in function.args.args]
    if arguments == ["event", "context"] or ("gradio" in kinds.names.roots and _is_on_page(function, kinds)):
        return True
    return bool(arguments) and arguments[0] == "request" and bool(kinds.names.roots & {"django", "rest_framework"})


def _is_route(decorator: ast.expr, kinds: Kinds) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    if kinds.names.qualified(target) in _DECORATORS:
        return True
    return isinstance(target, ast.Attribute) and target.attr in _ROUTES and kinds.is_a(target.value, makers.WEB_APP)


def _is_registered(function: Function, kinds: Kinds) -> bool:
    """True for what a router is handed, `Route("/p", predict)`, or a topic's subscriber of ROS: `self.on_image`."""
    named = kinds.calls.by_last_name
    calls = [c for name in _REGISTERS for c in named.get(name, [])]
    verbs = (c for name in ("get", "post", "put", "patch", "delete", "route") for c in named.get(name, []))
    calls += [c for c in verbs if kinds.names.qualified(c.func) in _VERBS]
    return any(_means(given, function, kinds) for c in calls for given in (*c.args, *(k.value for k in c.keywords)))


def _is_told_messages(function: Function, kinds: Kinds) -> bool:
    """True for ``client.on_message = answer``, of MQTT."""
    assigned = (n for n in kinds.names.nodes if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Attribute))
    told = (n.value for n in assigned if getattr(n.targets[0], "attr", "") == "on_message")
    return any(_means(value, function, kinds) for value in told)


def _means(given: ast.expr, function: Function, kinds: Kinds) -> bool:
    """True for a function's own name, and for `self.` and a method's in its class."""
    if isinstance(given, ast.Attribute) and given.attr == function.name:
        return kinds.names.class_of_self(given.value) is kinds.names.parents.get(function)
    return (
        isinstance(given, ast.Name)
        and given.id == function.name
        and kinds.definitions.function_named(given) is function
    )


def _is_on_page(function: Function, kinds: Kinds) -> bool:
    """True for ``gr.Interface(fn=classify, …)`` and ``button.click(classify, picture, label)``."""
    return any(
        isinstance(run, ast.Name) and run.id == function.name
        for call in kinds.names.nodes
        if isinstance(call, ast.Call) and _is_event(call, kinds)
        for run in (*call.args[:1], *(k.value for k in call.keywords if k.arg == "fn"))
    )


def _is_event(call: ast.Call, kinds: Kinds) -> bool:
    if kinds.names.qualified(call.func) in _PAGES:
        return True
    named = {k.arg for k in call.keywords} & {"fn", "inputs", "outputs"}
    event = isinstance(call.func, ast.Attribute) and call.func.attr in _EVENTS
    return event and (bool(named) or len(call.args) > 1)


def _is_serving_method(function: Function, owner: ast.ClassDef, kinds: Kinds) -> bool:
    bases = [kinds.names.dotted(b) for b in owner.bases]
    if any(b.endswith("Servicer") for b in bases) and not function.name.startswith("_"):
        return True
    if owner.name == "TritonPythonModel" and function.name == "execute":
        return True
    return function.name in _METHODS and any(_serves(b, kinds) for b in bases)


def _serves(base: str, kinds: Kinds, depth: int = 4) -> bool:
    """True for a server's class by its name; of one that this file writes, its own bases say it."""
    local = next((n for n in kinds.names.nodes if isinstance(n, ast.ClassDef) and n.name == base), None)
    if local is None or not depth:
        return _BASES.search(base) is not None
    return any(_serves(kinds.names.dotted(b), kinds, depth - 1) for b in local.bases)

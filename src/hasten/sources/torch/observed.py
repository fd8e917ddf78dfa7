"""A module and one call of it enter; what the call did inside leaves: where it drew random numbers, what it ran."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["drawn_in", "operators"]


@dataclass
class _Seen:
    """The modules that are running, outermost first, and every operator with the module that ran it."""

    running: list[Any] = field(default_factory=list)
    ran: list[tuple[Any, Any]] = field(default_factory=list)


def drawn_in(module: Any, call: Callable[[], object]) -> str | None:
    """The first part of the module that draws random numbers, and by which operator; None where none is seen to."""
    import torch  # noqa: PLC0415 - heavy and optional

    seen = _observed(call)
    drew = next(((op, part) for op, part in seen.ran if torch.Tag.nondeterministic_seeded in op.tags), None)
    if drew is None:
        return None
    operator, part = drew
    by = f"which calls {_name(operator)}"
    if part is None or part is module:
        return f"the model's own forward, {by}"
    name = next((name for name, other in module.named_modules() if other is part), None)
    kind = type(part).__name__
    return f"module '{name}' ({kind}), {by}" if name else f"a module {kind}, {by}"


def operators(call: Callable[[], object]) -> frozenset[str]:
    """The names of torch's operators that the call ran, as ``"mm"``; as many as ran where it fails."""
    return frozenset(_name(operator) for operator, _ in _observed(call).ran)


def _observed(call: Callable[[], object]) -> _Seen:
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415 - heavy and optional

    seen = _Seen()

    class Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped here
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.ran.append((operator, seen.running[-1] if seen.running else None))
            return operator(*args, **(kwargs or {}))

    # What only explains a failure must not fail itself.
    with contextlib.suppress(Exception), _followed(seen), Recorder():
        call()
    return seen


@contextlib.contextmanager
def _followed(seen: _Seen) -> Iterator[None]:
    from torch.nn.modules import module as hooks  # noqa: PLC0415 - heavy and optional

    def enter(part: Any, *_: Any) -> None:
        seen.running.append(part)

    def leave(*_: Any) -> None:
        seen.running.pop()

    held = [
        hooks.register_module_forward_pre_hook(enter),
        hooks.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in held:
            handle.remove()


def _name(operator: Any) -> str:
    return str(operator._schema.name).rsplit("::", 1)[-1]

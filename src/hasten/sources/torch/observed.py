"""A module and one call of it enter; what the call did inside leaves: where it drew random numbers, what it ran."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["drawn_in", "operators", "read_in", "runs_complex"]


@dataclass
class _Seen:
    """The modules that are running, outermost first, and every operator with the module that ran it."""

    running: list[Any] = field(default_factory=list)
    ran: list[tuple[Any, Any]] = field(default_factory=list)
    read: tuple[Any, Any] | None = None
    complex: bool = False


class _Followed:
    """The memory that holds what was computed from some tensors; kept, so that none of it is used again."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._kept = [*tensors]
        self._places = {_place(t) for t in tensors}

    def reads(self, operator: Any, arguments: Sequence[Any]) -> bool:
        """Whether the operator hands Python a value of theirs."""
        return _name(operator) in _READERS and any(_place(a) in self._places for a in arguments)

    def follow(self, operator: Any, arguments: Sequence[Any], results: Sequence[Any]) -> None:
        """What an operator made of them, or wrote into, is theirs too; sizes and types are not."""
        if _name(operator) in _SHAPED or not any(_place(a) in self._places for a in arguments):
            return
        written = [a for a in arguments if operator._schema.is_mutable]
        self._kept += [*results, *written]
        self._places |= {_place(t) for t in (*results, *written)}


# Operators that end in a Python number or truth; and those whose results come from a tensor's shape alone.
_READERS = ("_local_scalar_dense", "is_nonzero", "equal", "allclose")
_SHAPED = ("empty_like", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full")


def drawn_in(module: Any, call: Callable[[], object]) -> str | None:
    """The first part of the module that draws random numbers, and by which operator; None where none is seen to."""
    import torch  # noqa: PLC0415 - heavy and optional

    seen = _observed(call)
    drew = next(((op, part) for op, part in seen.ran if torch.Tag.nondeterministic_seeded in op.tags), None)
    if drew is None:
        return None
    return _told(module, *drew)


def _told(module: Any, operator: Any, part: Any) -> str:
    by = f"which calls {_name(operator)}"
    if part is None or part is module:
        return f"the model's own forward, {by}"
    name = next((name for name, other in module.named_modules() if other is part), None)
    kind = type(part).__name__
    return f"module '{name}' ({kind}), {by}" if name else f"a module {kind}, {by}"


def read_in(module: Any, tensors: Sequence[Any]) -> str | None:
    """The first part that takes a Python value out of what it computed from ``tensors``, and by which operator.

    Such a value may decide what runs next, and a record of one run knows no other way.
    """
    seen = _observed(lambda: module(*tensors), _Followed(tensors))
    return None if seen.read is None else _told(module, *seen.read)


def operators(call: Callable[[], object]) -> frozenset[str]:
    """The names of torch's operators that the call ran, as ``"mm"``; as many as ran where it fails."""
    return frozenset(_name(operator) for operator, _ in _observed(call).ran)


def runs_complex(call: Callable[[], object]) -> bool:
    """Whether the call computes a complex number."""
    return _observed(call).complex


def _observed(call: Callable[[], object], followed: _Followed | None = None) -> _Seen:
    import torch  # noqa: PLC0415 - heavy and optional
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415 - heavy and optional

    seen = _Seen()

    class Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped here
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            part = seen.running[-1] if seen.running else None
            seen.ran.append((operator, part))
            result = operator(*args, **(kwargs or {}))
            seen.complex |= isinstance(result, torch.Tensor) and result.is_complex()
            if followed is not None:
                given, made = (
                    [t for t in torch.utils._pytree.tree_leaves(held) if isinstance(t, torch.Tensor)]
                    for held in ((args, kwargs), result)
                )
                if seen.read is None and followed.reads(operator, given):
                    seen.read = (operator, part)
                followed.follow(operator, given, made)
            return result

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


def _place(tensor: Any) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _name(operator: Any) -> str:
    return str(operator._schema.name).rsplit("::", 1)[-1]

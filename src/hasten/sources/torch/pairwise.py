"""Sums of products of three tensors or more, taken two at a time while a module is exported.

torch.export takes the batch for a constant where ``torch.einsum`` is given more than two tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["pairs", "products_in_pairs"]


def products_in_pairs() -> Any:
    """A context in which ``torch.einsum`` multiplies tensors two at a time."""
    import torch  # noqa: PLC0415 - heavy and optional
    from torch.overrides import TorchFunctionMode  # noqa: PLC0415 - heavy and optional

    class Pairs(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = list(args[1]) if len(args) == 2 and isinstance(args[1], (list, tuple)) else list(args[1:])
            steps = pairs(args[0]) if function is torch.functional.einsum and isinstance(args[0], str) else []
            if not steps or len(given) != len(steps) + 1:
                return function(*args, **(kwargs or {}))
            product = given[0]
            for step, factor in zip(steps, given[1:], strict=True):
                product = function(step, product, factor)
            return product

    return Pairs()


def pairs(equation: str) -> Sequence[str]:
    """Equations of two factors whose chain is this one of three or more; none where it leaves out what it means."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    factors = left.split(",")
    if not arrow or "." in equation or len(factors) < 3:
        return []
    steps, product = [], factors[0]
    for i, factor in enumerate(factors[1:], 1):
        wanted = set("".join((*factors[i + 1 :], result)))
        last = i == len(factors) - 1
        # A letter that stands twice in a factor is its diagonal; it stands once in what it becomes.
        kept = result if last else "".join(c for c in dict.fromkeys(product + factor) if c in wanted)
        steps.append(f"{product},{factor}->{kept}")
        product = kept
    return steps

"""A module whose outputs are whatever its author liked enters; one that returns a flat tuple of tensors leaves."""

from __future__ import annotations

from typing import Any

import torch

from hasten.errors import SourceError

__all__ = ["Flat", "flatten"]


class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Calls the module and returns its tensors in order: tuples, lists, dicts and output classes flattened."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Any) -> tuple[Any, ...]:
        """The module's tensors."""
        return flatten(self.module(*tensors))


def flatten(answer: Any) -> tuple[Any, ...]:
    """Every tensor of a nested answer; None is left out.

    Raises:  SourceError: it holds something else
    """
    if isinstance(answer, torch.Tensor):
        return (answer,)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(answer) if leaf is not None]
    other = next((leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)), None)
    if other is not None or not leaves:
        what = "nothing" if other is None else f"a {type(other).__name__}"
        raise SourceError(f"the module returns {what}: expected tensors, alone or in tuples, lists and dicts")
    return tuple(leaves)

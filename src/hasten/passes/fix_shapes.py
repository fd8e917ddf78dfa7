"""Sets the free dimensions asked for, everywhere, so that nothing about shapes is left to compute per call."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from hasten.graph import shapes
from hasten.passes import Pass
from hasten.passes.fold_constants import fold_constants

__all__ = ["fix_shapes"]


def fix_shapes(dims: Mapping[str, int]) -> Pass:
    """A pass that gives the named free dimensions these sizes.

    Example:
        >>> fix_shapes({"batch": 1}).name
        'fix shapes batch=1'
    """

    def apply(model: ir.Model) -> int:
        changed = shapes.fix(model, dims)
        if changed:
            while fold_constants.apply(model):
                shapes.infer(model)
        if not shapes.free_dims(model):
            shapes.complete(model)
        return changed

    listed = " ".join(f"{name}={size}" for name, size in dims.items())
    return Pass(f"fix shapes {listed}".strip(), apply, ensures="the named dimensions are numbers on every value")

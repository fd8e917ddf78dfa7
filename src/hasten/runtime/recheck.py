"""An artefact on another host, or made anew, answers the stored samples before it answers anyone else."""

from __future__ import annotations

import numpy as np

from hasten.bundle import Bundle
from hasten.errors import VerifyError
from hasten.runtime.lanes import Runner
from hasten.types import Array

__all__ = ["recheck"]


def recheck(bundle: Bundle, runner: Runner) -> None:
    """Returns when the runner's answers are the source's, within the tolerance that the bundle was made with.

    Raises:  VerifyError: they are not
    """
    from hasten.verify import Tolerance, compare  # noqa: PLC0415  (the usual load needs no check)

    checks = bundle.checks()
    if not checks:
        return
    batch = runner.artefact.candidate.batch
    rows = [spec.is_batched for spec in bundle.inputs], [spec.is_batched for spec in bundle.outputs]
    expected = [_tiled(outputs, rows[1], batch) for _, outputs in checks]
    received = []
    for inputs, _ in checks:
        found = runner.call(*_tiled(inputs, rows[0], batch))
        received.append(found if isinstance(found, tuple) else (found,))
    outcome = compare(expected, received, Tolerance(**bundle.tolerance) if bundle.tolerance else None)
    if not outcome.passed:
        raise VerifyError(f"its answers to the stored samples are wrong here: {outcome.reason}")


def _tiled(arrays: tuple[Array, ...], batched: list[bool], batch: int) -> tuple[Array, ...]:
    """The stored rows repeated up to the batch that this artefact was compiled for."""
    return tuple(
        np.ascontiguousarray(np.resize(a, (batch, *a.shape[1:]))) if cut and len(a) != batch else a
        for a, cut in zip(arrays, batched, strict=True)
    )

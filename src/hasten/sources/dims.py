"""Free dimensions: what the model leaves open and what the user said enter; specs with at most a batch left open leave.

Which leading dimension is a batch is never taken on trust: ``rows_independent`` runs the model on three rows together
and on each alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hasten.errors import HastenError, OpenShapeError, SourceError
from hasten.sources import SourceRequest
from hasten.types import Array, TensorSpec

__all__ = ["Resolution", "fitting", "fitting_shapes", "resolve", "rows_independent", "rows_mix"]

_ROWS = 3
_ANY = 100  # what a free dimension may be where only an example is wanted
# How far two sums of the same terms may lie apart, relative and of the largest answer; and how far they would have to
# be for rows to have mixed for sure, also where halves or bytes were rounded on the way.
_ROUNDING, _MIXING = (1e-3, 1e-4), (3e-2, 1e-2)
_BATCH_NAME = re.compile(r"unk__\d+|.*batch.*|n|b|bs|none|\?", re.IGNORECASE)
_STATE_BATCH_NAME = re.compile(r".*batch.*|n|b|bs", re.IGNORECASE)


@dataclass(frozen=True)
class Resolution:
    """What each free dimension of the inputs turned out to be."""

    inputs: tuple[TensorSpec, ...]
    """Free only in a leading dimension called ``"batch"``, and then only a proposal: see ``rows_independent``."""
    bound: Mapping[str, int] = field(default_factory=dict)
    """Numbers for the model's own dimension names."""
    batch_names: frozenset[str] = frozenset()
    """The model's own names of the dimension now called ``"batch"``."""
    rows: int = 1
    """What the batch becomes where the rows turn out to depend on one another."""
    certain: bool = True
    """False where nothing but its place says that the leading dimension is a batch."""

    def without_batch(self) -> Resolution:
        """The same with the batch fixed."""
        inputs = tuple(spec.fixed({"batch": self.rows}) for spec in self.inputs)
        return Resolution(inputs, {**self.bound, **dict.fromkeys(self.batch_names, self.rows)})


def resolve(declared: Sequence[TensorSpec], request: SourceRequest) -> Resolution:
    """Numbers for every free dimension but the batch, from the request's shapes first and its sample second.

    Shapes:  declared: a free dimension is its own name in the model, or an invented name unique to it
    Raises:  SourceError: a shape for no input, of the wrong rank, against a fixed dimension; a dimension left open
    """
    bound = _bind(declared, _given(declared, request))
    leading = _batch_names(declared, bound)
    rows = max((bound[name] for name in leading if name in bound), default=1)
    certain = all(name in bound or _BATCH_NAME.fullmatch(name) for name in leading)
    open_names = {d for s in declared for d in s.shape if isinstance(d, str)} - leading - bound.keys()
    numbers = {name: 1 for name in open_names if _STATE_BATCH_NAME.fullmatch(name)}
    numbers |= {name: number for name, number in bound.items() if name not in leading}
    fixed: dict[str, int | str] = {**numbers, **dict.fromkeys(leading, "batch")}
    inputs = tuple(
        TensorSpec(s.name, s.dtype, tuple(fixed.get(d, d) if isinstance(d, str) else d for d in s.shape))
        for s in declared
    )
    _refuse_open(declared, inputs)
    return Resolution(inputs, numbers, leading, rows, certain)


def rows_independent(run: Callable[[Sequence[Array]], Sequence[Array]], arrays: Sequence[Array]) -> bool:
    """True when ``run`` gives each of several rows the answer that the row gets alone.

    Shapes:  arrays: batched inputs with three rows; the others are shared by all rows and have any other shape
    """
    try:
        return _rows_agree(run, arrays, _ROUNDING)
    except HastenError:
        return False


def rows_mix(run: Callable[[Sequence[Array]], Sequence[Array]], arrays: Sequence[Array]) -> bool:
    """True when a row is seen to get another answer among others than alone; where ``run`` refuses, nothing is seen.

    Shapes:  as ``rows_independent``
    """
    try:
        return not _rows_agree(run, arrays, _MIXING)
    except HastenError:
        return False


def _rows_agree(
    run: Callable[[Sequence[Array]], Sequence[Array]], arrays: Sequence[Array], slack: tuple[float, float]
) -> bool:
    batched = [array.ndim > 0 and array.shape[0] == _ROWS for array in arrays]
    together = run(arrays)
    for row in range(_ROWS):
        alone = run([a[row : row + 1] if b else a for a, b in zip(arrays, batched, strict=True)])
        if not all(_same_row(t, a, row, slack) for t, a in zip(together, alone, strict=True)):
            return False
    return True


def _same_row(together: Array, alone: Array, row: int, slack: tuple[float, float]) -> bool:
    if together.ndim == 0 or alone.ndim == 0 or together.shape != (_ROWS, *alone.shape[1:]) or alone.shape[0] != 1:
        return False
    narrow = alone.dtype.name == "bfloat16"  # no number to numpy
    if not np.issubdtype(alone.dtype, np.number) and not narrow:
        return bool(np.array_equal(together[row], alone[0]))
    x, y = together[row].astype(np.complex128), alone[0].astype(np.complex128)
    scale = float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0))
    # A quantised output may round the other way; rows that mix differ by far more than one step.
    relative, of_scale = slack
    near = 1.0 if np.issubdtype(alone.dtype, np.integer) else of_scale * scale + 1e-6
    return bool(np.allclose(x, y, rtol=relative, atol=near, equal_nan=True))


def fitting_shapes(declared: Sequence[TensorSpec], request: SourceRequest) -> dict[str, tuple[int, ...]]:
    """The shapes that the user gave, by input.

    Raises:  SourceError: one is for no input, of another rank, or against a fixed dimension
    """
    names = [spec.name for spec in declared]
    for name in request.shapes:
        if name not in names:
            raise SourceError(f"shape given for unknown input '{name}': expected one of {', '.join(names)}")
    given = {name: tuple(shape) for name, shape in request.shapes.items()}
    for spec in declared:
        if spec.name in given:
            _check(spec, given[spec.name], in_sample=False)
    return given


def _given(declared: Sequence[TensorSpec], request: SourceRequest) -> dict[str, tuple[int, ...]]:
    given, names = fitting_shapes(declared, request), [spec.name for spec in declared]
    if request.sample is not None:
        if len(request.sample) != len(declared):
            raise SourceError(
                f"sample has {len(request.sample)} arrays: expected {len(declared)}, one for each of {', '.join(names)}"
            )
        for spec, array in zip(declared, request.sample, strict=True):
            if spec.name not in given:
                given[spec.name] = tuple(np.shape(array))
                _check(spec, given[spec.name], in_sample=True)
    return given


def _check(spec: TensorSpec, shape: tuple[int, ...], *, in_sample: bool) -> None:
    what = f"{'sample' if in_sample else 'shape'} {_text(shape)} does not fit input {spec}"
    if len(shape) != len(spec.shape):
        raise SourceError(f"{what}: expected {len(spec.shape)} dimensions, received {len(shape)}")
    for axis, (dim, number) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(dim, int) and dim != number:
            raise SourceError(f"{what}: expected {dim} in dimension {axis}, received {number}")
        if number < 1:
            raise SourceError(f"{what}: expected at least 1 in dimension {axis}, received {number}")


def _bind(declared: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    bound: dict[str, int] = {}
    for spec in declared:
        for dim, number in zip(spec.shape, given.get(spec.name, ()), strict=False):
            if isinstance(dim, str) and bound.setdefault(dim, number) != number:
                raise SourceError(
                    f"input '{spec.name}' has {number} for dimension '{dim}': "
                    f"expected {bound[dim]}, as in the inputs before it"
                )
    return bound


def _batch_names(declared: Sequence[TensorSpec], bound: Mapping[str, int]) -> frozenset[str]:
    leading = frozenset(s.shape[0] for s in declared if s.shape and isinstance(s.shape[0], str))
    # A name that also stands elsewhere (a state of [layers, batch, units]) is no batch that rows could be cut along,
    # and dimensions of unlike length are not one batch.
    inner = {d for s in declared for d in s.shape[1:] if isinstance(d, str)}
    lengths = {bound[name] for name in leading if name in bound}
    return frozenset() if leading & inner or len(lengths) > 1 else leading


def _refuse_open(declared: Sequence[TensorSpec], inputs: Sequence[TensorSpec]) -> None:
    still_open = [(d, s) for d, s in zip(declared, inputs, strict=True) if any(_free(dim) for dim in s.shape)]
    if not still_open:
        return
    ask = " ".join(f"--shape {s.name}={_text(_example(s.shape))}" for _, s in still_open)
    names = dict.fromkeys(str(dim) for _, s in still_open for dim in s.shape if _free(dim))
    first = still_open[0][0]
    raise OpenShapeError(
        f"input {first} leaves {_list(names)} open: expected a number for every dimension but the batch; "
        f"say it, for example {ask}",
        {s.name: _example(s.shape) for _, s in still_open},
    )


def fitting(dims: Sequence[int | None]) -> tuple[int, ...]:
    """A shape with numbers where there are none."""
    return tuple(_ANY if dim is None else dim for dim in dims)


def _free(dim: int | str) -> bool:
    return isinstance(dim, str) and dim != "batch"


def _example(shape: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else (1 if d == "batch" else _ANY) for d in shape)


def _text(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names)

"""Answers beside the source's.

Three things are held together: structure (count, shape and dtype of the outputs: always exact), the pattern of NaN and
infinities (always equal), and the numbers (within a ``Tolerance``, by cosine, by arg-max).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hasten.errors import SettingsError
from hasten.records import Comparison
from hasten.types import Array

__all__ = ["MOST_STEPS", "Tolerance", "compare"]

Float = NDArray[np.float64]
# One draw of roundings at the input stands for those of every layer, in another order.
_NOISE = 4.0
# Beyond this no answer of few bits is rounding.
MOST_STEPS = 10


@dataclass(frozen=True)
class Tolerance:
    """How far a number may lie from the source's: ``absolute × scale + relative × |expected|``.

    ``scale`` is the size of the output at hand (its largest finite magnitude, or the median of that over all checks
    where it is larger, never under 0.01): rounding errors grow with the terms that were summed, not with the sum, so a
    logit near zero among logits near 1,000 cannot be exact to 1e-5. The floor of 0.01 lets outputs that are small
    because large terms cancelled keep one float32 rounding of a term of size 1; a small output that is *wrong* is then
    caught by the cosine.

    Defaults: sums of a few thousand float32 products in another order differ by 1e-7 to 1e-6 of the largest term, and
    the approximations of exp and tanh in common engines by 5e-7; 1e-5 and 1e-4 leave room for deep and recurrent models
    and still reject reduced precision (bfloat16 errs by 4e-3, int8 by 1e-2).
    """

    absolute: float = 1e-5
    relative: float = 1e-4
    cosine: float = 0.9999
    integer: int = 0
    """Steps by which integer outputs may differ: 1 where they are quantised values, which round ties either way."""

    @staticmethod
    def uniform(value: float) -> Tolerance:
        """The tolerance of ``--tolerance value``: absolute and relative alike.

        Raises:  SettingsError: not a positive number
        """
        if not (np.isfinite(value) and value > 0):
            raise SettingsError(f"tolerance: expected a positive number such as 1e-3, received {value}")
        return Tolerance(value, value, cosine=1.0 - min(0.1, max(1e-4, value)))

    def for_source(self, computes_in: str, steps: int = 1, spread: float = 0.0) -> Tolerance:
        """This tolerance for a source that computes in "float32", "float16", "bfloat16" or "int8".

        Its own rounding is no fault of a candidate: ties between two integer steps go either way, and halves are
        summed in another order, or in float32. ``steps``: so many may answers of few bits be apart; ``spread``: its own
        float answers are so far apart, as a part of their largest, and a candidate's may be so far from either.
        """
        if computes_in == "int8":
            own = Tolerance.uniform(2 * spread) if spread > 0 else self
            return replace(
                self,
                integer=max(steps, self.integer),
                absolute=max(self.absolute, own.absolute),
                cosine=min(self.cosine, own.cosine),
            )
        rough = Tolerance.named(computes_in)
        return replace(
            self,
            absolute=max(self.absolute, rough.absolute),
            relative=max(self.relative, rough.relative),
            cosine=min(self.cosine, rough.cosine),
        )

    @staticmethod
    def structure() -> Tolerance:
        """Shapes, dtypes and the NaN pattern alone; for candidates that labelled data judges instead."""
        return Tolerance(1e300, 0.0, cosine=-1.0, integer=1 << 62)

    @staticmethod
    def named(precision: str) -> Tolerance:
        """What a precision is able to keep on a well-behaved model; used only where the user asks for it by name.

        Raises:  SettingsError: no such precision
        """
        if precision not in _NAMED:
            raise SettingsError(f"unknown tolerance '{precision}': expected a number or one of {', '.join(_NAMED)}")
        return _NAMED[precision]

    def for_dtype(self, dtype: np.dtype[Any]) -> Tolerance:
        """This tolerance where outputs of ``dtype`` can be held to it.

        An output dtype coarser than float32 cannot be closer than a few of its own steps. A float64 source was asked
        for float64 answers: the default tightens, a user's own tolerance stays as given.
        """
        if dtype.name in _STEP:
            step = 4 * _STEP[dtype.name]
            return replace(self, absolute=max(self.absolute, step), relative=max(self.relative, step))
        if dtype == np.float64 and self == replace(Tolerance(), integer=self.integer):
            return replace(self, absolute=1e-9, relative=1e-8)
        return self


_STEP = {"float16": 2.0**-10, "bfloat16": 2.0**-7}

# Half an 11-bit or 8-bit mantissa a product, a few dozen layers deep; of each tensor's range: int11 1/1023, int8 1/127.
_NAMED = {
    "float32": Tolerance(),
    "float16": Tolerance(2e-3, 1e-2, cosine=0.9995),
    "bfloat16": Tolerance(2e-2, 5e-2, cosine=0.998),
    "int11": Tolerance(1e-2, 2e-2, cosine=0.999),
    "int8": Tolerance(1e-1, 1e-1, cosine=0.98, integer=2),
}


@dataclass(frozen=True)
class _Errors:
    """The worst of one output on one check."""

    absolute: float = 0.0
    relative: float = 0.0
    cosine: float = 1.0
    agreement: float | None = None
    reason: str | None = None


def compare(
    expected: Sequence[Sequence[Array]],
    received: Sequence[Sequence[Array]],
    tolerance: Tolerance | None = None,
    check_names: Sequence[str] = (),
    nearby: Sequence[Sequence[Array]] = (),
) -> Comparison:
    """Whether every output of every check is the source's, and how far off the worst is.

    Where ``nearby`` is given, the source's answers to inputs one rounding away (``nearby_inputs``), an output may also
    differ by a few times what that changed, up to ten times the tolerance: nobody's rounding is better than that.

    Shapes:  all: one sequence of output arrays for each check
    Example:
        >>> compare([[np.float32([1, 2])]], [[np.float32([1, np.nan])]]).reason
        'output 0 on check 0: expected no NaN, received NaN in 1 of 2 places, first at (1,)'
    """
    used = tolerance or Tolerance()
    names = [f"'{n}'" for n in check_names] or [str(k) for k in range(len(expected))]
    errors: list[_Errors] = []
    if len(expected) != len(received):
        errors.append(_Errors(reason=f"expected answers to {len(expected)} checks, received {len(received)}"))
    if not expected:
        errors.append(_Errors(reason="nothing was checked: expected at least one check"))
    usual = _usual_scales(expected)
    for name, wanted, given, near in zip(names, expected, received, nearby or expected, strict=False):
        if len(wanted) != len(given):
            errors.append(_Errors(reason=f"check {name}: expected {len(wanted)} outputs, received {len(given)}"))
            continue
        for k, (e, r) in enumerate(zip(wanted, given, strict=True)):
            noise = _noise(np.asarray(e), np.asarray(near[k])) if nearby else 0.0
            where = f"output {k} on check {name}"
            errors.append(_compare_output(where, np.asarray(e), np.asarray(r), used, (usual[k], noise)))
    return _merge(errors, checked=min(len(expected), len(received)))


def _merge(errors: Sequence[_Errors], checked: int) -> Comparison:
    reasons = [e.reason for e in errors if e.reason]
    agreements = [e.agreement for e in errors if e.agreement is not None]
    return Comparison(
        passed=not reasons,
        checked=checked,
        max_abs_error=max((e.absolute for e in errors), default=0.0),
        max_rel_error=max((e.relative for e in errors), default=0.0),
        min_cosine=min((e.cosine for e in errors), default=1.0),
        argmax_agreement=float(np.mean(agreements)) if agreements else None,
        reason=reasons[0] + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "") if reasons else None,
    )


def _usual_scales(expected: Sequence[Sequence[Array]]) -> list[float]:
    count = max((len(group) for group in expected), default=0)
    return [float(np.median([_scale(np.asarray(g[k])) for g in expected if len(g) > k])) for k in range(count)]


def _scale(array: Array) -> float:
    if array.dtype.kind in "biuUSO":
        return 0.0
    values = np.abs(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))
    values = values[np.isfinite(values)]
    return float(values.max(initial=0.0))


def _noise(expected: Array, nearby: Array) -> float:
    """The largest change of an output of floats."""
    if expected.dtype.kind not in "fc" or expected.shape != nearby.shape:
        return 0.0
    with np.errstate(invalid="ignore"):
        return _scale(np.asarray(nearby, expected.dtype) - expected)


def _compare_output(
    where: str, expected: Array, received: Array, tolerance: Tolerance, sizes: tuple[float, float]
) -> _Errors:
    """``sizes``: what the output's magnitude usually is, and how much of it is rounding."""
    if expected.shape != received.shape:
        return _Errors(reason=f"{where}: expected shape {expected.shape}, received {received.shape}")
    if expected.dtype != received.dtype:
        return _Errors(reason=f"{where}: expected dtype {expected.dtype}, received {received.dtype}")
    if expected.size == 0:
        return _Errors()
    if expected.dtype.kind in "biu":
        return _compare_integers(where, expected, received, tolerance.integer)
    if expected.dtype.kind in "USO":
        same = bool(np.array_equal(expected, received))
        return _Errors(reason=None if same else f"{where}: expected equal strings, received other strings")
    return _compare_floats(where, expected, received, tolerance.for_dtype(expected.dtype), sizes)


def _compare_integers(where: str, expected: Array, received: Array, steps: int) -> _Errors:
    if np.array_equal(expected, received):
        return _Errors()
    # Python integers would be exact for uint64 too; float64 is, up to 2**53, and the gate below compares exactly
    off = np.abs(expected.astype(np.float64) - received.astype(np.float64))
    few_bits = expected.dtype.itemsize <= 2 or steps > MOST_STEPS  # wider integers count or index
    allowed = 0 if expected.dtype.kind == "b" else steps if few_bits else min(steps, 1)
    worst = np.unravel_index(int(np.argmax(off)), off.shape)
    bad = off > allowed if allowed else expected != received
    reason = None
    if bad.any():
        first = tuple(int(i) for i in (worst if bad[worst] else np.argwhere(bad)[0]))
        reason = f"{where}: at {first} expected {expected[first]}, received {received[first]}, allowed ±{allowed}"
    relative = float((off / np.maximum(np.abs(expected.astype(np.float64)), 1)).max())
    return _Errors(float(off.max()), relative, reason=reason)


def _compare_floats(
    where: str, expected: Array, received: Array, tolerance: Tolerance, sizes: tuple[float, float]
) -> _Errors:
    if expected.dtype.kind == "c":
        expected, received = (
            np.ascontiguousarray(v, np.complex128)[..., None].view(np.float64) for v in (expected, received)
        )
    e, r = expected.astype(np.float64), received.astype(np.float64)
    pattern = _pattern_reason(where, e, r)
    if pattern:
        return _Errors(absolute=float("inf"), relative=float("inf"), cosine=0.0, reason=pattern)
    finite = np.isfinite(e)
    if not finite.any():
        return _Errors()
    usual, noise = sizes
    scale = max(_scale(e), usual, 0.01)
    floor = tolerance.absolute * scale
    size, off = np.abs(np.where(finite, e, 0.0)), np.abs(np.where(finite, e - np.where(finite, r, 0.0), 0.0))
    allowed = floor + tolerance.relative * size
    allowed += min(_NOISE * noise, 9 * float(allowed.max()))
    cosine, agreement = _cosine(e[finite], r[finite]), _argmax_agreement(e, r, allowed)
    reason = None
    if (off > allowed).any():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(off / allowed)), off.shape))
        reason = f"{where}: at {at} expected {e[at]:.7g}, received {r[at]:.7g}, allowed ±{allowed[at]:.2g}"
    elif cosine < tolerance.cosine and size.max() > 10 * floor:
        reason = f"{where}: expected cosine at least {tolerance.cosine}, received {cosine:.5f}"
    elif agreement is not None and agreement < 1.0:
        reason = f"{where}: expected the same arg-max everywhere, received it in {agreement:.1%} of rows"
    relative = off / np.maximum(size, 1e-3 * scale)  # an error beside a zero is held against the output's size
    return _Errors(float(off.max()), float(relative.max()), cosine, agreement, reason)


def _pattern_reason(where: str, expected: Array, received: Array) -> str | None:
    tests: Sequence[tuple[str, Callable[[Array], Array]]] = (
        ("NaN", np.isnan),
        ("+Inf", lambda v: np.real(v) == np.inf),
        ("-Inf", lambda v: np.real(v) == -np.inf),
        ("Inf", np.isinf),
    )
    for name, test in tests:
        wanted, given = test(expected), test(received)
        if not np.array_equal(wanted, given):
            first = tuple(int(i) for i in np.argwhere(wanted != given)[0])
            count = f"{name} in {int(wanted.sum())} of {wanted.size} places" if wanted.any() else f"no {name}"
            seen = f"{name} in {int(given.sum())} of {given.size} places"
            return f"{where}: expected {count}, received {seen}, first at {first}"
    return None


def _cosine(expected: Float, received: Float) -> float:
    top = max(float(np.abs(expected).max(initial=0.0)), float(np.abs(received).max(initial=0.0)))
    if top == 0.0:
        return 1.0
    a, b = expected / top, received / top
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 0.0 if norms == 0.0 else float(np.clip(a @ b / norms, -1.0, 1.0))


def _argmax_agreement(expected: Float, received: Float, allowed: Float) -> float | None:
    """Share of rows (last axis) whose largest element is the same, ties within what both may err counting as same."""
    if expected.ndim == 0 or expected.shape[-1] < 2 or not np.isfinite(expected).all():
        return None
    e, r, a = (v.reshape(-1, v.shape[-1]) for v in (expected, received, allowed))
    rows, chosen = np.arange(len(e)), r.argmax(-1)
    top = e.argmax(-1)
    slack = a[rows, top] + a[rows, chosen]
    return float(np.mean(e[rows, chosen] >= e[rows, top] - slack))

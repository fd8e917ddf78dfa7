"""Operators on complex numbers that torch's exporter lacks or gets wrong, spelt out on real and imaginary parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["decompositions"]

# One product per choice of parts: more operands than this are left as they are.
_MOST_OPERANDS = 3


def decompositions() -> Mapping[Any, Callable[..., Any]]:
    """torch operator → the same in operators that the exporter knows; of real numbers each is left alone."""
    import torch  # noqa: PLC0415 - heavy and optional

    aten = torch.ops.aten
    return {
        aten.angle.default: _angle,
        aten.einsum.default: _einsum,
        aten.exp.default: _exp,
        aten.mul.Scalar: _times,
        aten.mul.Tensor: _times,
    }


def _parts(value: Any) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415 - heavy and optional

    both = torch.view_as_real(value)
    return both[..., 0], both[..., 1]


def _angle(x: Any) -> Any:
    import torch  # noqa: PLC0415 - heavy and optional

    if not x.is_complex():
        return NotImplemented
    real, imaginary = _parts(x)
    return torch.atan2(imaginary, real)


def _exp(x: Any) -> Any:
    import torch  # noqa: PLC0415 - heavy and optional

    if not x.is_complex():
        return NotImplemented
    real, imaginary = _parts(x)
    size = torch.exp(real)
    return torch.complex(size * torch.cos(imaginary), size * torch.sin(imaginary))


def _times(x: Any, factor: Any) -> Any:
    """By a complex number of Python's."""
    import torch  # noqa: PLC0415 - heavy and optional

    if not isinstance(factor, complex):
        return NotImplemented
    if not x.is_complex():
        return torch.complex(x * factor.real, x * factor.imag)
    real, imaginary = _parts(x)
    return torch.complex(real * factor.real - imaginary * factor.imag, real * factor.imag + imaginary * factor.real)


def _einsum(equation: str, operands: Any, *, path: Any = None) -> Any:
    """The product of sums, multiplied out: an even number of imaginary parts is real, two of them are a minus."""
    import torch  # noqa: PLC0415 - heavy and optional

    if len(operands) > _MOST_OPERANDS or not operands[0].is_complex():
        return NotImplemented
    choices = [_parts(operand) for operand in operands]
    sums: list[Any] = [None, None]
    for chosen in itertools.product(range(2), repeat=len(choices)):
        count = sum(chosen)
        term = torch.einsum(equation, *(choice[k] for choice, k in zip(choices, chosen, strict=True)))
        signed = -term if count in (2, 3) else term
        sums[count % 2] = signed if sums[count % 2] is None else sums[count % 2] + signed
    return torch.complex(*sums)

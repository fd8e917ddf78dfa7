"""ONNX nodes for torch's average pooling with ``divisor_override``, which its exporter leaves out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hasten.errors import SourceError

__all__ = ["avg_pool2d", "avg_pool3d"]


def avg_pool2d(
    self: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean over windows, or their sum over ``divisor_override``.

    Shapes:  self (…, H, W) · returns (…, H', W')
    Raises:  SourceError: ceil_mode with a divisor, where H or W is not known
    """
    from onnxscript.function_libs.torch_lib.ops.nn import aten_avg_pool2d  # noqa: PLC0415 - only while exporting

    if divisor_override is None:
        return aten_avg_pool2d(self, kernel_size, stride, padding, ceil_mode, count_include_pad=count_include_pad)
    return _summed(self, _Windows(2, kernel_size, stride, padding), divisor_override, ceil_mode=ceil_mode)


def avg_pool3d(
    self: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The same over three axes."""
    from onnxscript.function_libs.torch_lib.ops.nn import aten_avg_pool3d  # noqa: PLC0415 - only while exporting

    if divisor_override is None:
        return aten_avg_pool3d(self, kernel_size, stride, padding, ceil_mode, count_include_pad=count_include_pad)
    return _summed(self, _Windows(3, kernel_size, stride, padding), divisor_override, ceil_mode=ceil_mode)


class _Windows:
    """Sizes along every spatial axis: torch takes one number for all of them."""

    def __init__(self, axes: int, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> None:
        self.kernel, self.padding = _each(kernel, axes), _each(padding, axes)
        self.stride = _each(stride, axes) if stride else self.kernel

    def past_the_end(self, sizes: Sequence[Any]) -> list[int]:
        """How far the last window reaches beyond the padding, where the number of windows is rounded up."""
        if not all(isinstance(size, int) for size in sizes):
            raise SourceError("average pooling with ceil_mode and divisor_override: expected a fixed height and width")
        return [self._beyond(*window) for window in zip(sizes, self.kernel, self.stride, self.padding, strict=True)]

    @staticmethod
    def _beyond(size: int, kernel: int, stride: int, padding: int) -> int:
        steps = -(-(size + 2 * padding - kernel) // stride)
        # No window begins in the padding behind the image.
        steps -= steps * stride >= size + padding
        return max(steps * stride + kernel - size - 2 * padding, 0)


def _summed(x: Any, windows: _Windows, divisor: int, *, ceil_mode: bool) -> Any:
    from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

    axes = len(windows.kernel)
    beyond = windows.past_the_end(x.shape[-axes:]) if ceil_mode else [0] * axes
    single = len(x.shape) == axes + 1
    x = op.Unsqueeze(x, [0]) if single else x
    # Zeros put there beforehand are counted alike by every engine.
    ends = [before + past for before, past in zip(windows.padding, beyond, strict=True)]
    x = op.Pad(x, [0, 0, *windows.padding, 0, 0, *ends]) if any(ends) else x
    mean = op.AveragePool(x, kernel_shape=windows.kernel, strides=windows.stride)
    total = op.Mul(mean, op.CastLike(math.prod(windows.kernel) / divisor, mean))
    return op.Squeeze(total, [0]) if single else total


def _each(sizes: Sequence[int], axes: int) -> list[int]:
    return list(sizes) if len(sizes) == axes else [*sizes] * axes

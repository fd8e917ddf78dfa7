"""Which torch operators hasten writes in ONNX itself: those that torch's exporter unrolls, leaves out or gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hasten.errors import SourceError
from hasten.sources import special
from hasten.sources.torch.bags import embedding_bag
from hasten.sources.torch.distances import cdist, median
from hasten.sources.torch.pooling import avg_pool2d, avg_pool3d
from hasten.sources.torch.projected import lstm
from hasten.sources.torch.recurrent import rnn_relu, rnn_tanh

__all__ = ["translations"]


def translations() -> Mapping[Any, Callable[..., Any]]:
    """torch operator → function that writes it in ONNX, for ``torch.onnx.export``."""
    import torch  # noqa: PLC0415 - heavy and optional

    return {
        torch.ops.aten.rnn_tanh.input: rnn_tanh,
        torch.ops.aten.rnn_relu.input: rnn_relu,
        torch.ops.aten.lstm.input: lstm,
        torch.ops.aten.embedding_bag.padding_idx: embedding_bag,
        torch.ops.aten._cdist_forward.default: cdist,
        torch.ops.aten.median.dim: median,
        torch.ops.aten.avg_pool2d.default: avg_pool2d,
        torch.ops.aten.avg_pool3d.default: avg_pool3d,
        torch.ops.aten.lgamma.default: _written("lgamma"),
        torch.ops.aten.digamma.default: _written("digamma"),
        torch.ops.aten.erfinv.default: _written("erfinv"),
    }


def _written(name: str) -> Callable[..., Any]:
    """A function that ONNX lacks, by its formula."""

    def write(self: Any) -> Any:
        from onnxscript import opset18 as op  # noqa: PLC0415 - only while exporting

        if self.dtype is not None and self.dtype.name == "DOUBLE":
            raise SourceError(f"torch.{name} of float64 has no ONNX form: expected float32")
        return op.CastLike(getattr(special, name)(op, op.Cast(self, to=1)), self)

    return write

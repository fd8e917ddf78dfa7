"""An opened PyTorch module and sample tensors enter; its ONNX graph leaves, with a free batch where asked.

Modules and exported programs go through ``torch.onnx.export(dynamo=True)``; TorchScript, which that path no longer
reads, through the exporter made for it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from hasten.errors import SourceError
from hasten.sessions.torch import flat_module
from hasten.sources.torch.complexes import decompositions
from hasten.sources.torch.observed import operators, read_in, runs_complex
from hasten.sources.torch.opening import Opened, evaluating
from hasten.sources.torch.pairwise import products_in_pairs
from hasten.sources.torch.quiet import exporting_quietly, voiceless
from hasten.sources.torch.translations import translations

__all__ = ["Ports", "export"]

_OPSET = 18


@dataclass(frozen=True)
class Ports:
    """Names for the graph, and which inputs have a batch along dimension 0."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batched: tuple[bool, ...]


def export(opened: Opened, tensors: Sequence[Any], ports: Ports) -> ir.Model:
    """The module's graph.

    Raises:  SourceError: the exporter fails; the message is its first line
    """
    with exporting_quietly(), evaluating(opened.module), products_in_pairs():
        try:
            if opened.kind == "script":
                return _from_script(opened.module, tensors, ports)
            return _from_module(opened, tensors, ports)
        except SourceError:
            raise
        except Exception as error:
            packed = _packed(opened.module)
            if packed is not None:
                raise SourceError(packed) from error
            reason = f"torch.onnx.export failed: {_cause(error)}"
            if opened.kind == "module":
                read = read_in(opened.module, tensors)
                if read is not None:
                    raise SourceError(_decided(opened.module, tensors, read)) from error
                with contextlib.suppress(Exception):
                    return _traced(opened, tensors, ports)
            raise SourceError(reason) from error


def _packed(module: Any) -> str | None:
    """Why a module that torch itself quantised has no graph."""
    for name, part in module.named_modules():
        if type(part).__module__.startswith("torch.ao.nn.quantized"):
            return (
                f"module '{name}' ({type(part).__name__}) holds weights packed for torch's own kernels of 8 bits, "
                "which have no ONNX form; hand in the module as it was before it was quantised"
            )
    return None


def _decided(module: Any, tensors: Sequence[Any], read: str) -> str:
    """Why a module has no graph where it took a Python value out of its inputs: what for, and what to do instead."""
    if "_pack_padded_sequence" in operators(lambda: module(*tensors)):
        return (
            "it packs sequences by lengths that are an input (pack_padded_sequence); without packing, on padded rows, "
            "it can be exported"
        )
    return f"values of its inputs decide what it runs, in {read}; torch.where keeps both ways"


def _traced(opened: Opened, tensors: Sequence[Any], ports: Ports) -> ir.Model:
    """What the exporter made for TorchScript records of one run: for modules that ask what is in their own tensors.

    The caller holds the graph's answers against the module's, and has seen that no value of an input is asked for.
    """
    return _from_script(flat_module(opened.module), tensors, ports)


def _from_module(opened: Opened, tensors: Sequence[Any], ports: Ports) -> ir.Model:
    import torch  # noqa: PLC0415 - heavy and optional

    batch = torch.export.Dim("batch", min=1)
    free = tuple({0: batch} if b else {} for b in ports.batched)
    # A program's dimensions are fixed or free already; the wrapper takes *args, which torch.export sees as one tuple.
    dynamic = (free,) if any(ports.batched) and opened.program is None else None
    module = flat_module(opened.module) if opened.program is None else opened.program
    if opened.program is None and runs_complex(lambda: opened.module(*tensors)):
        shown = torch.export.export(module, tuple(tensors), dynamic_shapes=dynamic, strict=False)
        module, dynamic = shown.run_decompositions(dict(decompositions())), None
    program = torch.onnx.export(
        module,
        tuple(tensors),
        dynamo=True,
        verbose=False,
        opset_version=_OPSET,
        input_names=list(ports.inputs),
        output_names=list(ports.outputs),
        dynamic_shapes=dynamic,
        custom_translation_table=dict(translations()),
    )
    found: ir.Model = ir.from_proto(program.model_proto)
    return found


def _from_script(module: Any, tensors: Sequence[Any], ports: Ports) -> ir.Model:
    import torch  # noqa: PLC0415 - heavy and optional

    target = io.BytesIO()
    axes = {name: {0: "batch"} for name, batched in zip(ports.inputs, ports.batched, strict=True) if batched}
    axes |= {name: {0: "batch"} for name in ports.outputs} if axes else {}
    with voiceless():
        torch.onnx.export(
            module,
            tuple(tensors),
            target,
            dynamo=False,
            verbose=False,
            opset_version=17,
            input_names=list(ports.inputs),
            output_names=list(ports.outputs),
            dynamic_axes=axes,
        )
    found: ir.Model = ir.from_proto(onnx.load_model_from_string(target.getvalue()))
    return found


def _cause(error: BaseException) -> str:
    """The first line of the innermost cause: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

"""Operators without a fast kernel.

## What it does
Finds control flow (`Loop`, `Scan`, `If`), operators whose output size depends on data, string and sequence operators,
and operators outside the standard.

## Why is this bad
Each of them runs on a slow general path: one step at a time, with allocation, and with everything around it cut into
pieces that can't be fused. Custom operators run on one engine alone.

## Cost
Microseconds for each visit, many for each step of a loop; most accelerators refuse.

## Example
A recurrent layer exported as `Loop` around small products.

## Use instead
Operators with kernels: LSTM/GRU in place of Loop, a fixed-size TopK in place of NonZero, pre- and post-processing
outside the model.

## Fix safety
No fix: what else could compute the same is yours to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hasten.doctor.graphs import GraphHit, GraphRule, ModelView
from hasten.doctor.words import words

_SLOW = words(
    "Loop Scan If NonZero NonMaxSuppression Unique SequenceAt SequenceConstruct SequenceInsert SplitToSequence "
    "ConcatFromSequence SequenceMap StringNormalizer StringConcat StringSplit TfIdfVectorizer RegexFullMatch Compress "
    "Det DFT STFT Hardmax"
)
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


def check(view: ModelView) -> Iterator[GraphHit]:
    """One finding for each slow kind of operator."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for node in view.nodes:
        custom = node.domain not in _STANDARD
        if custom or node.op_type in _SLOW:
            name = f"{node.domain}.{node.op_type}" if custom else node.op_type
            counts[name] += 1
            first.setdefault(name, node.name or "")
    for name, count in counts.items():
        kind = "has a kernel in one engine at most" if "." in name else "has no fast kernel"
        yield GraphHit(f"node '{first[name]}'", f"{name} {kind} ({count} in the model)")


_REMEDY = (
    "Replace it by operators with kernels, or move it out of the model; "
    "hasten optimize makes of a loop the LSTM, GRU or RNN that it is."
)

RULE = GraphRule("H607", "slow-operator", _REMEDY, check)

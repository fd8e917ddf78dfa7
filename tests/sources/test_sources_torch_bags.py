"""Bags of embeddings: of any lengths, by offsets that are an input, and of one length, the rows of a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten
from hasten.graph import reference
from hasten.sources import SourceRequest
from hasten.sources.detect import open_source

pytestmark = pytest.mark.frameworks
INDICES = np.array([1, 2, 4, 5, 4, 0, 2, 9])
OFFSETS = np.array([0, 4, 4])  # the second bag is empty
ENDS = np.array([0, 3, 3, 8])


def bag(**options: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.EmbeddingBag(20, 4, **options).eval()


@pytest.mark.parametrize("padding", [None, 0])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_are_exported_without_a_loop(tmp_path: Path, mode: str, padding: int | None) -> None:
    for last, given in (
        (False, (INDICES, OFFSETS)), (True, (INDICES, ENDS)), (False, (INDICES.reshape(2, 4),)),
    ):  # fmt: skip
        made = bag(mode=mode, padding_idx=padding, include_last_offset=last)
        source = open_source(made, SourceRequest(sample=given, work=tmp_path))
        assert source.model is not None, source.notes
        assert "Loop" not in {node.op_type for node in source.model.graph.all_nodes()}
        for held in source.held or ({},):
            arrays = [held.get(spec.name, a) for spec, a in zip(source.inputs, given, strict=True)]
            (mine,), (theirs,) = reference.run(source.model, arrays), source.reference(arrays)
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_weights_of_a_bags_members_are_exported(tmp_path: Path) -> None:
    import torch

    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = bag(mode="sum")

        def forward(self, indices: torch.Tensor, offsets: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return self.bag(indices, offsets, per_sample_weights=by)

    given = (INDICES, OFFSETS, np.linspace(-1, 1, 8, dtype=np.float32))
    source = open_source(Weighted(), SourceRequest(sample=given, work=tmp_path))
    assert source.model is not None, source.notes
    (mine,), (theirs,) = reference.run(source.model, given), source.reference(given)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_a_bag_by_offsets_is_compiled(engine: str) -> None:
    made = bag(mode="mean")
    fast = hasten.compile(made, engine=engine, sample=(INDICES, OFFSETS))
    import torch

    for offsets in (OFFSETS, np.array([0, 1, 7])):
        theirs = made(torch.from_numpy(INDICES), torch.from_numpy(offsets)).detach().numpy()
        np.testing.assert_allclose(fast(INDICES, offsets), theirs, rtol=1e-5, atol=1e-6)

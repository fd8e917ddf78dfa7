"""What PyTorch models are refused for is told: in the note that a refusal ends with, by the part that is to blame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten
from hasten.errors import EngineError, NondeterministicError
from hasten.sources import SourceRequest
from hasten.sources.detect import open_source

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks
nn = torch.nn
X = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)


class Calls(nn.Module):  # type: ignore[misc,name-defined]
    """A linear layer, and a function after it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, x: Any) -> Any:
        return self.function(self.linear(x))


def unknown(x: Any) -> Any:
    return torch.linalg.svd(x.unsqueeze(1))[1].flatten(1)


def test_a_refusal_says_why_there_is_no_graph(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r"not imported as a graph \(torch.onnx.export failed: .*svd") as refused:
        hasten.compile(Calls(unknown), engine="onnxruntime", sample=X)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
def test_what_torch_quantised_itself_is_named(tmp_path: Path) -> None:
    whole = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
    quantised = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear}, dtype=torch.qint8)
    source = open_source(quantised, SourceRequest(sample=(X,), work=tmp_path))
    assert source.model is None
    assert "module '1' (Linear) holds weights packed for torch's own kernels of 8 bits" in source.notes[-1]


@pytest.mark.parametrize(
    ("module", "part"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Calls(torch.randn_like))), r"module '1\.1' \(Calls\)"),
        (Calls(lambda x: nn.functional.dropout(x, 0.5)), "the model's own forward"),
        (Calls(lambda x: nn.Dropout()(x)), "a module Dropout"),
        (Calls(lambda x: x * torch.randint(0, 2, (1,))), "the model's own forward"),
    ],
    ids=["nested", "own", "passing", "a coin, which often falls alike"],
)
def test_the_part_that_is_random_is_named(module: Any, part: str, tmp_path: Path) -> None:
    with pytest.raises(NondeterministicError, match=f"it is random, in {part}, which calls "):
        open_source(module, SourceRequest(sample=(X,), work=tmp_path))


@pytest.mark.parametrize(
    "choose",
    [
        lambda x: x if x.max() < 1e3 else -x,
        lambda x: x if bool(torch.empty_like(x).copy_(x).add_(1).isfinite().all()) else x * 0,
    ],
    ids=["a branch", "through memory written in place"],
)
def test_what_values_of_the_input_decide_is_not_recorded(choose: Any, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Identity(), Calls(choose))
    source = open_source(module, SourceRequest(sample=(X,), work=tmp_path))
    assert source.model is None
    assert "values of its inputs decide what it runs, in module '1' (Calls)" in source.notes[-1]


def test_what_the_modules_own_tensors_decide_is_recorded(tmp_path: Path) -> None:
    module = Calls(lambda x: x * 2 if bool(torch.zeros_like(x).sum() == 0) and torch.ones(3).max() > 0 else x)
    assert open_source(module, SourceRequest(sample=(X,), work=tmp_path)).model is not None


class Padded(nn.Module):  # type: ignore[misc,name-defined]
    """An encoder that is told which places are padding."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding, self.encoder = nn.Embedding(9, 8), nn.TransformerEncoder(layer, 1, enable_nested_tensor=nested)

    def forward(self, ids: Any) -> Any:
        return self.encoder(self.embedding(ids), src_key_padding_mask=ids == 0).sum(1)


@pytest.mark.parametrize("nested", [True, False])
def test_a_padded_encoder_is_told_how_to_pad(nested: bool, tmp_path: Path) -> None:
    ids = np.array([[3, 2, 5, 0, 0]])
    source = open_source(Padded(nested), SourceRequest(sample=(ids,), work=tmp_path))
    assert (source.model is None) == nested
    assert ("with enable_nested_tensor=False" in "".join(source.notes)) == nested


class Packed(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.cell(packed)[1][0][-1]


def test_packed_sequences_are_told_apart(tmp_path: Path) -> None:
    given = (np.ones((1, 5, 4), np.float32), np.array([3]))
    source = open_source(Packed(), SourceRequest(sample=given, work=tmp_path))
    assert source.model is None and "packs sequences by lengths that are an input" in source.notes[-1]

"""PyTorch modules, programs and scripts become graphs with the module's own answers; what can run code needs trust."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.errors import NondeterministicError, SourceError, TrustError
from hasten.graph.reference import run
from hasten.sources import Source, SourceRequest
from hasten.sources.detect import open_source
from hasten.sources.samples import samples
from hasten.sources.torch.pairwise import pairs

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks
RNG = np.random.default_rng(0)


class Residual(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.drop, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.second(x))
        return self.drop(self.head(x.mean((2, 3)))).softmax(-1)


class Recurrent(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, cell: str, **options: Any) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, cell)(8, 16, batch_first=True, **options)
        self.head = torch.nn.Linear(16 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Noise(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x):
        return x + torch.randn_like(x)


class Memory(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1, 4))

    def forward(self, x):
        self.state.copy_(torch.tanh(self.state + x))
        return self.state * 2


class Structured(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, a, b):
        return {"sum": a + b, "both": (a * 2, None, b * 3)}


def sample(*shape: int) -> tuple[Any, ...]:
    return (RNG.standard_normal(shape).astype(np.float32),)


def same_answers(source: Source, atol: float = 1e-5) -> None:
    assert source.model is not None, source.notes
    for arrays in samples(source, SourceRequest(), 0, 2):
        for mine, theirs in zip(run(source.model, arrays), source.reference(arrays), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=atol)


def test_a_module_is_exported_in_evaluation_mode_which_is_then_restored(tmp_path: Path) -> None:
    module = Residual().train()
    module.norm.eval()
    source = open_source(module, SourceRequest(sample=sample(1, 3, 16, 16), work=tmp_path))
    assert module.training and module.drop.training and not module.norm.training
    assert source.inputs[0].shape == ("batch", 3, 16, 16)
    assert source.outputs[0].shape == ("batch", 4)
    assert source.trusted and source.path.parent == tmp_path
    same_answers(source)


@pytest.mark.parametrize(
    ("cell", "options"), [("LSTM", {"num_layers": 2}), ("GRU", {}), ("RNN", {"bidirectional": True})], ids=str
)
def test_recurrent_layers_stay_whole(tmp_path: Path, cell: str, options: dict[str, Any]) -> None:
    source = open_source(Recurrent(cell, **options), SourceRequest(shapes={"x": (1, 10, 8)}, work=tmp_path))
    found = Counter(node.op_type for node in source.model.graph)  # type: ignore[union-attr]
    assert found[cell] == options.get("num_layers", 1)
    assert found["MatMul"] <= 1
    same_answers(source)


class Begun(torch.nn.Module):  # type: ignore[misc,name-defined]
    """An LSTM with projections that is given its first state, or begins with zeros."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.cell = torch.nn.LSTM(6, 8, proj_size=3, batch_first=True, **options)

    def forward(self, x, *states):
        y, (h, c) = self.cell(x, tuple(s.transpose(0, 1).contiguous() for s in states) or None)
        return y, h.transpose(0, 1), c.transpose(0, 1)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("begun", [False, True], ids=["zeros", "given"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
def test_a_projected_lstm_is_a_plain_one_and_a_product(options: dict[str, Any], begun: bool, tmp_path: Path) -> None:
    count = 4 if "num_layers" in options else 1
    states = (*sample(1, count, 3), *sample(1, count, 8)) if begun else ()
    source = open_source(Begun(**options), SourceRequest(sample=(*sample(1, 5, 6), *states), work=tmp_path))
    found = Counter(node.op_type for node in source.model.graph)  # type: ignore[union-attr]
    assert found["LSTM"] == options.get("num_layers", 1)
    assert source.inputs[0].is_batched
    same_answers(source)


class Applied(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.rows, self.function = torch.nn.Parameter(torch.randn(3, 6)), function

    def forward(self, x):
        return self.function(x, self.rows)


@pytest.mark.parametrize(
    "function",
    [
        *(lambda x, rows, p=p: torch.cdist(x, rows, p=p) for p in (1.0, 2.0, float("inf"))),
        lambda x, _: x.median(-1)[0] + x[:, :4].median(dim=1, keepdim=True)[0].sum((1, 2)).unsqueeze(1),
        lambda x, _: torch.fft.rfft(x)[..., 1:-1].angle(),
        lambda x, rows: torch.view_as_real(torch.einsum("btf,kf->btk", torch.fft.fft(x), torch.exp(1j * rows))),
        lambda x, _: (torch.exp(torch.view_as_complex(x.reshape(-1, 5, 3, 2))) * (2 - 1j)).imag,
    ],
    ids=["cdist 1", "cdist 2", "cdist inf", "median", "angle", "einsum", "exp"],
)
def test_what_the_exporter_lacks_is_written_here(function: Any, tmp_path: Path) -> None:
    source = open_source(Applied(function), SourceRequest(sample=sample(1, 5, 6), work=tmp_path))
    assert source.inputs[0].is_batched
    same_answers(source)


def test_a_sum_of_three_complex_factors_is_multiplied_out(tmp_path: Path) -> None:
    def product(x: Any, rows: Any) -> Any:
        return torch.einsum("btf,kf,f->btk", torch.fft.fft(x), rows * 1j, torch.exp(rows[0] * 1j)).real

    # torch.export itself takes the batch of such a sum for a constant.
    same_answers(open_source(Applied(product), SourceRequest(sample=sample(1, 5, 6), work=tmp_path)))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("btf,btg,btf->btfg", [(5, 6), (5, 4), (5, 6)]),
        (" b t f, t g ,bgf -> bf ", [(5, 6), None, (3, 6)]),
        ("btt,btf,bt,bf->bft", [(5, 5), (5, 6), (5,), (6,)]),
    ],
)
def test_a_sum_of_many_factors_keeps_its_batch_free(equation: str, shapes: Any, tmp_path: Path) -> None:
    class Product(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.fixed = torch.nn.Parameter(torch.randn(5, 3))

        def forward(self, *given: Any) -> Any:
            left = iter(given)
            return torch.einsum(equation, *(self.fixed if s is None else next(left) for s in shapes)) * 2

    given = tuple(a for s in shapes if s is not None for a in sample(1, *s))
    source = open_source(Product(), SourceRequest(sample=given, work=tmp_path))
    assert all(spec.is_batched for spec in source.inputs)
    same_answers(source)


@pytest.mark.parametrize("equation", ["ab,bc->ac", "ab,bc,cd", "...a,ab,bc->...c"])
def test_sums_that_are_left_as_they_are(equation: str) -> None:
    assert not pairs(equation)


def test_a_batch_that_a_trace_takes_for_a_constant_is_fixed(tmp_path: Path) -> None:
    def scan(x: Any, rows: Any) -> Any:
        batch, _, width = x.shape
        state = torch.zeros(batch, width)
        for step in torch.einsum("...tf,...tf,...t->...tf", x, x, x[..., 0]).unbind(1):
            state = step + 0.5 * state
        return state * rows[0]

    source = open_source(Applied(scan), SourceRequest(sample=sample(1, 5, 6), work=tmp_path))
    same_answers(source)
    assert source.inputs[0].shape == (1, 5, 6)
    assert any("free batch" in note for note in source.notes)


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        (2, {"kernel_size": 2}),
        (2, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        (2, {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True}),
        (3, {"kernel_size": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    ],
    ids=str,
)
def test_an_average_divides_by_what_it_is_told(axes: int, options: dict[str, Any], tmp_path: Path) -> None:
    module = getattr(torch.nn, f"AvgPool{axes}d")(divisor_override=5, **options)
    source = open_source(module, SourceRequest(sample=sample(1, 3, *(7, 7, 5)[:axes]), work=tmp_path))
    assert source.inputs[0].is_batched
    same_answers(source)


def test_nested_outputs_come_flat_and_in_order(tmp_path: Path) -> None:
    request = SourceRequest(sample=(*sample(1, 4), *sample(1, 4)), work=tmp_path)
    source = open_source(Structured(), request)
    assert [s.name for s in source.inputs] == ["a", "b"]
    assert [s.name for s in source.outputs] == ["sum", "both_0", "both_2"]
    a, b = (np.full((1, 4), v, np.float32) for v in (1, 10))
    np.testing.assert_array_equal([y[0, 0] for y in source.reference((a, b))], [11, 2, 30])
    same_answers(source)


def test_a_module_says_nothing_of_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not say what shape its input 'x' has: pass a sample"):
        open_source(Residual(), SourceRequest(work=tmp_path))
    with pytest.raises(SourceError, match="unknown input 'z': expected one of x"):
        open_source(Residual(), SourceRequest(shapes={"z": (1,)}, work=tmp_path))
    with pytest.raises(SourceError, match="sample has 2 arrays: the model takes 1: x"):
        open_source(Residual(), SourceRequest(sample=(*sample(1, 4), *sample(1, 4)), work=tmp_path))


def test_randomness_and_state_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NondeterministicError, match="it is random"):
        open_source(Noise(), SourceRequest(sample=sample(1, 4), work=tmp_path))
    with pytest.raises(NondeterministicError, match="state kept inside, in buffer 'state'"):
        open_source(Memory(), SourceRequest(sample=sample(1, 4), work=tmp_path))


def test_torchscript_needs_trust_and_shows_the_state_that_it_keeps(tmp_path: Path) -> None:
    path = tmp_path / "memory.pt"
    torch.jit.save(torch.jit.trace(Memory().eval(), torch.zeros(1, 4)), path)
    with pytest.raises(TrustError, match="trust=True"):
        open_source(path, SourceRequest(sample=sample(1, 4)))
    with pytest.raises(NondeterministicError, match="state kept inside: it writes 'state'"):
        open_source(path, SourceRequest(trust=True))


def test_a_trusted_script_is_exported(tmp_path: Path) -> None:
    path = tmp_path / "lstm.pt"
    torch.jit.save(torch.jit.trace(Recurrent("LSTM").eval(), torch.randn(2, 10, 8)), path)
    source = open_source(path, SourceRequest(trust=True, sample=sample(1, 10, 8), work=tmp_path / "work"))
    assert source.trusted and source.inputs[0].is_batched
    assert "LSTM" in {node.op_type for node in source.model.graph}  # type: ignore[union-attr]
    same_answers(source)


def test_a_script_whose_author_calls_self_otherwise_takes_its_inputs_alone(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(this, a, b):
            return a + b

    source = open_source(torch.jit.script(Sum()), SourceRequest(sample=(*sample(1, 4), *sample(1, 4)), work=tmp_path))
    assert [spec.name for spec in source.inputs] == ["a", "b"]


def test_an_exported_program_needs_neither_trust_nor_a_sample(tmp_path: Path) -> None:
    module, path = Residual().eval(), tmp_path / "program.pt2"
    free = ({0: torch.export.Dim("rows")},)
    torch.export.save(torch.export.export(module, (torch.randn(2, 3, 16, 16),), dynamic_shapes=free), path)
    source = open_source(path, SourceRequest())
    assert source.inputs[0].shape == ("batch", 3, 16, 16) and not source.trusted
    same_answers(source)


def test_pickles_need_trust_and_weights_need_a_model(tmp_path: Path) -> None:
    torch.save(Residual(), tmp_path / "module.pt")
    torch.save(Residual().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(TrustError, match="a pickled module can run code"):
        open_source(tmp_path / "module.pt", SourceRequest())
    with pytest.raises(SourceError, match="weights without a model"):
        open_source(tmp_path / "weights.pt", SourceRequest())
    data = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="cut short or damaged"):
        open_source(tmp_path / "cut.pt", SourceRequest())


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_transformers_with_random_weights(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    ids = np.arange(8).reshape(1, 8)
    if name == "bert":
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        module = transformers.BertModel(transformers.BertConfig(vocab_size=100, **sizes))
        given: tuple[Any, ...] = (ids, np.ones((1, 8), np.int64))
    else:
        config = transformers.GPT2Config(
            n_embd=32, n_layer=1, n_head=2, vocab_size=100, n_positions=32, bos_token_id=0, eos_token_id=0
        )
        module, given = transformers.GPT2LMHeadModel(config), (ids,)
    source = open_source(module, SourceRequest(sample=given, work=tmp_path))
    assert source.inputs[0].shape == ("batch", 8)
    assert module.config.use_cache is (name == "gpt2") or name == "bert"
    same_answers(source)


def test_computed_weights_become_plain_ones(tmp_path: Path) -> None:
    nn = torch.nn
    norms = nn.utils.parametrizations
    module = nn.Sequential(norms.weight_norm(nn.Conv1d(4, 8, 3)), nn.ELU(), norms.spectral_norm(nn.Conv1d(8, 8, 3)))
    x = RNG.standard_normal((1, 4, 12)).astype(np.float32)
    source = open_source(module, SourceRequest(sample=(x,), work=tmp_path))
    with torch.no_grad():  # the module itself is as it was, weights and all
        np.testing.assert_allclose(module.eval()(torch.from_numpy(x)).numpy(), source.reference([x])[0], atol=1e-5)
    assert nn.utils.parametrize.is_parametrized(module[0])
    assert source.model is not None
    assert Counter(node.op_type for node in source.model.graph) == {"Conv": 2, "Elu": 1}
    same_answers(source)


def test_a_module_that_looks_into_a_tensor_is_recorded(tmp_path: Path) -> None:
    class Gated(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones(3))

        def forward(self, x):
            return x * self.mask if bool((self.mask > 0).all()) else x

    sample = (RNG.standard_normal((1, 3)).astype(np.float32),)
    module = Gated().eval()
    source = open_source(module, SourceRequest(sample=sample, work=tmp_path))
    assert source.model is not None
    assert not module.training  # the exporter sets another mode when it is done
    same_answers(source)


def test_the_shared_policy_is_refused_with_its_reason(shared_models: Path) -> None:
    path = shared_models / "real" / "g1_motion.pt"
    with pytest.raises(TrustError):
        open_source(path, SourceRequest())
    with pytest.raises(NondeterministicError, match="state kept inside"):
        open_source(path, SourceRequest(trust=True))

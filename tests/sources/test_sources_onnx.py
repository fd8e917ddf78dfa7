"""ONNX files of every age and habit become one kind of graph, with the same answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import RNG, dense, model, opened, same_answers, value, weight

from hasten.errors import InputError, NondeterministicError, SourceError
from hasten.graph.reference import run
from hasten.sources import Source, SourceRequest
from hasten.sources.determinism import check_deterministic
from hasten.sources.onnx import open_onnx
from hasten.sources.samples import index_limits, samples


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_old_and_new_opsets_are_read(tmp_path: Path, opset: int) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=1)]
    source = opened(
        model(nodes, [value("x", ["n", 4])], [value("y", ["n", 3])], [weight("w", 4, 3)], opset=opset), work=tmp_path
    )
    assert source.model is not None and source.model.opset_imports[""] >= 13
    assert any("upgraded" in note for note in source.notes) == (opset < 13)
    same_answers(source)


def test_inputs_that_are_initialisers_are_no_inputs(tmp_path: Path) -> None:
    proto = dense(["batch", 4])
    proto.graph.input.append(value("w", [4, 3]))
    source = opened(proto, work=tmp_path)
    assert [spec.name for spec in source.inputs] == ["x"]
    assert [v.name for v in source.model.graph.inputs] == ["x"]  # type: ignore[union-attr]
    same_answers(source)


def test_functions_are_inlined_and_subgraphs_kept(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    branch = [
        helper.make_graph([helper.make_node(op, ["t"], ["r"])], op, [], [value("r", ["n", 4])])
        for op in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Twice", ["x"], ["t"], domain="mine"),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    domains = [helper.make_opsetid("mine", 1)]
    proto = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [yes], domains=domains, functions=[function])
    source = opened(proto, work=tmp_path)
    assert sorted(n.op_type for n in source.model.graph) == ["Add", "If"]  # type: ignore[union-attr]
    same_answers(source)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"unknown operator.*Frobnicate"):
        opened(
            model([helper.make_node("Frobnicate", ["x"], ["y"])], [value("x", [1, 4])], [value("y", [1, 4])]),
            work=tmp_path,
        )


def test_ids_that_onnx_runtimes_own_embedding_looks_up_stay_inside_their_tables() -> None:
    given = [value(name, [1, 6], TensorProto.INT32) for name in ("words", "segments")]
    tables = [weight("w", 40, 8), weight("p", 6, 8), weight("s", 2, 8), weight("g", 8), weight("b", 8)]
    names = ["words", "segments", *(t.name for t in tables)]
    nodes = [helper.make_node("EmbedLayerNormalization", names, ["y", "m"], domain="com.microsoft")]
    domains = [helper.make_opsetid("com.microsoft", 1)]
    made = model(nodes, given, [value("y", [1, 6, 8])], tables, domains=domains)
    assert index_limits(ir.from_proto(made)) == {"words": 40, "segments": 2}


def test_answers_in_maps_are_refused_with_the_way_out(tmp_path: Path) -> None:
    answers = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    graph = helper.make_graph(
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        "zip",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("rows", 2))],
        [helper.make_value_info("y", answers)],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "zip.onnx")
    with pytest.raises(SourceError, match=r"ZipMap answers; convert it again with options={'zipmap': False}$"):
        open_onnx(tmp_path / "zip.onnx", SourceRequest())


def test_strings_are_refused_with_the_way_out() -> None:
    ends = [value(name, ["n", 4], TensorProto.STRING) for name in "xy"]
    text = model([helper.make_node("Identity", ["x"], ["y"])], ends[:1], ends[1:])
    with pytest.raises(InputError, match="takes no numbers: expected numbers or booleans; leave text processing out"):
        opened(text)


def test_index_inputs_are_sampled_inside_their_table(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["i"], ["j"], to=7), helper.make_node("Gather", ["table", "j"], ["y"])]
    ids = [value("i", ["n", 5], TensorProto.INT32)]
    source = opened(model(nodes, ids, [value("y", ["n", 5, 3])], [weight("table", 2, 3)]), work=tmp_path)
    drawn = np.concatenate([arrays[0] for arrays in samples(source, SourceRequest(), 0, 50)])
    assert drawn.dtype == np.int32 and drawn.min() == 0 and drawn.max() == 1


def test_the_users_sample_comes_first_row_by_row(tmp_path: Path) -> None:
    request = SourceRequest(sample=(np.arange(8, dtype=np.float32).reshape(2, 4),), work=tmp_path)
    found = samples(open_onnx(dense(["n", 4]), request), request, 0, 3)
    np.testing.assert_array_equal(found[0][0], [[0, 1, 2, 3]])
    np.testing.assert_array_equal(found[1][0], [[4, 5, 6, 7]])
    assert len(found) == 3 and found[2][0].shape == (1, 4)


def test_equal_models_have_equal_fingerprints_and_unlike_ones_not(tmp_path: Path) -> None:
    first, second = dense(["n", 4]), dense(["n", 4])
    again = opened(first, work=tmp_path / "b").fingerprint
    assert opened(first, work=tmp_path / "a").fingerprint == again != opened(second, work=tmp_path / "c").fingerprint


def test_randomness_is_found_out(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["x"], ["r"])
    proto = model([noise, helper.make_node("Add", ["x", "r"], ["y"])], [value("x", [1, 4])], [value("y", [1, 4])])
    source = opened(proto, work=tmp_path)
    with pytest.raises(NondeterministicError, match=r"it is random, in (a )?node .*RandomNormalLike"):
        check_deterministic(source, samples(source, SourceRequest(), 0, 2))


def test_state_kept_inside_is_found_out_and_told_from_randomness(tmp_path: Path) -> None:
    source = opened(dense(["n", 4]), work=tmp_path)
    memory = np.zeros((1, 4), np.float32)
    rng = np.random.default_rng(0)

    def remembers(arrays: Sequence[Any]) -> tuple[Any, ...]:
        nonlocal memory
        memory = np.tanh(0.9 * memory + arrays[0]).astype(np.float32)
        return (memory.copy(),)

    def counts(arrays: Sequence[Any]) -> tuple[Any, ...]:
        return (arrays[0] * 0 + np.abs(memory).sum(),)

    def scatters(arrays: Sequence[Any]) -> tuple[Any, ...]:
        return (arrays[0] + rng.standard_normal((1, 4)).astype(np.float32),)

    given = [[np.full((1, 4), 0.1, np.float32)], [np.full((1, 4), -0.5, np.float32)]]
    for call, words in ((remembers, "state kept inside"), (scatters, "it is random")):
        changed = Source(**{**source.__dict__, "reference": call})
        with pytest.raises(NondeterministicError, match=words):
            check_deterministic(changed, given)
    check_deterministic(Source(**{**source.__dict__, "reference": counts}), given)


@pytest.mark.parametrize(
    "name", ["real/dtln_1", "real/go1", "real/tenvad", "seeds/lstm", "seeds/audio_cnn", "seeds/mlp20"]
)
def test_shared_models_are_read(shared_models: Path, name: str) -> None:
    source = open_onnx(shared_models / f"{name}.onnx", SourceRequest())
    assert source.inputs[0].is_batched == name.startswith("seeds")
    check_deterministic(source, samples(source, SourceRequest(), 0, 2))
    same_answers(source)


def test_the_oldest_files_keep_their_weights(tmp_path: Path) -> None:
    old = dense(["N", 4], opset=7)
    old.ir_version = 3
    old.graph.input.append(value("w", old.graph.initializer[0].dims))
    source = open_onnx(old, SourceRequest(work=tmp_path))
    assert [spec.name for spec in source.inputs] == ["x"]
    x = RNG.standard_normal((1, 4)).astype(np.float32)
    assert source.model is not None
    np.testing.assert_allclose(run(source.model, [x])[0], source.reference([x])[0], rtol=1e-5)


@pytest.mark.parametrize(("opset", "op"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize")])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [2.0, 0.6])
def test_images_resized_by_old_rules_stay_as_they_were(
    opset: int, op: str, mode: str, scale: float, tmp_path: Path
) -> None:
    if op == "Upsample" and scale < 1:
        pytest.skip("Upsample only enlarges")
    scales = np.asarray([1, 1, scale, scale], np.float32)
    given = {"scales": scales.tolist()} if opset == 7 else {}
    node = helper.make_node(op, ["x"] if given else ["x", "s"], ["y"], mode=mode, **given)
    size = int(6 * scale)
    weights = [] if given else [numpy_helper.from_array(scales, "s")]
    old = model([node], [value("x", [1, 2, 6, 6])], [value("y", [1, 2, size, size])], weights, opset=opset)
    source = open_onnx(old, SourceRequest(work=tmp_path))
    x = RNG.standard_normal((1, 2, 6, 6)).astype(np.float32)
    assert source.model is not None
    np.testing.assert_allclose(run(source.model, [x])[0], source.reference([x])[0], atol=1e-5)


@pytest.mark.parametrize("nodes", [3, 1200])
def test_a_large_graph_is_answered_without_a_plan_of_its_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    plans = []

    def session(path: str, options: ort.SessionOptions, **more: Any) -> ort.InferenceSession:
        plans.append(options.enable_mem_reuse)
        return created(path, options, **more)

    created = ort.InferenceSession
    names = ["x", *(f"v{k}" for k in range(nodes - 1)), "y"]
    links = [helper.make_node("Sin", [a], [b]) for a, b in itertools.pairwise(names)]
    onnx.save(model(links, [value("x", [1, 4])], [value("y", [1, 4])]), tmp_path / "chain.onnx")
    monkeypatch.setattr(ort, "InferenceSession", session)
    source = open_onnx(tmp_path / "chain.onnx", SourceRequest())
    assert plans[0] == (nodes < 1000)
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(source.reference([x])[0], run(source.model, [x])[0], atol=1e-6)


def test_a_name_that_is_no_text_is_one_line_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = dense([2, 4]).SerializeToString().replace(b"MatMul", b"MatM\xb5l")
    (tmp_path / "damaged.onnx").write_bytes(damaged)
    with pytest.raises(SourceError, match=r"damaged\.onnx.*decode") as raised:
        open_onnx(tmp_path / "damaged.onnx", SourceRequest())
    assert len(str(raised.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")

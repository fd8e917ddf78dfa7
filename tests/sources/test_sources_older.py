"""Files newer than ONNX Runtime are opened in an older form that gives ONNX's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_files import RNG, opened, same_answers, value, weight

from hasten.errors import SourceError
from hasten.sources import Source, SourceRequest
from hasten.sources.older import newest_read
from hasten.sources.onnx import open_onnx

NEWEST = onnx.defs.onnx_opset_version()
PREVIEW = "ai.onnx.preview"
WINDOW = {"q_num_heads": 2, "kv_num_heads": 2, "left_window_size": 2}
LINEAR = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "gated"}


def newest(nodes: Any, inputs: Any, outputs: Any, weights: Any = (), **more: Any) -> onnx.ModelProto:
    """A model as ``onnx.helper`` writes it by default: the newest format, the newest operators unless told."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(weights))
    imports = [helper.make_opsetid("", more.pop("opset", NEWEST)), *more.pop("domains", [])]
    return helper.make_model(graph, opset_imports=imports, **more)


def layers(opset: int) -> onnx.ModelProto:
    """A convolution, an LSTM, a normalisation and a Celu, which opset 28 defines anew."""
    nodes = [
        helper.make_node("Conv", ["x", "cw", "cb"], ["c"], pads=[1, 1]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["t", "lw", "lr"], ["", "h"], hidden_size=4),
        helper.make_node("Squeeze", ["h", "axes"], ["s"]),
        helper.make_node("LayerNormalization", ["s", "scale"], ["n"]),
        helper.make_node("Celu", ["n"], ["y"], alpha=0.5),
    ]
    weights = [weight("cw", 5, 3, 3), weight("cb", 5), weight("lw", 1, 16, 5), weight("lr", 1, 16, 4)]
    weights += [weight("scale", 4), numpy_helper.from_array(np.asarray([0]), "axes")]
    return newest(nodes, [value("x", ["n", 3, 7])], [value("y", ["n", 4])], weights, opset=opset)


def one(op: str, inputs: Any, outputs: Any, **more: Any) -> onnx.ModelProto:
    """A model of one operator; an empty input is left out, ``opset`` and ``domain`` are not attributes."""
    about = {"opset": more.pop("opset", NEWEST)}
    domain = more.pop("domain", "")
    ends = [value(name, shape) for name, shape in inputs if name], [value(name, shape) for name, shape in outputs]
    node = helper.make_node(op, [n for n, _ in inputs], [n for n, _ in outputs], domain=domain, **more)
    return newest([node], *ends, domains=[helper.make_opsetid(domain, 1)] if domain else [], **about)


def as_onnx_says(proto: onnx.ModelProto, source: Source) -> None:
    arrays = [RNG.standard_normal([d.dim_value or 1 for d in v.type.tensor_type.shape.dim]) for v in proto.graph.input]
    arrays = [array.astype(np.float32) for array in arrays]
    expected = ReferenceEvaluator(proto).run(None, dict(zip([v.name for v in proto.graph.input], arrays, strict=True)))
    for mine, theirs in zip(source.reference(arrays), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_format_that_is_too_new_alone_changes_nothing_else(tmp_path: Path) -> None:
    proto = layers(20)
    proto.ir_version = onnx.IR_VERSION
    onnx.save(proto, tmp_path / "net.onnx")
    held = (tmp_path / "net.onnx").read_bytes()
    source = open_onnx(tmp_path / "net.onnx", SourceRequest(work=tmp_path / "work"))
    as_onnx_says(proto, source)
    assert source.notes == () and source.path.name == "net.onnx"
    assert (tmp_path / "net.onnx").read_bytes() == held
    assert onnx.load(source.path).ir_version <= newest_read()[0]


@pytest.mark.parametrize("opset", range(newest_read()[1] + 1, NEWEST + 1))
def test_a_newer_operator_set_is_lowered(tmp_path: Path, opset: int) -> None:
    proto = layers(opset)
    source = opened(proto, work=tmp_path)
    as_onnx_says(proto, source)
    assert source.inputs[0].is_batched
    assert any(f"opset {opset} lowered to" in note for note in source.notes)
    same_answers(source)


@pytest.mark.parametrize(
    "proto",
    [
        pytest.param(one("Swish", [("x", [2, 5])], [("y", [2, 5])], alpha=1.25), id="Swish"),
        pytest.param(one("Swish", [("x", [2, 5])], [("y", [2, 5])], opset=24), id="Swish-24"),
        pytest.param(one("SwiGLU", [("a", [2, 5]), ("b", [2, 5])], [("y", [2, 5])]), id="SwiGLU"),
        pytest.param(
            one("Attention", [(n, [1, 6, 8]) for n in "qkv"], [("y", [1, 6, 8])], **WINDOW), id="Attention-window"
        ),
        pytest.param(
            one(
                "LinearAttention",
                [*((n, [1, 6, 8]) for n in "qkv"), ("", []), ("decay", [1, 6, 8])],
                [("y", [1, 6, 8]), ("state", [1, 2, 4, 4])],
                **LINEAR,
            ),
            id="LinearAttention",
        ),
        pytest.param(
            one("FlexAttention", [(n, [1, 2, 6, 4]) for n in "qkv"], [("y", [1, 2, 6, 4])], domain=PREVIEW),
            id="FlexAttention",
        ),
        pytest.param(
            one(
                "CausalConvWithState",
                [("x", [1, 3, 6]), ("w", [3, 1, 4]), ("", []), ("past", [1, 3, 3])],
                [("y", [1, 3, 6]), ("state", [1, 3, 3])],
            ),
            id="CausalConvWithState",
        ),
        pytest.param(one("SpaceToDepth", [("x", [1, 2, 4, 4])], [("y", [1, 8, 2, 2])], blocksize=2), id="SpaceToDepth"),
        pytest.param(
            one("SpaceToDepth", [("x", [1, 2, 4, 4])], [("y", [1, 8, 2, 2])], blocksize=2, mode="CRD"),
            id="SpaceToDepth-CRD",
        ),
    ],
)
def test_what_onnx_runtime_lacks_is_spelt_out_as_onnx_defines_it(tmp_path: Path, proto: onnx.ModelProto) -> None:
    source = opened(proto, work=tmp_path)
    as_onnx_says(proto, source)
    same_answers(source)


def test_a_body_and_a_function_are_lowered_with_the_graph_around_them(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", NEWEST)]
    double = helper.make_function("own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], imports)
    bodies = {
        f"{branch}_branch": helper.make_graph([helper.make_node(op, ["x"], ["r"])], branch, [], [value("r", [3, 4])])
        for branch, op in (("then", "Swish"), ("else", "Celu"))
    }
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["i"], **bodies),
        helper.make_node("Double", ["i"], ["y"], domain="own"),
    ]
    proto = newest(
        nodes, [value("x", [3, 4])], [value("y", [3, 4])], [numpy_helper.from_array(np.float32(1.5), "limit")],
        domains=[helper.make_opsetid("own", 1)], functions=[double],
    )  # fmt: skip
    source = opened(proto, work=tmp_path)
    for top in (1, 2):
        x = np.full((3, 4), top, np.float32)
        expected = ReferenceEvaluator(proto).run(None, {"x": x})
        np.testing.assert_allclose(source.reference([x])[0], expected[0], rtol=1e-5)
    same_answers(source)


def test_what_no_older_set_can_say_is_named(tmp_path: Path) -> None:
    ends = [value(name, [4], TensorProto.INT32) for name in "xyz"]
    node = helper.make_node("BitShift", ["x", "y"], ["z"], direction="RIGHT")
    with pytest.raises(SourceError, match=r"opset 28.*where BitShift cannot say the same") as raised:
        opened(newest([node], ends[:2], ends[2:], opset=28), work=tmp_path)
    assert len(str(raised.value).splitlines()) == 1

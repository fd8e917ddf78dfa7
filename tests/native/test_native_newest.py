"""Operators newer than ONNX Runtime, from a file to a compiled call that gives ONNX's own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import hasten

RNG = np.random.default_rng(0)
HEADS = {"q_num_heads": 2, "kv_num_heads": 2}


@pytest.mark.parametrize(
    ("op", "domain", "shape", "attributes"),
    [
        ("Swish", "", [1, 6, 8], {"alpha": 0.5}),
        ("Celu", "", [1, 6, 8], {"alpha": 0.5}),
        ("Attention", "", [1, 6, 8], {**HEADS, "left_window_size": 2}),
        ("LinearAttention", "", [1, 6, 8], {**HEADS, "update_rule": "linear", "scale": 0.3}),
        ("FlexAttention", "ai.onnx.preview", [1, 2, 6, 4], {"scale": 0.3}),
    ],
)
def test_an_operator_of_the_newest_set_is_compiled(
    tmp_path: Path, op: str, domain: str, shape: list[int], attributes: dict[str, float]
) -> None:
    names = ["q", "k", "v"] if "Attention" in op else ["q"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in [*names, "y"]]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    imports = [helper.make_opsetid("", onnx.defs.onnx_opset_version()), helper.make_opsetid("ai.onnx.preview", 1)]
    proto = helper.make_model(helper.make_graph([node], "g", ends[:-1], ends[-1:]), opset_imports=imports)
    onnx.save(proto, tmp_path / "newest.onnx")
    compiled = hasten.compile(tmp_path / "newest.onnx", engine="native")
    arrays = [RNG.standard_normal(shape).astype(np.float32) for _ in names]
    expected = ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)))
    np.testing.assert_allclose(compiled(*arrays), expected[0], rtol=1e-4, atol=1e-5)

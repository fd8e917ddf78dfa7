"""LSTM, GRU and RNN with all that their nodes may say, against ONNX Runtime: any directions, lengths, states, cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built
from onnx import helper
from test_native_ops import model

from hasten.errors import UnsupportedOpError
from hasten.graph import reference
from hasten.native.compile import program_of
from hasten.native.isa import isa

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
CELLS = {"LSTM": 3, "GRU": 2, "RNN": 1}  # activations of a direction
BOUNDED = ("Tanh", "Sigmoid", "Softsign", "HardSigmoid", "ScaledTanh")
ACTIVATIONS = (*BOUNDED, "Relu", "Affine", "LeakyRelu", "ThresholdedRelu", "Elu", "Softplus")
NUMBERS = {"Affine": 2, "ScaledTanh": 2, "HardSigmoid": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "Elu": 1}


def node_of(kind, rng, directions, units, names, **attributes):
    """The node and its arrays by name; every activation that has use of numbers is given its own."""
    steps, batch, inputs = 4, 3, 5
    arrays = {
        "x": (steps, batch, inputs), "w": (directions, GATES[kind] * units, inputs),
        "r": (directions, GATES[kind] * units, units), "b": (directions, 2 * GATES[kind] * units), "lengths": (),
        "h": (directions, batch, units), "c": (directions, batch, units), "p": (directions, 3 * units),
    }  # fmt: skip
    arrays = {n: (rng.standard_normal(s) * 0.4).astype(np.float32) for n, s in arrays.items()}
    arrays["lengths"] = np.array([4, 1, 3], np.int32)
    order = ["x", "w", "r", "b", "lengths", "h", *(["c", "p"] if kind == "LSTM" else [])]
    if names:
        counts = [NUMBERS.get(n, 0) for n in names]
        numbers = rng.uniform(0.1, 0.9, (2, len(names)))
        attributes["activations"] = names
        attributes["activation_alpha"] = [float(a) for a, n in zip(numbers[0], counts, strict=True) if n > 0]
        attributes["activation_beta"] = [float(b) for b, n in zip(numbers[1], counts, strict=True) if n > 1]
    kept = {k: v for k, v in attributes.items() if v not in (None, [])}
    outputs = ["y", "last", "cell"][: 3 if kind == "LSTM" else 2]
    return helper.make_node(kind, order, outputs, hidden_size=units, **kept), {n: arrays[n] for n in order}


def answers(node, arrays, target, inputs=("x", "lengths", "h", "c")):
    given = {n: a for n, a in arrays.items() if n in inputs}
    weights = {n: a for n, a in arrays.items() if n not in inputs}
    made = model([node], given, list(node.output), weights)
    return Built(made, isa(target))(*given.values()), reference.run(made, list(given.values()))


def check(node, arrays, target):
    for found, wanted in zip(*answers(node, arrays, target), strict=True):
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * scale)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(GATES)), direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    units=st.sampled_from([1, 3, 8, 17]), clip=st.sampled_from([None, 0.2, 1.5]), flag=st.booleans(),
    seed=st.integers(0, 2**31), target=st.sampled_from(RUNNABLE), data=st.data(),
)  # fmt: skip
def test_any_node(kind, direction, units, clip, flag, seed, target, data):
    directions = 2 if direction == "bidirectional" else 1
    count = CELLS[kind] * directions
    names = data.draw(st.one_of(st.just([]), st.lists(st.sampled_from(ACTIVATIONS), min_size=count, max_size=count)))
    own = {"LSTM": "input_forget", "GRU": "linear_before_reset"}.get(kind)
    more = {own: int(flag)} if own else {}
    rng = np.random.default_rng(seed)
    check(*node_of(kind, rng, directions, units, names, direction=direction, clip=clip, **more), target)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("LSTM", ["Sigmoid", "LeakyRelu", "Elu"]),
        ("GRU", ["HardSigmoid", "Tanh", "Sigmoid", "ScaledTanh"]),
        ("RNN", ["Relu", "ThresholdedRelu"]),
    ],
)
def test_only_activations_that_have_use_of_a_number_take_one(kind, names):
    directions = len(names) // CELLS[kind]
    direction = "bidirectional" if directions == 2 else "forward"
    check(*node_of(kind, np.random.default_rng(1), directions, 5, names, direction=direction), HERE.name)


@pytest.mark.parametrize("name", ["w", "r", "b", "p"])
def test_weights_of_run_time_are_refused_by_name(name):
    node, arrays = node_of("LSTM", np.random.default_rng(1), 1, 5, [])
    given = {n: a for n, a in arrays.items() if n in ("x", name)}
    made = model([node], given, ["y"], {n: a for n, a in arrays.items() if n not in given})
    with pytest.raises(UnsupportedOpError, match=r"op LSTM \(node ''\) needs (a )?constant"):
        program_of(made, "case", HERE)

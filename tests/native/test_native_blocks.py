"""Weights of few bits with a scale for every block of inputs are found, proved, and multiplied without loss."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import few_bits
from native_cases import HERE, RUNNABLE, Built
from spatial_cases import build, call
from test_native_exact import reference

from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.exact import blocks_of
from hasten.native.isa import isa
from hasten.native.kernels.block_dense import BlockDense

BLOCKS = {
    "4 bits": lambda: few_bits(512, 300, 32),
    "4 bits, zero points": lambda: few_bits(256, 520, 16, zero_points=True),
    "4 bits, long blocks": lambda: few_bits(1024, 131, 128),
    "8 bits": lambda: few_bits(384, 400, 64, bits=8),
}


@pytest.mark.parametrize("name", list(BLOCKS))
def test_blocks_are_found_and_proved(name):
    weight = BLOCKS[name]().graph.initializers["w"].const_value.numpy()
    found = blocks_of(weight)
    scale = np.repeat(found.scale, len(weight) // len(found.scale), axis=0)
    np.testing.assert_array_equal(found.values.astype(np.float32) * scale, weight)
    weight = weight.copy()
    weight[-1, -1] = np.nextafter(weight[-1, -1], np.float32(9))
    assert blocks_of(weight) is None, "one weight off its grid"
    assert blocks_of(np.random.default_rng(0).standard_normal((512, 300)).astype(np.float32)) is None


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("name", list(BLOCKS))
def test_weights_of_few_bits_stay_bytes_and_lose_nothing(target, name):
    model = BLOCKS[name]()
    depth = model.graph.initializers["w"].const_value.shape[0]
    built = Built(model, isa(target), extra=("-Werror",))
    kept = isa(target).arch == "x86_64" and "fma" in isa(target).features
    assert isinstance(built.program.steps[0], BlockDense) == kept
    for rows in range(3):
        x = np.random.default_rng(rows).standard_normal((1, depth)).astype(np.float32)
        expected, most = reference(model, x)
        assert (np.abs(built(x)[0] - expected) <= 3e-7 * most).all()
    x[0, 3] = np.inf
    assert not np.isfinite(built(x)[0]).all()


@pytest.mark.parametrize("name", list(BLOCKS))
def test_weights_of_few_bits_take_under_a_third_of_the_room(name):
    model, target = BLOCKS[name](), isa("x86-64-v3")
    weights = emit(program_of(model, "m", target), target).weights
    assert len(weights) < 0.36 * model.graph.initializers["w"].const_value.nbytes


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
def test_a_team_shares_out_blocks():
    team = build(few_bits(512, 300, 32), HERE.name, threads=2)
    assert team.emitted.splits == 1
    x = np.random.default_rng(10).standard_normal((1, 512)).astype(np.float32)
    np.testing.assert_array_equal(call(team, x, parts=2)[0], call(team, x)[0])

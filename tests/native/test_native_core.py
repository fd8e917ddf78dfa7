"""Dense and recurrent kernels, views, fusing and planning, on every instruction set that this machine runs."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import HERE, RUNNABLE, Built, graph, mlp, recurrent
from onnx import helper

from hasten.errors import UnsupportedOpError
from hasten.graph import reference
from hasten.native import build as building
from hasten.native.build import compile_library, compiler
from hasten.native.compile import program_of
from hasten.native.emit import emit
from hasten.native.expr import unshared
from hasten.native.isa import isa
from hasten.native.kernels.elementwise import Elementwise
from hasten.native.plan import plan
from hasten.native.program import Tensor, View


def draw(model, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [[int(d) for d in v.shape] for v in model.graph.inputs if v.name not in model.graph.initializers]
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def check(model, target, tolerance=2e-5):
    built, arrays = Built(model, isa(target)), draw(model)
    found, expected = built(*arrays), reference.run(model, arrays)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(e).max(initial=0))))
    for f, again in zip(found, built(*arrays), strict=True):
        assert f.tobytes() == again.tobytes(), "the same input must give the same bits"
    return built


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("rows", [1, 2, 7, 33])
def test_dense_layers_of_odd_sizes(target, rows):
    for sizes in ([20, 10, 2], [1, 1, 1], [17, 131, 5], [3, 257, 16, 1]):
        check(mlp(sizes, rows), target)


@pytest.mark.parametrize(
    ("equation", "x", "w", "kernel"),
    [
        ("bi,eij->bej", (3, 17), (4, 17, 9), "dense"),
        ("bti,ji->btj", (2, 5, 8), (6, 8), "dense"),
        ("bi,hid->hbd", (3, 7), (2, 7, 20), "dense"),
        ("bhd,hde->bhe", (3, 2, 7), (2, 7, 20), "product"),
        ("bhd,hed->bhe", (3, 2, 7), (2, 20, 7), "product"),
    ],
)
def test_weights_known_now_are_arranged_now(equation, x, w, kernel):
    weight = np.random.default_rng(1).standard_normal(w).astype(np.float32)
    y = np.einsum(equation, np.zeros(x), weight).shape
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    model = graph([node], {"x": x}, {"y": y}, {"w": weight})
    steps = program_of(model, "case", HERE).steps
    assert [s.kernel for s in steps if not isinstance(s, Elementwise)] == [kernel]
    assert all(v.tensor.kind != "constant" for s in steps if isinstance(s, Elementwise) for v in s.reads())
    for target in RUNNABLE:
        check(model, target)


def test_what_two_read_in_another_order_is_copied_once():
    weights = {n: np.random.default_rng(k).standard_normal((6, 5)).astype(np.float32) for k, n in enumerate("ab")}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 0]),
        helper.make_node("MatMul", ["t", "a"], ["c"]),
        helper.make_node("MatMul", ["t", "b"], ["d"]),
        helper.make_node("Concat", ["c", "d"], ["y"], axis=2),
    ]
    model = graph(nodes, {"x": (6, 4, 3)}, {"y": (4, 3, 10)}, weights)
    steps = check(model, HERE.name).program.steps
    assert [s.kernel for s in steps].count("dense") == 2
    assert sum(any(v.tensor.kind == "input" for v in s.reads()) for s in steps) == 1


@pytest.mark.parametrize("target", RUNNABLE)
def test_rows_that_share_a_tensor_keep_to_their_part(target):
    """The last vector of a row is stored whole where nothing lies behind it, and only there."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate([(9, 5), (9, 11), (16, 7)])}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("MatMul", ["x", "w1"], ["b"]),
        helper.make_node("Concat", ["b", "a"], ["c"], axis=1),
        helper.make_node("MatMul", ["c", "w2"], ["y"]),
    ]
    for order in (nodes, [nodes[1], nodes[0], *nodes[2:]]):
        check(graph(order, {"x": (1, 9)}, {"y": (1, 7)}, weights), target)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 33])
def test_softmax_over_two(target, rows):
    """Equal, near, far apart, and what is not finite, as the definition has it."""
    rng = np.random.default_rng(rows)
    x = np.concatenate([rng.standard_normal((rows, 2)) * 10.0**k for k in (-3, 0, 1, 30)]).astype(np.float32)
    x[0] = 0.7, 0.7
    special = [(np.inf, 1), (1, np.inf), (-np.inf, 2), (-np.inf, -np.inf), (np.nan, 1), (1, np.nan), (np.inf, np.inf)]
    x = np.concatenate([x, np.array(special, np.float32)])
    model = graph([helper.make_node("Softmax", ["x"], ["y"])], {"x": x.shape}, {"y": x.shape}, {})
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
        expected = powers / powers.sum(1, keepdims=True)
        # without fused multiply-adds the exponent keeps 24 bits: as much is lost of what weighs little
        apart = np.nan_to_num(np.abs(x[:, :1].astype(np.float64) - x[:, 1:]), nan=0, posinf=0)
    found = Built(model, isa(target))(x)[0]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    off = np.abs(found - expected)[~np.isnan(expected)]
    bound = (expected * (4e-7 + np.minimum(apart, 100) * 2.0**-24) + 1e-37)[~np.isnan(expected)]
    assert np.all(off <= bound), (off / bound).max()


@pytest.mark.parametrize("target", RUNNABLE)
def test_weights_beyond_the_first_cache_are_asked_for_ahead(target):
    far = check(mlp([301, 97, 131, 7]), target).emitted.source
    near = check(mlp([60, 97, 7]), target).emitted.source
    asks = isa(target).arch == "x86_64" and target != "zen4"  # which reads on by itself
    assert ("__builtin_prefetch" in far) == asks
    assert "__builtin_prefetch" not in near


@settings(max_examples=12, deadline=None, derandomize=True)
@given(k=st.integers(1, 300), n=st.integers(1, 300), rows=st.sampled_from([1, 1, 3, 16, 50]))
def test_dense_of_any_shape(k, n, rows):
    check(mlp([k, n, 3], rows), HERE.name)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(target, kind):
    for direction in ("forward", "reverse", "bidirectional"):
        check(recurrent(kind, 5, 3, 20, batch=2, direction=direction), target)
    if kind == "GRU":
        check(recurrent(kind, 6, 9, 33, linear_before_reset=1), target)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(steps=st.integers(1, 9), inputs=st.integers(1, 40), units=st.integers(1, 70), batch=st.integers(1, 3))
def test_lstm_of_any_shape(steps, inputs, units, batch):
    check(recurrent("LSTM", steps, inputs, units, batch=batch), HERE.name)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_long_sequences_do_not_drift(kind):
    check(recurrent(kind, 1000, 4, 16), HERE.name)


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
def test_a_team_gives_the_same_bits_as_one_thread():
    model = mlp([256, 384, 256, 40])
    one, team = Built(model, HERE), Built(model, HERE, threads=2)
    assert team.emitted.splits == 2, "the two wide layers are shared out, the narrow one is not"
    (x,) = draw(model)
    # hasten_run of a team build computes all parts in one thread; only the panel widths differ from a single build.
    np.testing.assert_allclose(team(x)[0], one(x)[0], rtol=1e-6, atol=1e-6)


def test_elementwise_chains_become_epilogues():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["y"]),
    ]
    weights = {"w": rng.standard_normal((8, 30)).astype(np.float32), "b": rng.standard_normal(30).astype(np.float32)}
    model = graph(nodes, {"x": (1, 8)}, {"y": (1, 30)}, weights)
    program = program_of(model, "case", HERE)
    assert [step.kernel for step in program.steps] == ["dense"]
    check(model, HERE.name)


@pytest.mark.parametrize("op", ["Sigmoid", "Floor"])
def test_a_chain_of_any_length_is_a_few_loops(op):
    """Deeper than Python recurses; alone, behind a layer, and with another result from its middle."""
    count, pair = 1200, [helper.make_node("MatMul", ["x", "w"], ["v0"])]
    for i in range(count):
        inputs = [f"v{i}", f"v{max(0, i - 7)}"] if i % 3 == 0 else [f"v{i}"]
        pair.append(helper.make_node("Add" if i % 3 == 0 else op if i % 3 == 1 else "Neg", inputs, [f"v{i + 1}"]))
    weights = {"w": np.eye(5, dtype=np.float32)}
    shapes = {f"v{count}": (2, 5), f"v{count // 2}": (2, 5)}
    model = graph(pair, {"x": (2, 5)}, shapes, weights)
    x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    for found, wanted in zip(Built(model, HERE, extra=("-O1",))(x), reference.run(model, [x]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", ["MatMul", "Neg"])
def test_values_that_are_read_twice_in_a_row_make_no_endless_expression(first):
    """Fifty times x + sin(x) is 2^50 operations for whoever walks it and meets what is shared again."""
    nodes = [helper.make_node(first, ["x", "w"] if first == "MatMul" else ["x"], ["v0"])]
    for i in range(50):
        nodes.append(helper.make_node("Sin", [f"v{i}"], [f"s{i}"]))
        nodes.append(helper.make_node("Add", [f"v{i}", f"s{i}"], [f"v{i + 1}"]))
    weights = {"w": np.eye(5, dtype=np.float32)} if first == "MatMul" else {}
    model = graph(nodes, {"x": (2, 5)}, {"v50": (2, 5)}, weights)
    steps = program_of(model, "case", HERE).steps
    assert max(unshared(step.expr if isinstance(step, Elementwise) else step.epilogue) for step in steps) < 20_000
    assert len(steps) < 10
    check(model, HERE.name)


def test_transposes_and_slices_cost_nothing():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Slice", ["t", "starts", "ends", "axes", "steps"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    weights = {"starts": np.array([5]), "ends": np.array([-100]), "axes": np.array([0]), "steps": np.array([-2])}
    model = graph(nodes, {"x": (4, 6)}, {"y": (3, 4)}, weights)
    program = program_of(model, "case", HERE)
    assert len(program.steps) == 1, "one loop reads through the views"
    for target in RUNNABLE:
        check(model, target)


def test_nan_and_infinity_pass_through():
    model = mlp([4, 8, 4])
    built = Built(model, HERE)
    x = np.array([[np.nan, 0, 0, 0]], np.float32)
    assert np.isnan(built(x)[0]).all()
    x = np.array([[np.inf, 1, -1, 0]], np.float32)
    (found,), (expected,) = built(x), reference.run(model, [x])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_unknown_operator_is_named():
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=1)]
    model = graph(nodes, {"x": (2, 2)}, {"y": (2, "n")}, {})
    with pytest.raises(UnsupportedOpError, match="NonZero"):
        program_of(model, "case", HERE)


def test_emission_is_pure_and_warning_free():
    model = recurrent("LSTM", 4, 3, 20, direction="bidirectional")
    for target in RUNNABLE:
        first, again = (emit(program_of(model, "case", isa(target)), isa(target)) for _ in range(2))
        assert first.source == again.source
        assert first.weights == again.weights
        Built(model, isa(target), extra=("-Werror",))


def test_a_library_holds_nothing_to_debug_by(tmp_path):
    emitted = emit(program_of(mlp([20, 10, 2]), "case", HERE), HERE)
    assert b".debug_" not in compile_library(emitted, HERE, tmp_path).read_bytes()


def test_gcc_takes_the_same_code():
    model = mlp([20, 10, 2])
    emitted = emit(program_of(model, "case", isa("c")), isa("c"))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "m.c").write_text(emitted.source)
        command = ["gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-c", "m.c", "-o", "m.o"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no gcc here")
    assert done.returncode == 0, done.stderr


def test_arena_never_overlaps_live_tensors():
    model = mlp([64, 300, 200, 100, 300, 10], rows=3)
    program = program_of(model, "case", HERE)
    layout = plan(program)
    spans = []
    for position, step in enumerate(program.steps):
        for view in (*step.reads(), *step.writes()):
            if view.tensor.kind == "temporary":
                spans.append((id(view.tensor), layout.offsets[id(view.tensor)], view.tensor.nbytes, position))
    life: dict[int, list[int]] = {}
    for key, *_, position in spans:
        life.setdefault(key, []).append(position)
    for a, start_a, size_a, _ in spans:
        for b, start_b, size_b, _ in spans:
            if a != b and min(life[a]) <= max(life[b]) and min(life[b]) <= max(life[a]):
                assert start_a + size_a <= start_b or start_b + size_b <= start_a
    assert layout.nbytes < sum({key: size for key, _, size, _ in spans}.values()), "dead tensors make room"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_views_are_numpy_views(shape, seed):
    """Any chain of transpose, slice and reshape points at the elements that numpy would give."""
    rng = np.random.default_rng(seed)
    data = np.arange(int(np.prod(shape))).reshape(shape)
    view = View.whole(Tensor("t", data.size), shape)
    for _ in range(4):
        kind = rng.integers(3)
        if kind == 0:
            perm = rng.permutation(data.ndim)
            data, view = data.transpose(perm), view.transpose([int(p) for p in perm])
        elif kind == 1:
            axis = int(rng.integers(data.ndim))
            start = int(rng.integers(data.shape[axis]))
            count = int(rng.integers(1, data.shape[axis] - start + 1))
            data = data[(slice(None),) * axis + (slice(start, start + count),)]
            view = view.slice(axis, start, count)
        else:
            target = (-1,) if rng.integers(2) else (data.shape[0], -1) if data.size else data.shape
            moved = view.reshape(data.reshape(target).shape)
            if moved is None:
                continue
            data, view = data.reshape(target), moved
        assert data.shape == view.shape
        index = np.indices(data.shape)
        where = view.offset + sum(i * s for i, s in zip(index, view.strides, strict=True))
        np.testing.assert_array_equal(where if data.ndim else [where], data)


def test_mlp_code_reads_top_to_bottom():
    source = emit(program_of(mlp([20, 10, 2]), "mlp", isa("x86-64-v4")), isa("x86-64-v4")).source
    assert re.search(
        r"/\* mlp: compiled by hasten for x86-64-v4\.\n   input 0: float32 1x20\n   output 0: float32 1x2", source
    )
    assert "/* 20 -> 10, relu */" in source
    assert (
        source.index("static void dense_1(") < source.index("static void dense_2(") < source.index("void hasten_run(")
    )
    assert len(source.splitlines()) < 130


def test_a_compiler_is_found():
    assert compiler().command


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("shape", [(1, 33, 70), (3, 16, 32), (2, 5, 200), (1, 64, 997)])
def test_turned_copies(target, shape):
    """Channels first against channels last: any size, whole blocks and what is left of them."""
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1])
    model = graph([node], {"x": shape}, {"y": (shape[0], shape[2], shape[1])}, {})
    assert [s.kernel for s in program_of(model, "case", isa(target)).steps] == ["transpose"]
    check(model, target, tolerance=0)


def test_turned_images_merge_height_and_width():
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])
    model = graph([node], {"x": (2, 3, 24, 20)}, {"y": (2, 24, 20, 3)}, {})
    (step,) = program_of(model, "case", HERE).steps
    assert step.title == "480 x 3, turned"
    check(model, HERE.name, tolerance=0)


def test_a_disk_that_fills_up_leaves_no_piece_of_a_library_in_the_cache(tmp_path, monkeypatch):
    copied, cache = shutil.copyfile, tmp_path / "cache"

    def half(source, target):
        if cache not in Path(target).parents:
            return copied(source, target)
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building.platformdirs, "user_cache_dir", lambda _: str(cache))
    monkeypatch.setattr(building.shutil, "copyfile", half)
    emitted = emit(program_of(mlp([3, 4, 1]), "disk", HERE), HERE)
    assert compile_library(emitted, HERE, tmp_path).exists()
    assert cache.is_dir() and not [path for path in cache.rglob("*") if path.is_file()]

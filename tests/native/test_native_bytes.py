"""Layers that never leave bytes: on every instruction set, by a team, up to the ends of arrays, with narrow weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from int8_cases import TARGETS, Graph, compare, dynamic_layers, expected, layers, numbers, raw_layers, small_net
from native_cases import HERE, Built
from onnx import helper
from spatial_cases import build, call

from hasten.native import emit
from hasten.native.compile import program_of
from hasten.native.expr import is_vector
from hasten.native.isa import ISAS, isa
from hasten.native.kernels.elementwise import Elementwise

ON_BYTES = {"byteconv", "bytedepthwise", "bytepool", "bytesum", "bytetable"}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_every_kind_of_layer(dtype):
    model = layers(dtype)
    some = [name for name in TARGETS if name not in ("x86-64-v2", "c-vector")]  # like c and v3; a network runs on all
    compare(model, *numbers(model), step=0.05, targets=some if dtype == "int8" else [HERE.name])


@pytest.mark.parametrize("channels", [5, 64, 67])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_callers_own_bytes(dtype, channels):
    """Inputs and outputs are exactly sized arrays between guards."""
    model = raw_layers(dtype, channels)
    info = np.iinfo(dtype)
    x = np.random.default_rng(1).integers(info.min, info.max + 1, (1, channels, 5, 7)).astype(dtype)
    for found, wanted in zip(call(build(ir.from_proto(model), HERE.name), x), expected(model, x), strict=True):
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
        assert (found != wanted).mean() < 0.02


@pytest.mark.skipif(HERE.arch == "any", reason="plain C has no team")
def test_a_team_gives_the_same_bits():
    model = layers("int8", seed=2)
    graph, arrays = ir.from_proto(model), numbers(model)
    team = build(graph, HERE.name, threads=2)
    assert team.emitted.splits >= 8
    alone = call(build(graph, HERE.name), *arrays)
    for parts in (1, 2, 3, 5):
        for found, wanted in zip(call(team, *arrays, parts=parts), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)


# x, columns of the weight and its kernel, attributes: rows or, of one line, columns are copied by the thread that reads
SHARED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, list[int]]]] = {
    "line": ((1, 24, 190), (20, 9), {"pads": [4, 4]}),
    "line, pads behind": ((1, 5, 150), (33, 4), {"pads": [0, 7]}),
    "line, stride 3": ((1, 16, 400), (16, 2), {"pads": [3, 0], "strides": [3]}),
    "line, dilated": ((1, 24, 190), (20, 5), {"pads": [9, 3], "dilations": [3]}),
    "short line": ((1, 64, 7), (64, 3), {"pads": [1, 1]}),
    "images": ((3, 8, 5, 6), (17, 3, 3), {"pads": [1, 1, 1, 1]}),
    "images, strides": ((2, 24, 11, 9), (24, 3, 2), {"pads": [2, 0, 0, 1], "strides": [2, 3]}),
    "image, strides beyond the kernel": ((1, 24, 30, 9), (24, 2, 2), {"pads": [1, 1, 1, 1], "strides": [4, 2]}),
    "image, dilated": ((1, 9, 16, 15), (70, 3, 3), {"pads": [4, 2, 4, 2], "dilations": [4, 2]}),
    "apart": ((1, 24, 17, 12), (24, 3, 3), {"pads": [1, 1, 1, 1], "group": [24]}),
    "apart, strides": ((2, 24, 17, 12), (24, 3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2], "group": [24]}),
}
# Too short to be cut, or copied by all before any reads.
TOGETHER = {"short line", "apart", "apart, strides"}


def shared_layer(name: str) -> ir.Model:
    """One convolution of ``SHARED``, float32 outside."""
    shape, (count, *kernel), given = SHARED[name]
    attributes = {key: value[0] if key == "group" else value for key, value in given.items()}
    g = Graph(7)
    w = g.filters(count, shape[1] // attributes.get("group", 1), *kernel)
    y = g.rounded(g.node("Conv", g.rounded("x"), w, **attributes), scale=0.03)
    return ir.from_proto(g.model([y], {"x": shape}))


@pytest.mark.parametrize("name", SHARED)
def test_each_thread_copies_what_it_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "SPLIT_MACS", 1)
    model = shared_layer(name)
    x = np.random.default_rng(2).standard_normal(SHARED[name][0]).astype(np.float32)
    for target in (t for t in TARGETS if isa(t).arch != "any"):
        alone = call(build(model, target), x)
        for threads in (2, 3):
            team = build(model, target, threads=threads)
            assert ("own = image" in team.emitted.source) == (name not in TOGETHER)
            for parts in (1, 2, 3, 5):
                np.testing.assert_array_equal(call(team, x, parts=parts)[0], alone[0])


@pytest.mark.parametrize("channels", [8, 24])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (2, 1)])
def test_windows_wholly_within_the_image_know_no_border(channels: int, kernel: tuple[int, int]) -> None:
    g = Graph(3)
    x, w = g.rounded("x"), g.filters(channels, 1, *kernel)
    y = g.rounded(g.node("Conv", x, w, group=channels), scale=0.03)
    model = g.model([y], {"x": (1, channels, 9, 7)})
    for target in TARGETS:
        Built(ir.from_proto(model), isa(target), extra=("-Werror",))
    compare(model, *numbers(model), step=0.05)


def test_a_network_of_bytes_stays_in_bytes():
    """One step quantises what comes in, one takes the result back; nothing else is not on bytes."""
    model = small_net()
    kernels = [step.kernel for step in program_of(ir.from_proto(model), "case", HERE).steps]
    assert [k for k in kernels if k not in ON_BYTES] == ["elementwise", "elementwise"], kernels
    assert len(kernels) == 9
    compare(model, *numbers(model), step=0.0107)


def test_a_table_answers_for_every_byte():
    x = np.arange(-128, 128, dtype=np.int8)
    for op, options in {"Sigmoid": {}, "Tanh": {}, "Softplus": {}, "Gelu": {"approximate": "tanh"}, "HardSwish": {},
                        "Elu": {"alpha": 0.7}, "HardSigmoid": {"alpha": 0.3}, "Exp": {}}.items():  # fmt: skip
        g = Graph(0)
        y = g.node(op, g.node("DequantizeLinear", "x", g.constant(np.float32(0.04)), g.constant(np.int8(7))), **options)
        y = g.node("QuantizeLinear", y, g.constant(np.float32(0.03)), g.constant(np.int8(-100)))
        model = g.model([y], {"x": (256,)}, {"x": "int8"})
        built = Built(ir.from_proto(model), HERE)
        assert [s.kernel for s in built.program.steps] == ["bytetable"]
        gap = np.abs(built(x)[0].astype(int) - expected(model, x)[0].astype(int))
        assert gap.max() <= 1 and (gap > 0).sum() <= 3, op


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_weights_of_four_bits_are_unpacked_when_compiled(dtype):
    import ml_dtypes
    from onnx import TensorProto, shape_inference

    rng, info = np.random.default_rng(0), (-8, 8) if dtype == "int4" else (0, 16)
    kind = TensorProto.INT4 if dtype == "int4" else TensorProto.UINT4
    weight = rng.integers(*info, (37, 20))
    packed = helper.make_tensor("w", kind, weight.shape, weight.astype(getattr(ml_dtypes, dtype)))
    zeros = rng.integers(*info, 20)
    zero = helper.make_tensor("z", kind, zeros.shape, zeros.astype(getattr(ml_dtypes, dtype)))
    scale = rng.uniform(0.01, 0.02, 20).astype(np.float32)
    g = Graph(0)
    x = g.rounded("x")
    w = g.node("DequantizeLinear", "w", g.constant(scale), "z", axis=1)
    outputs = [g.rounded(g.node("MatMul", x, w), scale=0.02), g.node("MatMul", "x", w)]
    model = g.model(outputs, {"x": (3, 37)})
    model.graph.initializer.extend([packed, zero])
    model = shape_inference.infer_shapes(model, data_prop=True)
    built = Built(ir.from_proto(model), HERE)
    assert "byteconv" in [s.kernel for s in built.program.steps]
    (data,) = numbers(model)
    found, wanted = built(data), expected(model, data)
    assert np.abs(found[0] - wanted[0]).max() <= 0.02 * 1.001
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [HERE.name, "c"])
def test_convolutions_quantised_at_run_time(name):
    """Borders hold the zero point, whatever it turns out to be; the sums are whole numbers, hence equal."""
    model = dynamic_layers()
    arrays = numbers(model)
    for found, wanted in zip(Built(ir.from_proto(model), isa(name))(*arrays), expected(model, *arrays), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_is_not_a_number_does_not_disturb_a_dynamic_range():
    g = Graph(0)
    g.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
    built = Built(ir.from_proto(g.model(["q", "s", "z"], {"x": (37,)})), HERE)
    x = np.linspace(-1, 3, 37, dtype=np.float32)
    wanted = built(x)
    x[5] = np.nan
    found = built(x)
    assert [float(v) for v in found[1:]] == [float(v) for v in wanted[1:]]
    np.testing.assert_array_equal(np.delete(found[0], 5), np.delete(wanted[0], 5))


def test_sums_too_large_for_int32_saturate():
    """Scales so far apart that a scaled sum leaves int32: the result is the last byte, not the first."""
    g = Graph(0)
    x = g.node("DequantizeLinear", "x", g.constant(np.float32(1e6)), g.constant(np.int8(0)))
    y = g.node("Conv", x, g.filters(64, 8, 1, 1))
    y = g.node("QuantizeLinear", y, g.constant(np.float32(1e-3)), g.constant(np.int8(5)))
    model = g.model([y], {"x": (1, 8, 3, 3)}, {"x": "int8"})
    x = np.random.default_rng(0).integers(-128, 128, (1, 8, 3, 3)).astype(np.int8)
    assert set(np.unique(expected(model, x)[0])) == {-128, 127}
    for name in TARGETS:
        np.testing.assert_array_equal(build_and_run(model, name, x), expected(model, x)[0])


def build_and_run(model, name, x):
    return call(build(ir.from_proto(model), name), x)[0]


@pytest.mark.parametrize("channels", [8, 24, 32])
def test_tall_images_are_walked_in_chunks_of_rows(channels):
    """More rows than one chunk holds, of two images, by odd strides and dilations, with nine bits a weight."""
    g = Graph(channels, "uint8")
    x, apart = g.rounded("x"), {"group": channels}
    outputs = [
        g.rounded(g.node("Conv", x, weight, **apart, **options), scale=0.03)
        for weight, options in (
            (g.filters(channels, 1, 5, 5), {"pads": [2, 2, 2, 2]}),
            (g.wide_filters(channels, 1, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
            (g.filters(channels, 1, 3, 4), {"dilations": [3, 3], "strides": [1, 2]}),
        )
    ]
    model = g.model(outputs, {"x": (2, channels, 61, 70)})
    compare(model, *numbers(model), step=0.03, targets=[n for n in TARGETS if n.startswith("x86")])


def grouped(dtype: str) -> onnx.ModelProto:
    """Groups of several channels, one alone with several filters, and a line."""
    g = Graph(3, dtype)
    inputs = {"x24": (2, 24, 9, 7), "x64": (1, 64, 6, 5), "x6": (1, 6, 11, 8), "line": (1, 12, 17)}
    x = {name: g.rounded(name) for name in inputs}

    def conv(name: str, count: int, groups: int, kernel: tuple[int, ...], **options: object) -> str:
        weight = g.filters(count, inputs[name][1] // groups, *kernel)
        bias = g.constant(g.rng.standard_normal(count).astype(np.float32))
        return g.rounded(g.node("Conv", x[name], weight, bias, group=groups, **options), scale=0.03)

    outputs = [
        conv("x24", 36, 3, (3, 3), pads=[1, 1, 1, 1]), conv("x24", 24, 12, (3, 2), strides=[2, 1]),
        conv("x64", 128, 2, (1, 1)), conv("x64", 64, 16, (3, 3), dilations=[2, 2], pads=[2, 2, 2, 2]),
        conv("x6", 24, 6, (3, 3), pads=[1, 1, 1, 1]), conv("x24", 48, 24, (5, 1), strides=[1, 2]),
        conv("line", 20, 4, (3,), pads=[1, 1]), conv("line", 36, 12, (4,)),
    ]  # fmt: skip
    return g.model(outputs, inputs)


def transposed(dtype: str) -> onnx.ModelProto:
    """Kernels larger than, as large as and smaller than the stride, with borders cut off or added."""
    g = Graph(4, dtype)
    inputs = {"x": (2, 20, 5, 6), "line": (1, 7, 13)}
    x = {name: g.rounded(name) for name in inputs}

    def conv(name: str, count: int, kernel: tuple[int, ...], *, per_channel: bool = True, **options: object) -> str:
        channels = inputs[name][1]
        data = g.constant(g.rng.integers(-127, 128, (channels, count, *kernel)).astype(np.int8))
        scale = (g.rng.uniform(0.5, 1.5, count if per_channel else 1) / (40 * np.sqrt(channels * 4))).astype(np.float32)
        given = (data, g.constant(scale)) if per_channel else (data, g.constant(scale[0]))
        weight = g.node("DequantizeLinear", *given, **({"axis": 1} if per_channel else {}))
        return g.rounded(g.node("ConvTranspose", x[name], weight, **options), scale=0.03)

    outputs = [
        conv("x", 16, (2, 2), strides=[2, 2]), conv("x", 9, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        conv("x", 8, (3, 3), strides=[2, 2], pads=[0, 0, 1, 1], per_channel=False),
        conv("x", 11, (4, 5), strides=[2, 3], pads=[1, 2, 1, 2], output_padding=[1, 0]),
        conv("x", 8, (2, 1), strides=[3, 2]), conv("x", 32, (3, 3), pads=[1, 1, 1, 1]),
        conv("line", 10, (4,), strides=[2], pads=[1, 1]),
    ]  # fmt: skip
    return g.model(outputs, inputs)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("made", [grouped, transposed])
def test_groups_and_transposed_convolutions_stay_bytes(made, dtype):
    model = made(dtype)
    kernels = [step.kernel for step in program_of(ir.from_proto(model), "case", HERE).steps]
    assert not {k for k in kernels if "conv" in k} - ON_BYTES
    compare(model, *numbers(model), step=0.03, targets=TARGETS if dtype == "int8" else [HERE.name])


@pytest.mark.parametrize("name", sorted(ISAS))
def test_bytes_are_widened_whoever_moves_them_first(name):
    """A step that only puts bytes into another order may be merged into the one that reads them as floats."""
    for step in program_of(ir.from_proto(grouped("int8")), "case", isa(name)).steps:
        if isinstance(step, Elementwise) and step.y.dtype == "float32":
            assert is_vector(step.expr), step.title


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("shape", "axes", "kept"),
    [((2, 24, 5, 7), [2, 3], 0), ((1, 40, 9, 3), [-1, -2], 1), ((2, 20, 32), [1], 0), ((4, 33), [0], 1),
     ((3, 40, 6), [2], 0), ((2, 3, 5, 17), [0, 2], 0)],
)  # fmt: skip
def test_means_over_axes_stay_bytes(shape, axes, kept, dtype):
    """As PyTorch writes a global pool: ``mean([2, 3])``."""
    g = Graph(5, dtype)
    y = g.node("ReduceMean", g.rounded("x"), g.constant(np.array(axes)), keepdims=kept)
    model = g.model([g.rounded(y, scale=0.0113)], {"x": shape})
    kernels = [step.kernel for step in program_of(ir.from_proto(model), "case", HERE).steps]
    assert "bytepool" in kernels and "reduce" not in kernels, kernels
    compare(model, *numbers(model), step=0.0113)


def test_a_mean_that_fills_no_vector_is_taken_of_floats():
    g = Graph(5)
    y = g.node("ReduceMean", g.rounded("x"), keepdims=0)
    model = g.model([g.rounded(y, scale=0.0113)], {"x": (1, 3, 40)})
    assert "reduce" in [step.kernel for step in program_of(ir.from_proto(model), "case", HERE).steps]
    compare(model, *numbers(model), step=0.0113)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(("shape", "axis"), [((1, 17, 6, 5), 1), ((1, 64, 4, 4), -3), ((2, 8, 9), -1), ((1, 12), 1)])
def test_bytes_one_after_the_other_stay_bytes(shape, axis, dtype):
    """What has the scale of the whole is copied, what has another one is rounded on its way."""
    g = Graph(11, dtype)
    x, other = g.rounded("x", 0.05, 3), g.rounded("y", 0.0413, 9)
    joined = g.node("Concat", x, other, x, axis=axis)
    outputs = [g.rounded(joined, 0.05, 3), g.rounded(g.node("Relu", joined), 0.05, 3), g.rounded(joined, 0.0613, 2)]
    model = g.model(outputs, {"x": shape, "y": shape})
    steps = program_of(ir.from_proto(model), "case", HERE).steps
    assert all(w.tensor.kind == "output" for s in steps for w in s.writes() if w.dtype == "float32")
    compare(model, *numbers(model), step=0.0613, targets=TARGETS if dtype == "int8" else [HERE.name])


def test_bytes_behind_a_layer_are_joined_in_its_own_order():
    """Channels last, as the layers write them and as the next one reads them: nothing is put into another order."""
    g = Graph(12)
    x = g.rounded("x", 0.05, 3)
    parts = [g.rounded(g.node("Conv", x, g.filters(16, 24, 1, 1)), scale, 0) for scale in (0.05, 0.03)]
    y = g.rounded(g.node("Concat", *parts, axis=1), 0.05, 0)
    model = g.model([g.rounded(g.node("Conv", y, g.filters(8, 32, 1, 1)), 0.03)], {"x": (1, 24, 6, 5)})
    first, second, layer, _ = program_of(ir.from_proto(model), "case", HERE).steps[-4:]
    written = [view.tensor for step in (first, second) for view in step.writes()]
    assert layer.kernel == "byteconv"
    read = next(view.tensor for view in layer.reads())
    assert all(tensor is read and tensor.dtype == "uint8" for tensor in written)
    compare(model, *numbers(model), step=0.03)


def test_whole_numbers_of_groups():
    """Operators that say themselves that they work on bytes, with groups and a zero point known at run time."""
    g = Graph(0, "uint8")
    made = [g.name() for _ in range(3)]
    g.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], made))
    outputs = []
    for count, groups in ((12, 4), (24, 24), (48, 24)):
        weight = g.constant(g.rng.integers(-128, 128, (count, 24 // groups, 3, 3)).astype(np.int8))
        outputs.append(g.node("ConvInteger", made[0], weight, made[2], group=groups, pads=[1, 1, 1, 1]))
    model = g.model(outputs, {"x": (1, 24, 5, 7)})
    arrays = numbers(model)
    for name in (HERE.name, "c"):
        for found, wanted in zip(
            Built(ir.from_proto(model), isa(name))(*arrays), expected(model, *arrays), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)

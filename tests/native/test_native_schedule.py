"""How steps are computed: by a model of the machine always the same, by timing only what is clearly faster."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from native_cases import HERE, graph, mlp
from onnx import helper
from spatial_cases import call

from hasten.api import prepare
from hasten.api.explaining import op_times
from hasten.api.settings import Settings
from hasten.errors import SettingsError
from hasten.graph import reference
from hasten.native import schedule as schedule_module
from hasten.native.compile import compile_graph, program_of
from hasten.native.emit import BUILT, Emitter, emit
from hasten.native.emit_timed import emit_apart
from hasten.native.explain import profile
from hasten.native.isa import Isa, isa
from hasten.native.kernels import conv as conv_module
from hasten.native.kernels import depthwise as depthwise_module
from hasten.native.kernels.sweep_taps import taps_of
from hasten.native.kernels.winograd import Winograd
from hasten.native.kernels.winograd_transforms import Transforms
from hasten.native.plan import apart
from hasten.native.program import Program, Step
from hasten.native.timing import fastest, measure
from hasten.sources.detect import open_source
from hasten.sources.samples import samples


def convolutions(channels: int = 16):
    """Twice the same convolution (direct or by minimal filtering), one of stride 2, one by channel, a product."""
    rng = np.random.default_rng(7)

    def node(x, w, y, **attributes):
        return [helper.make_node("Conv", [x, w], [f"{y}c"], **attributes), helper.make_node("Relu", [f"{y}c"], [y])]

    weights = {
        "w1": rng.standard_normal((channels, channels, 3, 3)),
        "w2": rng.standard_normal((channels, channels, 3, 3)),
        "w3": rng.standard_normal((2 * channels, channels, 3, 3)),
        "w4": rng.standard_normal((2 * channels, 1, 3, 3)),
        "w5": rng.standard_normal((2 * channels, 40)),
    }
    around = [1, 1, 1, 1]
    nodes = node("x", "w1", "a", pads=around) + node("a", "w2", "b", pads=around)
    nodes += node("b", "w3", "c", pads=around, strides=[2, 2])
    nodes += node("c", "w4", "d", pads=around, group=2 * channels)
    nodes += [helper.make_node("GlobalAveragePool", ["d"], ["e"]), helper.make_node("Flatten", ["e"], ["f"])]
    nodes += [helper.make_node("MatMul", ["f", "w5"], ["y"])]
    scaled = {k: (v / np.sqrt(v[0].size)).astype(np.float32) for k, v in weights.items()}
    return graph(nodes, {"x": (1, channels, 12, 12)}, {"y": (1, 40)}, scaled)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder of this test alone."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_: tmp_path / "hasten")
    return tmp_path / "hasten" / "schedules"


def other_is_best(turn, program, groups, target):
    """Stands for a measurement: of every group one way takes half of the time."""
    return [[[1.0 if i == turn % len(group) else 2.0 for i in range(len(group))]] * 3 for group in groups]


last_is_best = partial(other_is_best, -1)


@pytest.mark.parametrize(
    ("rounds", "chosen"),
    [
        ([[100, 90, 80]] * 5, 2),
        ([[100, 96, 97]] * 5, 0),  # faster, but no more than chance
        ([[100, 90, 120]] * 3 + [[100, 110, 120]] * 2, 1),  # in most rounds
        ([[100, 50]] * 2 + [[100, 101]] * 3, 0),  # in too few
        ([[100]] * 3, 0),
    ],
)
def test_only_what_is_clearly_faster_in_most_rounds_is_taken(rounds, chosen):
    assert fastest(rounds) == chosen


@pytest.mark.parametrize(
    ("caches", "filtered"), [((1 << 20, 32 << 20), True), ((8 << 20, 0), True), ((1 << 20, 0), False)]
)
def test_minimal_filtering_of_deep_layers_needs_a_cache_for_their_weights(caches, filtered):
    second, last = caches
    target = replace(isa("zen4"), second_bytes=second, last_bytes=last)
    weights = {"w": np.zeros((256, 256, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    model = graph([node], {"x": (1, 256, 4, 4)}, {"y": (1, 256, 4, 4)}, weights)
    assert any(isinstance(step, Winograd) for step in program_of(model, "case", target).steps) is filtered


@pytest.mark.parametrize("target", ["x86-64-v4", "zen4", "x86-64-v3", "aarch64", "c"])
def test_the_model_always_settles_on_the_same(target):
    model = convolutions()
    program = program_of(model, "case", isa(target))
    assert all(step.way for step in program.steps if step.macs())
    assert not program.timed
    again = program_of(model, "case", isa(target))
    assert emit(program, isa(target)).source == emit(again, isa(target)).source


@pytest.mark.parametrize("model", [convolutions(), convolutions(9), mlp([40, 72, 30, 6]), mlp([24, 40, 7], rows=21)])
def test_every_way_gives_the_same_answers(model, cache, tmp_path, monkeypatch):
    """Of every step each way in turn, also those that the model thinks little of."""
    x = np.random.default_rng(1).standard_normal(tuple(model.graph.inputs[0].shape)).astype(np.float32)
    (want,) = reference.run(model, [x])
    monkeypatch.setattr(schedule_module, "_MOST_WAYS", 12)
    monkeypatch.setattr(conv_module, "NEARLY", 9.0)
    used: dict[int, set[str]] = {}
    for turn in range(1, 5):
        monkeypatch.setattr(schedule_module, "measure", partial(other_is_best, turn))
        for kept in cache.glob("*.json"):
            kept.unlink()
        built = compile_graph(model, HERE, tmp_path / str(turn), schedule="timed")
        for i in built.program.timed:
            used.setdefault(i, set()).add(built.program.steps[i].way)
        (got,) = call(built, x)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())
    assert sum(len(ways) for ways in used.values()) >= 2 * len(used) > 0, used


def test_equal_steps_are_timed_once_and_choices_are_kept(cache, monkeypatch):
    calls: list[list[list[str]]] = []

    def measured(program, groups, target):
        calls.append([[step.way for step in group] for group in groups])
        return last_is_best(program, groups, target)

    monkeypatch.setattr(schedule_module, "measure", measured)
    monkeypatch.setattr(conv_module, "NEARLY", 9.0)
    model = convolutions()
    by_model = program_of(model, "case", HERE)
    assert program_of(model, "case", HERE, schedule="kept").timed == frozenset(), "nothing is kept yet"
    timed = program_of(model, "case", HERE, schedule="timed")
    assert len(calls) == 1
    twins = [i for i, step in enumerate(timed.steps) if step.title.endswith("16 -> 16, 12x12, relu")]
    assert len(twins) == 2 and set(twins) <= timed.timed
    assert sum(group[0] == by_model.steps[twins[0]].way for group in calls[0]) == 1
    assert len({timed.steps[i].way for i in twins}) == 1
    assert all(1 < len(group) <= 5 for group in calls[0])
    assert [s.way for s in timed.steps] != [s.way for s in by_model.steps]
    for how in ("timed", "kept"):
        again = program_of(model, "case", HERE, schedule=how)
        assert len(calls) == 1, "what is kept is not timed again"
        assert emit(again, HERE).source == emit(timed, HERE).source
        assert again.timed == timed.timed
    assert program_of(model, "case", HERE).timed == frozenset(), "the model looks at no cache"


def test_what_is_light_with_its_equals_is_not_written_to_be_looked_up(cache, monkeypatch):
    cache.mkdir(parents=True)
    written = []
    plain = schedule_module._text
    monkeypatch.setattr(schedule_module, "_text", lambda step, target: written.append(step) or plain(step, target))
    steps = program_of(convolutions(), "case", HERE, schedule="kept").steps
    total = sum(step.macs() for step in steps)
    heavy = [step for step in steps if sum(s.macs() for s in steps if s.macs() == step.macs()) / total >= 0.03]
    assert {step.title for step in written} == {step.title for step in heavy}
    assert len(written) < sum(bool(step.macs() and step.way) for step in steps)


def test_another_compiler_or_machine_has_choices_of_its_own(cache, monkeypatch):
    monkeypatch.setattr(schedule_module, "measure", last_is_best)
    model = mlp([40, 72, 30])
    assert program_of(model, "case", HERE, schedule="timed").timed
    monkeypatch.setattr(schedule_module, "host_key", lambda: "another machine")
    assert not program_of(model, "case", HERE, schedule="kept").timed


@pytest.mark.parametrize("text", ["", "{", "[]", '{"way": 3}', '{"way": "no longer offered"}'])
def test_kept_choices_that_cannot_be_used_leave_the_model_its_own(text, cache, monkeypatch):
    monkeypatch.setattr(schedule_module, "measure", last_is_best)
    model = mlp([40, 72, 30])
    program_of(model, "case", HERE, schedule="timed")
    files = list(cache.glob("*.json"))
    assert files and all(json.loads(f.read_text())["way"] for f in files)
    for file in files:
        file.write_text(text)
    kept = program_of(model, "case", HERE, schedule="kept")
    assert not kept.timed
    assert emit(kept, HERE).source == emit(program_of(model, "case", HERE), HERE).source


def test_a_folder_that_cannot_be_written_only_forgets(tmp_path, monkeypatch):
    (tmp_path / "hasten").write_text("a file where a folder should be")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_: tmp_path / "hasten")
    monkeypatch.setattr(schedule_module, "measure", last_is_best)
    assert program_of(mlp([40, 72, 30]), "case", HERE, schedule="timed").timed
    assert not program_of(mlp([40, 72, 30]), "case", HERE, schedule="kept").timed


def test_a_team_is_scheduled_by_the_model(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule_module, "measure", last_is_best)
    alone, team = (
        compile_graph(convolutions(), HERE, tmp_path / str(threads), threads=threads, schedule="timed").program
        for threads in (1, 2)
    )
    assert alone.timed and not team.timed


def test_the_profile_tells_how_each_step_is_computed_and_whether_that_was_timed(cache, monkeypatch):
    monkeypatch.setattr(schedule_module, "measure", last_is_best)
    model = convolutions()
    timed = program_of(model, "case", HERE, schedule="timed")
    found = profile(model, HERE, [np.zeros((1, 16, 12, 12), np.float32)])
    assert [s.way for s in found.steps] == [s.way for s in timed.steps]
    assert {i for i, s in enumerate(found.steps) if s.timed} == timed.timed
    shown = [op.kernel for op in op_times(found)]
    assert all(("; timed)" in text) is (i in timed.timed) for i, text in enumerate(shown))


@pytest.mark.parametrize(
    ("given", "used"), [({}, "timed"), ({"quick": True}, "kept"), ({"schedule": "model"}, "model")]
)
def test_a_search_times_schedules_unless_it_is_quick(given, used, tmp_path):
    path = tmp_path / "model.onnx"
    ir.save(mlp([8, 16, 4]), path)
    settings = Settings(engines=("native",), **given)
    source = open_source(path, prepare.request(None, settings, tmp_path))
    examples = samples(source, prepare.request(None, settings, tmp_path), 0, 1)
    made = prepare.graphs(source, (1,), examples[0], tmp_path)
    assert prepare.plan(source, made, settings, examples, (tmp_path, tmp_path)).schedule == used


def test_another_word_is_refused():
    with pytest.raises(SettingsError, match="unknown schedule 'guess': expected one of model, kept, timed"):
        program_of(mlp([4, 4]), "case", HERE, schedule="guess")


def test_steps_are_measured_on_memory_of_their_own():
    """All ways of all steps in one library; no temporary shares memory, whatever runs when."""
    program = program_of(convolutions(), "case", HERE)
    planned = apart(program)
    spans = sorted((planned.offsets[id(t)], t.nbytes) for t in planned.tensors if t.kind == "temporary")
    assert all(start + size <= after for (start, size), (after, _) in pairwise(spans))
    assert planned.nbytes >= sum(size for _, size in spans)
    times = measure(program, [[step, step] for step in program.steps], HERE)
    assert len(times) == len(program.steps)
    assert all(len(row) == 2 and min(row) > 0 for rounds in times for row in rounds)


@pytest.mark.parametrize("target", ["x86-64-v3", "aarch64", "c"])
def test_what_repeats_a_step_stands_in_the_same_c(target):
    program = program_of(convolutions(), "case", isa(target))
    source = emit_apart(program, isa(target)).source
    assert source.count("        case ") == len(program.steps)
    assert ("_mm_setcsr" in source) is (target == "x86-64-v3")


def test_the_model_likes_minimal_filtering_where_it_pays():
    steps = [step for step in program_of(convolutions(), "case", isa("x86-64-v4")).steps if step.macs()]
    assert [type(step) is Winograd for step in steps] == [True, True, False, False, False]


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v2", "c"])
def test_taps_that_were_written_before_read_the_same_and_ask_for_the_same(target):
    program = program_of(convolutions(9), "case", isa(target))
    taps_of.cache_clear()
    first = emit(program, isa(target))
    misses = taps_of.cache_info().misses
    again = emit(program, isa(target))
    assert misses and taps_of.cache_info().misses == misses
    assert (again.source, again.weights) == (first.source, first.weights)


@pytest.mark.parametrize("name", ["x86-64-v2", "zen4"])
def test_how_a_step_reads_is_told_without_packing_its_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = isa(name)
    settled = program_of(convolutions(), "m", target).steps
    steps = [way for step in settled if step.way for way in (step, *step.others(target))]
    assert {type(step).__name__ for step in steps} >= {"Conv", "Depthwise", "Winograd"}
    packed = [emitted_alone(step, target) for step in steps]
    for module in (conv_module, depthwise_module):
        monkeypatch.setattr(module, "pack", lambda *_: pytest.fail("weights were packed"))
    monkeypatch.setattr(Transforms, "packed", lambda _: pytest.fail("weights were transformed"))
    assert [schedule_module._text(step, target) for step in steps] == packed


def emitted_alone(step: Step, target: Isa) -> str:
    alone = Program("step", [step], (), ())
    out = Emitter(alone, target, apart(alone))
    step.emit(out)
    assert out.text(BUILT).weights
    return out.written

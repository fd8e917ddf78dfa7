"""The model that users call: what it takes, what it refuses, which artefact it runs on."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.bundle import write
from hasten.errors import BundleError, EngineError, InputError
from hasten.runtime import Model, load
from hasten.runtime.lanes import split
from hasten.types import TensorSpec
from linear_engine import WEIGHTS, LinearSession, contents, entry, linear, opened, rows

__all__ = ["linear"]


@pytest.fixture
def model(linear: Path) -> Model:
    return opened(linear, entry(linear))


def test_call_answers_like_the_source(model: Model) -> None:
    np.testing.assert_array_equal(model(rows(1)), rows(1) @ WEIGHTS)
    np.testing.assert_array_equal(model(x=rows(1)), rows(1) @ WEIGHTS)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_batch_of_a_free_source(model: Model, count: int) -> None:
    y = model(rows(count))
    assert y.shape == (count, 2)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, rows(count) @ WEIGHTS)


def test_other_memory_layouts_are_taken(model: Model) -> None:
    x = rows(4)
    np.testing.assert_array_equal(model(np.asfortranarray(x)), x @ WEIGHTS)
    np.testing.assert_array_equal(model(x[::2]), x[::2] @ WEIGHTS)
    unaligned = np.frombuffer(b"\0" + x[:1].tobytes(), np.uint8)[1:].view(np.float32).reshape(1, 3)
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(model(unaligned), x[:1] @ WEIGHTS)
    frozen = x[:1].copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(model(frozen), x[:1] @ WEIGHTS)


def test_a_foreign_byte_order_is_never_read_as_it_lies(model: Model) -> None:
    np.testing.assert_array_equal(model.predict(rows(2).astype(">f4")), rows(2) @ WEIGHTS)
    np.testing.assert_array_equal(model(rows(1).astype(">f4").astype("=f4")), rows(1) @ WEIGHTS)
    with pytest.raises(InputError):
        model(rows(1).astype(">f4"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "wrong number of inputs: expected 1 (x: float32[batch, 3]), received 0"),
        ((rows(1), rows(1)), "received 2"),
        ((np.zeros((1, 4), np.float32),), "expected float32[batch, 3], received float32[1, 4]"),
        ((np.zeros(3, np.float32),), "received float32[3]"),
        ((np.float32(1.0),), "received numpy.float32"),
        ((np.zeros((1, 3)),), "expected float32[batch, 3], received float64[1, 3]; use .astype('float32')"),
        (([[1.0, 2.0, 3.0]],), "expected a numpy array float32[batch, 3], received builtins.list"),
    ],
)
def test_call_is_strict(model: Model, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        model(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [{"z": rows(1)}, {"x": rows(1), "z": rows(1)}])
def test_unknown_names_are_refused(model: Model, names: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"expected x: float32\[batch, 3\], received .*no input is called 'z'"):
        model(**names)


def test_predict_converts_lists_and_kinds(model: Model) -> None:
    wanted = np.float32([[1, 2, 3]]) @ WEIGHTS
    for given_rows in ([[1, 2, 3]], [(1.0, 2.0, 3.0)], np.array([[1.0, 2, 3]]), np.array([[1, 2, 3]], np.int64)):
        np.testing.assert_array_equal(model.predict(given_rows), wanted)
    np.testing.assert_array_equal(model.predict({"x": [[1, 2, 3]]}), wanted)
    assert model.predict([]).shape == (0, 2)
    assert model.predict(np.zeros((0, 3))).shape == (0, 2)


def test_predict_of_what_fits_exactly_is_the_call_itself(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.runtime.model.convert", None)
    np.testing.assert_array_equal(model.predict(rows(1)), rows(1) @ WEIGHTS)
    np.testing.assert_array_equal(model.predict(np.asfortranarray(rows(2))[1:]), rows(2)[1:] @ WEIGHTS)
    for other in (rows(2), rows(1).astype(np.float64), rows(1).astype(">f4"), rows(1).tolist()):
        with pytest.raises(TypeError):
            model.predict(other)


@pytest.mark.parametrize(
    "value", [[[1, 2], [1]], [["a", "b", "c"]], [[1j, 2, 3]], [1, 2, 3], np.zeros((2, 4)), None, np.zeros((2, 3, 1))]
)
def test_predict_refuses_what_means_something_else(model: Model, value: object) -> None:
    with pytest.raises(InputError, match="cannot run on input 'x': expected float32"):
        model.predict(value)


def test_integers_must_fit(linear: Path) -> None:
    from hasten.runtime.arrays import convert

    spec = TensorSpec("ids", "uint8", ("batch", 2))
    np.testing.assert_array_equal(convert(spec, [[0, 255]]), np.uint8([[0, 255]]))
    with pytest.raises(InputError, match="values that fit uint8, received 0 to 256"):
        convert(spec, [[0, 256]])
    with pytest.raises(InputError, match="values that fit uint8"):
        convert(spec, [[-1, 2]])
    with pytest.raises(InputError, match="expected uint8"):
        convert(spec, [[0.5, 1.0]])


def test_predict_single(model: Model) -> None:
    np.testing.assert_array_equal(model.predict_single([1, 2, 3]), np.float32([1, 2, 3]) @ WEIGHTS)
    np.testing.assert_array_equal(model.predict_single({"x": np.ones(3)}), np.ones(3) @ WEIGHTS)
    with pytest.raises(InputError, match=r"expected float32\[3\], received"):
        model.predict_single([[1, 2, 3]])


def test_several_inputs(linear: Path) -> None:
    model = opened(linear, entry(linear, inputs=2))
    a, b = rows(5), rows(5) + 1
    wanted = (a + b) @ WEIGHTS
    for value in ([a, b], (a, b), {"x1": b, "x0": a}):
        np.testing.assert_array_equal(model.predict(value), wanted)
    np.testing.assert_array_equal(model(a, b), wanted)
    np.testing.assert_array_equal(model.predict_single({"x0": [0, 1, 2], "x1": [1, 2, 3]}), wanted[0])
    with pytest.raises(InputError, match="inputs disagree on the batch: 'x0' has 5 rows, 'x1' has 4"):
        model.predict([a, b[:4]])
    with pytest.raises(InputError, match="inputs disagree on the batch"):
        model(a, b[:4])
    with pytest.raises(InputError, match="wrong number of inputs: expected 2"):
        model.predict(a)
    np.testing.assert_array_equal(model({"x1": b, "x0": a}), wanted)
    for names, told in (
        ({"x0": a}, "received x0: 'x1' is missing"),
        ({"x0": a, "x2": b}, "received x0, x2: 'x1' is missing, no input is called 'x2'"),
        ({}, "received none: 'x0' is missing, 'x1' is missing"),
    ):
        for call in (model, model.predict):
            with pytest.raises(InputError, match=re.escape(told)) as caught:
                call(names)
            assert "expected x0: float32[batch, 3], x1: float32[batch, 3]" in str(caught.value)
    with pytest.raises(InputError, match=r"input 'x1': expected float32\[batch, 3\], received float32\[5, 2\]"):
        model({"x0": a, "x1": b[:, :2]})


def test_a_static_source_takes_its_shape_and_predict_loops_rows(linear: Path) -> None:
    model = opened(linear, entry(linear), free=False)
    np.testing.assert_array_equal(model(rows(1)), rows(1) @ WEIGHTS)
    with pytest.raises(InputError, match=r"expected float32\[1, 3\], received float32\[2, 3\]"):
        model(rows(2))
    np.testing.assert_array_equal(model.predict(rows(6)), rows(6) @ WEIGHTS)
    assert model.predict(rows(0)).shape == (0, 2)
    np.testing.assert_array_equal(model.predict_single([0, 1, 2]), (rows(1) @ WEIGHTS)[0])


def test_a_static_source_of_another_size_is_not_split(linear: Path) -> None:
    four = entry(linear, 4)
    content = dataclasses.replace(
        contents(four), inputs=four.artefact.inputs, outputs=four.artefact.outputs, samples=(), expected=()
    )
    model = load(write(linear / "m", content))
    np.testing.assert_array_equal(model.predict(rows(4).tolist()), rows(4) @ WEIGHTS)
    np.testing.assert_array_equal(model.predict_single(rows(4)), rows(4) @ WEIGHTS)
    with pytest.raises(InputError, match=r"expected float32\[4, 3\]"):
        model.predict(rows(8))


def test_rows_are_split_over_the_compiled_sizes(linear: Path) -> None:
    entries = [dataclasses.replace(entry(linear, b), latency_ns=100.0 + 10 * b) for b in (1, 8, 32)]
    model = opened(linear, *entries)
    np.testing.assert_array_equal(model.predict(rows(73)), rows(73) @ WEIGHTS)
    assert LinearSession.calls == {32: 2, 8: 1, 1: 1}
    LinearSession.calls.clear()
    np.testing.assert_array_equal(model(rows(7)), rows(7) @ WEIGHTS)
    assert LinearSession.calls == {8: 1}, "seven rows cost less padded to eight than one by one"
    LinearSession.calls.clear()
    np.testing.assert_array_equal(model.predict(rows(9), batch_size=1), rows(9) @ WEIGHTS)
    assert LinearSession.calls == {1: 9}
    for wrong in (0, -1, 1.5, "many"):
        with pytest.raises(InputError, match="wrong batch_size"):
            model.predict(rows(2), batch_size=wrong)  # type: ignore[arg-type]


def test_batches_that_cost_more_than_their_rows_are_left_alone(linear: Path) -> None:
    model = opened(linear, *(dataclasses.replace(entry(linear, b), latency_ns=c) for b, c in ((1, 1.0), (8, 80.0))))
    model.predict(rows(20))
    assert LinearSession.calls == {1: 20}


@given(
    count=st.integers(1, 300),
    costs=st.dictionaries(st.integers(1, 40), st.floats(0.1, 1000), min_size=1, max_size=4),
)
def test_split_covers_all_rows_and_pads_only_the_last(count: int, costs: dict[int, float]) -> None:
    plan = split(count, list(costs.items()))
    assert sum(plan) >= count
    assert sum(plan) - count < min(plan)
    assert plan == sorted(plan, reverse=True)
    assert set(plan) <= set(costs)


@given(count=st.integers(1, 24), costs=st.dictionaries(st.integers(1, 9), st.integers(1, 30), min_size=2, max_size=3))
def test_split_is_the_cheapest_for_small_counts(count: int, costs: dict[int, float]) -> None:
    best = [0.0]
    for n in range(1, count + 1):
        best.append(min(best[max(0, n - size)] + cost for size, cost in costs.items()))
    if count <= max(costs):
        assert sum(costs[size] for size in split(count, list(costs.items()))) == best[count]


def test_outputs_without_a_batch_are_never_split(linear: Path) -> None:
    content = contents(entry(linear))
    content = dataclasses.replace(content, outputs=(TensorSpec("y", "float32", (1, 2)),))
    model = load(write(linear / "m", content))
    assert model(rows(1)).shape == (1, 2)
    with pytest.raises(InputError, match="does not hold one result per row"):
        model(rows(2))


def test_bind_reads_and_writes_in_place(model: Model) -> None:
    x, y = rows(1), np.zeros((1, 2), np.float32)
    call = model.bind(x, y)
    call()
    np.testing.assert_array_equal(y, x @ WEIGHTS)
    x += 1
    call()
    np.testing.assert_array_equal(y, x @ WEIGHTS)
    many, out = rows(5), np.zeros((5, 2), np.float32)
    model.bind(many, out)()
    np.testing.assert_array_equal(out, many @ WEIGHTS)


def test_bind_checks_once(model: Model) -> None:
    y = np.zeros((1, 2), np.float32)
    frozen = y.copy()
    frozen.flags.writeable = False
    wide = np.zeros((1, 6), np.float32)
    for x, out in (
        (rows(1), np.zeros((1, 3), np.float32)),
        (rows(1), np.zeros((2, 2), np.float32)),
        (rows(1), np.zeros((1, 2))),
        (rows(1), frozen),
        (rows(1).astype(np.float64), y),
        (np.asfortranarray(rows(2)), np.zeros((2, 2), np.float32)),
        (wide[:, :3], wide[:, 1:3]),
    ):
        with pytest.raises(InputError):
            model.bind(x, out)
    with pytest.raises(InputError, match=r"cannot bind output '.*float32\[1, 2\], received builtins.NoneType"):
        model.bind(rows(1), None)


def test_bind_uses_the_engines_own_binding(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: LinearSession, inputs: tuple, outputs: tuple) -> object:
        return lambda: outputs[0].fill(7)

    monkeypatch.setattr(LinearSession, "bind", bind, raising=False)
    y = np.zeros((1, 2), np.float32)
    opened(linear, entry(linear)).bind(rows(1), y)()
    assert (y == 7).all()


def test_a_session_that_loops_rows_itself_is_asked_to(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows_(self: LinearSession, inputs: tuple, outputs: tuple, count: int) -> None:
        asked.append(count)
        outputs[0][...] = inputs[0] @ WEIGHTS

    monkeypatch.setattr(LinearSession, "rows", rows_, raising=False)
    np.testing.assert_array_equal(opened(linear, entry(linear)).predict(rows(9)), rows(9) @ WEIGHTS)
    assert asked == [9]


def test_a_session_that_adopts_the_model_sets_its_own_path(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def adopt(self: LinearSession, model: Model, slow: object) -> None:
        model._set_target(lambda x: "adopted", ((11, (1, 3)),), slow)  # type: ignore[arg-type]

    monkeypatch.setattr(LinearSession, "adopt", adopt, raising=False)
    assert opened(linear, entry(linear))(rows(1)) == "adopted"


def test_many_threads_get_their_own_sessions(linear: Path) -> None:
    model = opened(linear, entry(linear, thread_safe=False))
    wrong: list[object] = []
    barrier = threading.Barrier(6)

    def work(seed: int) -> None:
        x = np.full((1, 3), seed, np.float32)
        barrier.wait()
        for _ in range(300):
            if not np.array_equal(model(x), x @ WEIGHTS):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert LinearSession.overlaps == 0
    assert LinearSession.opened <= 6


def test_one_thread_needs_one_session(linear: Path) -> None:
    model = opened(linear, entry(linear, thread_safe=False))
    for _ in range(20):
        model(rows(1))
    assert LinearSession.opened == 1


def test_info_save_and_close(linear: Path) -> None:
    with opened(linear, entry(linear)) as model:
        info = model.info()
        assert info["engine"] == "linear"
        assert info["host_match"] is True
        assert info["verdict"] == {"winner": "linear"}
        assert model.warmup() is None
        saved = model.save(linear / "copy.hasten")
        assert "linear" in repr(model)
    np.testing.assert_array_equal(load(saved)(rows(1)), rows(1) @ WEIGHTS)
    with pytest.raises(EngineError, match="closed"):
        model(rows(1))
    with pytest.raises(BundleError, match="cannot write bundle"):
        load(saved).save(linear / "absent" / "m.hasten")


@pytest.mark.parametrize("module", ["hasten._call", "hasten._call_fallback"])
def test_both_call_paths_keep_one_contract(module: str) -> None:
    seen: list[str] = []
    call = pytest.importorskip(module).Call()
    call._set_target(lambda *a: seen.append("fast"), ((11, (2,)), (7, ())), lambda *a, **k: seen.append("slow"))
    good = np.zeros(2, np.float32), np.zeros((), np.int64)
    call(*good)
    for args in ((good[0],), (good[0], 3), (good[0].astype("f8"), good[1]), (np.zeros(4, "f4")[::2], good[1])):
        call(*args)
    call(good[0].astype(">f4"), good[1])
    call(np.frombuffer(bytes(9), np.uint8)[1:].view(np.float32), good[1])
    call(x=good[0])
    assert seen == ["fast"] + ["slow"] * 7

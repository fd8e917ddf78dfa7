"""``hasten.watch`` counts what happens, names the user's line, and leaves no trace of itself."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hasten.watching import Watched, watch

HERE = __file__


def test_counts_collections_and_their_pauses() -> None:
    out = io.StringIO()
    with watch(file=out) as seen:
        gc.collect()
        gc.collect()
    assert seen.gc_collections >= 2
    assert seen.gc_pause_s > 0
    assert "garbage collections" in out.getvalue()


def test_names_the_lines_whose_memory_grew() -> None:
    with watch(allocations=True, file=io.StringIO()) as seen:
        kept = [bytes(1000) for _ in range(1000)]
    assert len(kept) == 1000
    assert any(place.startswith(HERE) and size > 500_000 for place, size in seen.allocations)
    assert not any("tracemalloc.py" in place or "contextlib.py" in place for place, _ in seen.allocations)


def test_an_exception_passes_and_everything_is_put_back() -> None:
    callbacks = list(gc.callbacks)
    with pytest.raises(ZeroDivisionError), watch(file=io.StringIO()):
        raise ZeroDivisionError
    assert gc.callbacks == callbacks


def test_works_without_any_framework() -> None:
    code = (
        "import hasten, sys\n"
        "with hasten.watch():\n    pass\n"
        "assert not {'torch', 'tensorflow', 'keras', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "watched" in done.stderr


def test_names_the_lines_where_collections_began() -> None:
    out = io.StringIO()
    with watch(file=out) as seen:
        line = sys._getframe().f_lineno + 1
        gc.collect()
    assert seen.gc_events[f"{HERE}:{line}"] == 1
    assert f"at {HERE}:{line}" in out.getvalue()


def test_the_snapshots_of_allocations_count_as_no_collections() -> None:
    gc.disable()
    try:
        with watch(allocations=True, file=io.StringIO()) as seen:
            kept = [[i] for i in range(50_000)]
            gc.collect()
            gc.enable()
    finally:
        gc.enable()
    assert len(kept) == 50_000 and seen.gc_collections == 1


def test_says_fewer_where_memory_was_given_back() -> None:
    assert "5 fewer memory blocks" in str(Watched(blocks=-5))
    assert "5 more memory blocks" in str(Watched(blocks=5))
    assert "names the lines" in str(Watched(blocks=5000)) and "names the lines" not in str(Watched(blocks=5))


@pytest.mark.frameworks
def test_counts_what_python_reads_of_a_torch_tensor() -> None:
    import numpy as np

    torch = pytest.importorskip("torch")
    t = torch.ones(1)
    with watch(file=io.StringIO()) as seen:
        float(t), int(t), bool(t), np.asarray(t)
        if t > 0:
            pass
    assert seen.count("from tensor") == 5
    assert "__float__" not in vars(torch.Tensor) and float(t) == 1.0


@pytest.mark.frameworks
def test_each_thread_counts_its_own_conversions() -> None:
    torch = pytest.importorskip("torch")
    t = torch.ones(1)

    def read() -> None:
        for _ in range(2000):
            t.tolist()

    with watch(file=io.StringIO()) as seen:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.count("from tensor") > 7000  # (two threads that count at once may count one)


@pytest.mark.frameworks
def test_a_thread_that_runs_a_library_alone_is_named() -> None:
    torch = pytest.importorskip("torch")
    with watch(file=io.StringIO()) as seen, ThreadPoolExecutor(1, "reader") as pool:
        assert list(pool.map(torch.Tensor.item, [torch.ones(1)])) == [1.0]
    assert seen.lines("from tensor") == [("thread 'reader_0', which runs no line of yours", 1)]


@pytest.mark.frameworks
def test_a_compiled_function_compiles_no_more_often_when_watched() -> None:
    torch = pytest.importorskip("torch")

    def scaled(x):
        return x * torch.tensor([2.0])

    fast = torch.compile(scaled, backend="eager")
    with watch(file=io.StringIO()) as seen:
        for _ in range(4):
            fast(torch.ones(3))
    assert seen.lines("retrace") == [(f"{HERE}:{scaled.__code__.co_firstlineno + 6}", 1)]
    with watch(file=io.StringIO()) as again:
        fast(torch.ones(3))
    assert again.count("retrace") == 0


@pytest.mark.frameworks
def test_blocks_that_overlap_put_everything_back() -> None:
    """Of two threads, say: the one that began first ends first, while the other still counts."""
    torch = pytest.importorskip("torch")
    before = torch.tensor, torch.Tensor.item, torch.from_numpy
    first, second = watch(file=io.StringIO()), watch(file=io.StringIO())
    one = first.__enter__()
    torch.tensor([1.0])
    two = second.__enter__()
    torch.tensor([1.0])
    first.__exit__(None, None, None)
    torch.tensor([1.0])
    second.__exit__(None, None, None)
    torch.tensor([1.0])
    assert (one.count("to tensor"), two.count("to tensor")) == (2, 2)
    assert (torch.tensor, torch.Tensor.item, torch.from_numpy) == before


def test_counts_torch_conversions_by_line() -> None:
    torch = pytest.importorskip("torch")
    item = torch.Tensor.item
    with watch(file=io.StringIO()) as seen:
        for i in range(5):
            t = torch.tensor([float(i)])
            t.item()
    assert seen.count("to tensor") == 5
    assert seen.count("from tensor") == 5
    [(place, times)] = seen.lines("from tensor")
    assert place.startswith(HERE) and times == 5
    assert torch.Tensor.item is item


@pytest.mark.frameworks
def test_counts_retraces_predictions_and_conversions_of_tensorflow() -> None:
    import numpy as np

    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")

    @tf.function
    def double(n):
        return n * 2

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    x = np.zeros((1, 4), "float32")
    with watch(file=io.StringIO()) as seen:
        for n in range(3):
            double(n)
        for _ in range(2):
            model.predict(x, verbose=0)
        t = tf.constant([1.0])
        t.numpy()
        for _ in range(3):
            model(x)
        if t[0] > 0.5:
            float(t[0])
    assert all(place.startswith(HERE) for place, _ in seen.lines("retrace"))
    assert 3 in [times for _, times in seen.lines("retrace")]  # beside what predict traces for its own pipeline
    assert seen.count("predict") == 2
    assert [times for _, times in seen.lines("to tensor")] == [3, 1]  # the array of each call; no weight, no number
    assert seen.count("from tensor") == 3
    assert float(t[0]) == 1.0
    assert "predict" not in vars(keras.Model)

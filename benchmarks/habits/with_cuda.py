"""Habits that only a GPU shows: transfers, synchronisation, models spread over devices.

``python -m benchmarks.habits with_cuda``; skipped with one line where no CUDA device is.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.habits.habit import Effect, Habit

ROUNDS = 100


def habits() -> Iterator[Habit | Effect]:
    import torch

    if not torch.cuda.is_available():
        print(
            "with_cuda: no CUDA device here: H006, H203, H303, H402 and H408 are not measured on one", file=sys.stderr
        )
        return
    yield from on_device(torch, torch.device("cuda"), torch.cuda.get_device_name())


def on_device(torch: Any, device: Any, name: str) -> Iterator[Habit | Effect]:
    """The habits on a device called ``name``; each side ends when the device has done its work."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 10)).to(device).eval()
    rows = torch.randn(256, 256, device=device)
    yield _gathered(torch, device, name)
    yield _spread(torch, net, rows, name)
    yield _unsynchronised(torch, net, rows, name)
    yield _pinned(torch, device, name)
    yield _copied(torch, device, name)


def _wait(torch: Any, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _gathered(torch: Any, device: Any, name: str) -> Habit:
    answers = torch.rand(ROUNDS, device=device)
    each = list(answers)
    return Habit(
        "H006", f"{ROUNDS} numbers, {name}", lambda: [e.item() for e in each], lambda: torch.stack(each).tolist()
    )


def _spread(torch: Any, net: Any, rows: Any, name: str) -> Habit:
    """``DataParallel`` over all devices, which copies the weights at each call, and the model on the first."""
    spread = torch.nn.DataParallel(net)
    count = max(1, len(spread.device_ids))

    def run(model: Any) -> None:
        with torch.inference_mode():
            model(rows)
        _wait(torch, rows.device)

    return Habit("H203", f"256 rows, {count} x {name}", lambda: run(spread), lambda: run(net), 50)


def _unsynchronised(torch: Any, net: Any, rows: Any, name: str) -> Effect:
    """What a clock shows for 100 runs in a row, stopped when they are queued and when they are done."""

    def shown(waits: bool) -> float:
        taken = []
        for _ in range(15):
            _wait(torch, rows.device)
            start = time.perf_counter_ns()
            with torch.inference_mode():
                for _ in range(ROUNDS):
                    net(rows)
            if waits:
                _wait(torch, rows.device)
            taken.append((time.perf_counter_ns() - start) / 1e3)
        return statistics.median(taken)

    return Effect("H303", f"time shown for {ROUNDS} runs, {name}", "us", lambda: shown(False), lambda: shown(True))


def _pinned(torch: Any, device: Any, name: str) -> Habit:
    """A batch of 64 pictures to the device, from pageable and from pinned memory."""
    batch = torch.randn(64, 3, 224, 224)
    pinned = batch.pin_memory() if device.type == "cuda" else batch

    def copy(data: Any, free: bool) -> None:
        data.to(device, non_blocking=free)
        _wait(torch, device)

    return Habit("H402", f"a batch of 37 MiB, {name}", lambda: copy(batch, False), lambda: copy(pinned, True))


def _copied(torch: Any, device: Any, name: str) -> Habit:
    weights, rows = torch.randn(1000), torch.randn(64, 1000, device=device)

    def each_round() -> None:
        for _ in range(ROUNDS):
            rows * weights.to(device)
        _wait(torch, device)

    def once() -> None:
        there = weights.to(device)
        for _ in range(ROUNDS):
            rows * there
        _wait(torch, device)

    return Habit("H408", f"{ROUNDS} rounds, {name}", each_round, once)

"""Which device a file means, where it names none outright."""

from __future__ import annotations

import pytest
from doctor_runs import fixed, rules

TIMED = """
import time
import torch
import torchvision

class Scorer:
    def __init__(self, device):
        self.device = torch.device(device)
        self.net = torchvision.models.resnet18().eval().to(self.device)

    @torch.inference_mode()
    def took(self, x):
        start = time.perf_counter()
        self.net(x.to(self.device))
        return time.perf_counter() - start
"""


def test_a_device_that_may_be_a_gpu_is_waited_for() -> None:
    assert ("H303", 13) in rules(TIMED.encode())


def test_no_fix_is_offered_where_the_device_may_be_the_processor() -> None:
    assert fixed(TIMED, select="H303") == TIMED


@pytest.mark.parametrize("other", [TIMED.replace("(device)", "('cpu')"), TIMED.replace(".to(self.device)", "")])
def test_the_processor_needs_no_waiting(other: str) -> None:
    assert "H303" not in [rule for rule, _ in rules(other.encode())]


LOADER = """
import engine
from torch.utils.data import DataLoader

model = engine.open("small", device="cuda")
loader = DataLoader(Images(folder), batch_size=8, num_workers=4)
for batch in loader:
    model.answer(batch{moved})
"""


@pytest.mark.parametrize(("moved", "found"), [("", []), (".cuda()", [("H402", 6)])])
def test_batches_that_nothing_takes_to_a_device_need_no_pinning(moved: str, found: list[tuple[str, int]]) -> None:
    text = LOADER.format(moved=moved)
    assert [f for f in rules(text.encode()) if f[0] == "H402"] == found


MOVED = """
import torch
import torchvision
from torch.utils.data import DataLoader

net = torchvision.models.resnet18()
net.{move}
loader = DataLoader(torchvision.datasets.ImageFolder("."), batch_size=8, num_workers=4)
for x, y in loader:
    net({given})
"""


@pytest.mark.parametrize(
    ("move", "given", "found"),
    [
        ("cuda()", "x.cuda()", True),
        ("to('cuda')", "x.to('cuda')", True),
        ("cuda()", "x", False),
        ("to('cuda')", "x.to(torch.float16)", False),
    ],
)
def test_batches_that_go_to_no_device_are_not_pinned(move: str, given: str, found: bool) -> None:
    text = MOVED.format(move=move, given=given)
    assert ("H402" in [rule for rule, _ in rules(text.encode())]) is found

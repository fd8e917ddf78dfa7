"""Every rule on code written with its habit and on code that only looks like it: the right lines, and none else.

``cases/H001.txt`` (and ``H001_*.txt``, where there are many): a prelude, then cases that begin with ``=== bad`` or
``=== good``. A bad case marks each line where its rule must fire with ``# !``; it must fire there and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hasten.doctor.check import Job, check_text
from hasten.doctor.rules import CODE_RULES, code_rules, documentation
from hasten.doctor.settings import Settings

CASES = Path(__file__).parent / "cases"
MARK = "# !"
SECTIONS = ("What it does", "Why is this bad", "Cost", "Example", "Use instead", "Fix safety")


def cases(code: str, kind: str) -> list[str]:
    found = []
    for file in sorted(CASES.glob(f"{code}*.txt")):
        prelude, *blocks = re.split(r"^=== (?=bad|good)", file.read_text(), flags=re.MULTILINE)
        found += [prelude + block.split("\n", 1)[1] for block in blocks if block.startswith(kind)]
    return found


def fired(code: str, text: str) -> list[int]:
    job = Job(Path("case.py"), "case.py", Settings(select=(code,)))
    return [f.line or 0 for f, _ in check_text(text, job)]


ALL = [(code, kind, i) for code in CODE_RULES for kind in ("bad", "good") for i in range(len(cases(code, kind)))]


@pytest.mark.parametrize(("code", "kind", "index"), ALL, ids=[f"{c}-{k}-{i}" for c, k, i in ALL])
def test_fires_on_the_marked_lines_alone(code: str, kind: str, index: int) -> None:
    text = cases(code, kind)[index]
    marked = [n for n, line in enumerate(text.splitlines(), 1) if line.endswith(MARK)]
    assert bool(marked) == (kind == "bad"), "a bad case marks its lines, a good one none"
    assert fired(code, text) == marked, text


@pytest.mark.parametrize("code", CODE_RULES)
def test_has_enough_cases(code: str) -> None:
    assert len(cases(code, "bad")) >= 6
    assert len(cases(code, "good")) >= 6


@pytest.mark.parametrize("rule", code_rules(), ids=lambda r: r.code)
def test_words_never_lose_a_finding(rule) -> None:
    """The cheap filter before parsing must let every bad case through."""
    for text in cases(rule.code, "bad"):
        assert any(word in text for word in rule.words)


@pytest.mark.parametrize("rule", code_rules(), ids=lambda r: r.code)
def test_documentation_has_every_section_and_its_example_is_found(rule) -> None:
    text = documentation(rule.code)
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings == list(SECTIONS)
    assert CODE_RULES[rule.code] == f"{rule.code.lower()}_{rule.name.replace('-', '_')}"
    assert rule.remedy.endswith((".", ")"))


@pytest.mark.parametrize(("file", "found"), [("jit_notes.py", 1), ("export_jit.py", 0), ("to_torchscript.py", 0)])
def test_a_file_named_after_torchscript_only_has_to_do_with_it_and_its_exporter_is_left_alone(file, found) -> None:
    text = "import torch\nnet = torch.nn.Linear(2, 2)\ntorch.jit.trace(net, torch.rand(1, 2)).save('net.pt')\n"
    assert len(list(check_text(text, Job(Path(file), file, Settings(select=("H206",)))))) == found


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (
            "models.resnet18(pretrained=True)",
            'Write weights="IMAGENET1K_V1" (the same) or weights="DEFAULT" (the best).',
        ),
        ("models.resnet18(pretrained=False)", "Write weights=None."),
        ("models.resnet18(pretrained=wanted)", "where it is true, else weights=None."),
        ("models.detection.fasterrcnn_resnet50_fpn(pretrained=True)", 'weights="COCO_V1" (the same)'),
        ("models.detection.fasterrcnn_resnet50_fpn(pretrained_backbone=True)", 'weights_backbone="DEFAULT"'),
        ("models.segmentation.fcn_resnet50(pretrained=True)", 'weights="COCO_WITH_VOC_LABELS_V1" (the same)'),
        ("models.video.r3d_18(pretrained=True)", 'weights="KINETICS400_V1" (the same)'),
        ("models.quantization.resnet18(pretrained=True)", 'weights="DEFAULT" (the best), or the weights of this model'),
    ],
)
def test_the_weights_that_are_advised_are_ones_that_the_model_has(call: str, advice: str) -> None:
    job = Job(Path("a.py"), "a.py", Settings())
    ((found, _),) = check_text(f"from torchvision import models\nnet = {call}\n", job)
    assert found.rule == "H207" and advice in found.remedy

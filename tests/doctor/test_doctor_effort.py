"""What a file may cost: callers of callers are followed once each, however many ways lead to them."""

from __future__ import annotations

from pathlib import Path

from hasten.doctor.check import Job, check_text
from hasten.doctor.code import Code
from hasten.doctor.settings import Settings


def test_callers_are_followed_once_each(monkeypatch):
    names = [f"step_{i}" for i in range(12)]
    calls = "".join(f"    {name}(x)\n" for name in names)
    body = "".join(f"def {name}(x):\n{calls}    return model(x).item()\n\n" for name in names)
    text = f"import torch\nmodel = torch.load('m.pt', weights_only=True)\n\n{body}"
    asked = []
    before = Code.callers
    monkeypatch.setattr(Code, "callers", lambda self, scope: asked.append(scope) or before(self, scope))
    check_text(text, Job(Path("a.py"), "a.py", Settings()))
    assert 0 < len(asked) < 100 * len(names)

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hasten.tune.plan import Plan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session", autouse=True)
def deliberate_importable():
    """Candidates' processes find ``deliberate``, too."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *([before] if before else [])])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., Plan]:
    from tune_plans import make_plan

    return lambda *candidates, **changes: make_plan(tmp_path, candidates, **changes)

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tune_plans import LIMITS, deliberate

from hasten.tune.builds import Builds
from hasten.tune.isolation import ChildFailed
from hasten.tune.plan import Plan
from hasten.tune.processes import WarmPool
from hasten.tune.search import _Search, search
from hasten.tune.store import Store

_USUAL_REST_S = 0.5  # what building costs on an engine of which nothing is known


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WarmPool]:
    with WarmPool(tmp_path, 10.0) as found:
        yield found


def test_what_is_built_ahead_needs_no_checks_and_is_not_built_again(plan_of, pool: WarmPool) -> None:
    plan: Plan = plan_of(deliberate(n=1), deliberate(n=2))
    with Builds(replace(plan, checks={}), pool) as builds:
        builds.begin(plan.candidates)
        builds.settle(20.0)
        assert all(map(builds.is_built, plan.candidates))
        stages: list[str] = []
        artefact, build_ns = builds.artefact(deliberate(n=2), 5.0, stages.append)
        assert artefact.candidate == deliberate(n=2) and build_ns > 0 and stages == []
        assert [t.status for t in search(plan, builds=builds)] == ["ok", "ok"]
    assert search(plan)[1].artefact.folder == artefact.folder


def test_what_takes_too_long_ahead_is_left_to_its_turn(plan_of, pool: WarmPool) -> None:
    hanging = deliberate("build hangs")
    with Builds(plan_of(hanging), pool) as builds:
        builds.begin([hanging])
        begin = time.monotonic()
        builds.settle(0.5)
        assert time.monotonic() - begin < LIMITS.build_s
        assert psutil.Process().children(recursive=True) == []
        assert not builds.is_built(hanging)
        assert builds.given_up_s(hanging) > 0 and builds.given_up_s(deliberate()) == 0
        with pytest.raises(ChildFailed, match="hung while building"):
            builds.artefact(hanging, 8.0, lambda stage: None)
        assert builds.is_built(hanging)


def test_what_did_not_end_ahead_is_expected_to_take_as_long_again(plan_of, pool: WarmPool) -> None:
    hanging, other = deliberate("build hangs"), deliberate()
    plan = plan_of(hanging, other)
    turn = _Search(plan, Store(plan), lambda event: None)
    with Builds(plan, pool) as builds:
        builds.begin([hanging])
        builds.settle(1.5)
        longer = turn._expected_s(hanging, builds) - turn._expected_s(other, builds)
        assert longer == pytest.approx(builds.given_up_s(hanging) - _USUAL_REST_S) and longer > 0


def test_a_failure_ahead_is_told_at_its_turn(plan_of, pool: WarmPool) -> None:
    refused = deliberate("build refuses")
    with Builds(plan_of(refused), pool) as builds:
        builds.begin([refused])
        builds.settle(20.0)
        with pytest.raises(ChildFailed, match="the graph is ugly"):
            builds.artefact(refused, 5.0, lambda stage: None)


def test_leaving_ends_what_is_being_built(plan_of, pool: WarmPool) -> None:
    plan = plan_of(deliberate("build hangs"), deliberate("build hangs", n=2), deliberate("build hangs", n=3))
    with pytest.raises(KeyboardInterrupt), Builds(plan, pool) as builds:
        builds.begin(plan.candidates)
        raise KeyboardInterrupt
    assert psutil.Process().children(recursive=True) == []

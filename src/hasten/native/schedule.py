"""A program enters; the same with every step's way to compute it settled leaves: register tiles, minimal filtering.

A model of the machine settles all of it, the same for the same program wherever it runs. On the machine that the
program is for, the steps that take most of the time may also be timed against a handful of other ways; what was found
is kept in the user's cache folder and costs nothing the next time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import platformdirs

from hasten.errors import SettingsError
from hasten.host import host_key
from hasten.native.build import compiler
from hasten.native.emit import Emitter
from hasten.native.isa import Isa
from hasten.native.plan import apart
from hasten.native.program import Program, Step
from hasten.native.timing import fastest, measure

__all__ = ["SCHEDULES", "by_model", "scheduled"]

# Where choices come from: the model alone; those kept from earlier timing, else the model; timing what is not kept.
SCHEDULES = ("model", "kept", "timed")

_HEAVY = 0.03  # of the program's arithmetic: equal steps with less together are left to the model
_MOST_GROUPS, _MOST_WAYS = 12, 5


def by_model(program: Program, isa: Isa) -> Program:
    """Every step in the way that a model of the machine prefers: the same for the same program, on whatever machine."""
    return replace(program, steps=[step.preferred(isa) for step in program.steps])


def scheduled(program: Program, isa: Isa, how: str = "model") -> Program:
    """The program with every step's way settled; ``how``: one of ``SCHEDULES``, all but "model" for this machine alone.

    Raises:  SettingsError: another ``how``; CompilerError: the compiler failed on what was to be timed
    """
    if how not in SCHEDULES:
        raise SettingsError(f"unknown schedule '{how}': expected one of {', '.join(SCHEDULES)}")
    settled = by_model(program, isa)
    if how == "model" or (how == "kept" and not _folder().is_dir()):
        return settled
    steps = list(settled.steps)
    groups = _heavy_groups(steps, isa)
    chosen = {key: found for key in groups if (found := _kept(key)) is not None}
    if how == "timed":
        ways = {k: _ways(program.steps[g[0]], steps[g[0]], isa) for k, g in groups.items() if k not in chosen}
        chosen |= _timed(settled, {key: found for key, found in ways.items() if len(found) > 1}, isa)
    timed = set()
    for key, way in chosen.items():
        for i in groups[key]:
            known = (steps[i],) if way == steps[i].way else program.steps[i].others(isa)
            for step in (step for step in known if step.way == way):
                steps[i] = step
                timed.add(i)
    return replace(settled, steps=steps, timed=frozenset(timed))


def _heavy_groups(steps: Sequence[Step], isa: Isa) -> dict[str, list[int]]:
    """Positions of the steps that take most of the time and have a choice, equal ones together, under their key."""
    macs = [step.macs() if step.way else 0 for step in steps]
    total = sum(step.macs() for step in steps)
    alike = Counter[tuple[type[Step], int]]()
    for step, count in zip(steps, macs, strict=True):
        alike[type(step), count] += count
    found: dict[str, list[int]] = {}
    for i, step in enumerate(steps):
        # Equal C is equal work: what is light with all that does as much is light with its equals.
        if macs[i] and alike[type(step), macs[i]] / total >= _HEAVY:
            found.setdefault(_text(step, isa), []).append(i)
    share = {text: sum(macs[i] for i in positions) / total for text, positions in found.items()}
    heaviest = sorted((text for text in found if share[text] >= _HEAVY), key=lambda t: -share[t])
    return {_key(text, isa): found[text] for text in heaviest[:_MOST_GROUPS]}


def _text(step: Step, isa: Isa) -> str:
    """The step's C, weights apart and not even packed: equal for steps that do equal work on other values."""
    alone = Program("step", [step], (), ())
    out = Emitter(alone, isa, apart(alone), stores=False)
    step.emit(out)
    return out.written


def _key(text: str, isa: Isa) -> str:
    """Names a choice: equal keys mean equal work by the same compiler on the same kind of machine."""
    return hashlib.sha256("\0".join((text, isa.name, host_key(), compiler().version)).encode()).hexdigest()[:32]


def _ways(step: Step, preferred: Step, isa: Isa) -> list[Step]:
    """What the model prefers, then a handful of others whose C is not the same."""
    found = {_text(preferred, isa): preferred}
    for other in step.others(isa):
        if len(found) < _MOST_WAYS:
            found.setdefault(_text(other, isa), other)
    return list(found.values())


def _timed(program: Program, groups: Mapping[str, Sequence[Step]], isa: Isa) -> dict[str, str]:
    """The fastest way of every group on this machine, now also kept for the next time."""
    chosen: dict[str, str] = {}
    if not groups:
        return chosen
    for key, times in zip(groups, measure(program, list(groups.values()), isa), strict=True):
        names = [step.way for step in groups[key]]
        chosen[key] = names[fastest(times)]
        least = [min(column) for column in zip(*times, strict=True)]
        _keep(key, {"way": chosen[key], "ns": dict(zip(names, least, strict=True))})
    return chosen


def _folder() -> Path:
    return platformdirs.user_cache_path("hasten") / "schedules"


def _kept(key: str) -> str | None:
    try:
        way = json.loads((_folder() / f"{key}.json").read_text())["way"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return way if isinstance(way, str) else None


def _keep(key: str, facts: Mapping[str, object]) -> None:
    """A cache that cannot be written is only slower."""
    try:
        place = _folder() / f"{key}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(facts))
        temporary.replace(place)
    except OSError:
        return

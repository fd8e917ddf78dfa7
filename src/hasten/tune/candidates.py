"""An ``Offer`` enters; every engine says what it would try; missing libraries leave as skipped trials."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from hasten.engines import ENGINES, Engine, Offer
from hasten.records import Candidate, Trial

__all__ = ["gather", "load_engine"]


def gather(offer: Offer, engines: Mapping[str, str] = ENGINES) -> tuple[tuple[Candidate, ...], tuple[Trial, ...]]:
    """What to try, in the table's order, and a skipped trial for each engine that is missing here."""
    found: list[Candidate] = []
    skipped: list[Trial] = []
    for name, location in engines.items():
        try:
            engine = load_engine(location)
        except ImportError as error:
            skipped.append(Trial(Candidate(name), "skipped", f"engine not built yet: {error}"))
            continue
        reason = engine.missing()
        if reason is None:
            found.extend(engine.candidates(offer))
        else:
            skipped.append(Trial(Candidate(name), "skipped", reason))
    return tuple(found), tuple(skipped)


def load_engine(location: str) -> Engine:
    """The engine at ``module`` (its ``ENGINE``) or ``module:attribute``, its module imported now."""
    module, _, attribute = location.partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute or "ENGINE")
    return engine

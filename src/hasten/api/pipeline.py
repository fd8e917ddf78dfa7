"""The whole way, top to bottom: a model enters; a bundle, its ``Model`` and a report leave."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hasten import bundle
from hasten.api import prepare, ship
from hasten.api.collecting import rarely_collected
from hasten.api.describe import Finished, describe
from hasten.api.profiling import ByOp, by_op
from hasten.api.settings import Settings
from hasten.bundle.unpack import cache_folder
from hasten.errors import BundleError, VerifyError
from hasten.records import Trial
from hasten.report import Report
from hasten.runtime import Model
from hasten.runtime.loading import open_bundle
from hasten.sources import Source
from hasten.sources.detect import open_source
from hasten.sources.samples import samples
from hasten.tune.builds import Builds
from hasten.tune.choose import Verdict, choose, leaders
from hasten.tune.plan import Event, Plan
from hasten.tune.playoff import Rounds, playoff
from hasten.tune.processes import WarmPool
from hasten.tune.search import ahead, search
from hasten.types import Array

__all__ = ["Outcome", "benchmark", "optimize", "study"]

OnEvent = Callable[[Event], None]
_EXAMPLES = 4
_PLAYOFF_S, _QUICK_PLAYOFF_S = 6.0, 1.2
# The whole run; what the search gets however long reading the model took; and what must follow the search: opening the
# leaders, playing, writing and, in a whole search, timing the winner's operators.
_TOTAL_S, _QUICK_TOTAL_S = 87.0, 18.5
_LEAST_S, _QUICK_LEAST_S = 20.0, 5.0
_AFTER_S, _QUICK_AFTER_S = 14.0, 2.5
# Where less of the whole is left, the winner's operators are not timed any more: another build, with clocks in it. In a
# quick run one more candidate is worth more.
_BY_OP_S, _QUICK_BY_OP_S = 4.0, 3.0


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    report: Report
    bundle: Path | None
    """None for a benchmark."""
    interrupted: bool = False
    """Stopped by Ctrl-C: the best so far was written."""


def _silent(event: Event) -> None:
    """Nobody watches."""


def optimize(
    model: Any,
    sample: Any = None,
    *,
    output: str | Path | None = None,
    settings: Settings | None = None,
    on_event: OnEvent = _silent,
) -> Model:
    """The fastest verified way to run ``model`` on this machine, ready to be called like the original.

    Shapes:  model: a path, or a Keras, PyTorch, TensorFlow or ONNX object; sample: one array per input (a list, tuple
             or dict of them for several), rows on dimension 0; where a Keras or PyTorch model takes dicts or tuples,
             the same structure of arrays, whose ends become inputs named by their keys and places ("state_0")
    Raises:  SourceError: it cannot be read; InputError: the sample does not fit it; VerifyError: nothing gave its
             answers; BundleError: ``output`` cannot be written

    Example:
        >>> fast = hasten.optimize("model.keras", output="model.hasten")  # doctest: +SKIP
    """
    used = settings or Settings()
    if output is not None:
        study(model, sample, output=Path(output), settings=used, on_event=on_event)
        return open_bundle(Path(output), trust=True)
    folder = Path(tempfile.mkdtemp(prefix="hasten-"))
    try:
        study(model, sample, output=folder / "model.hasten", settings=used, on_event=on_event)
        return open_bundle(folder / "model.hasten", trust=True, keep=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def benchmark(
    model: Any, sample: Any = None, *, settings: Settings | None = None, on_event: OnEvent = _silent
) -> Report:
    """Every way to call ``model`` on this machine, side by side; nothing is chosen or written.

    Raises:  as ``optimize``
    """
    return study(model, sample, output=None, settings=settings or Settings(), on_event=on_event).report


def study(
    model: Any,
    sample: Any = None,
    *,
    output: Path | None,
    settings: Settings,
    on_event: OnEvent = _silent,
    command: str = "",
    began_s: float | None = None,
) -> Outcome:
    """The pipeline itself: what ``optimize`` and ``benchmark`` do, with its report; ``output`` None chooses nothing.

    Ctrl-C ends the search early: what was measured until then is judged and written. ``command`` is what the report
    says to type to repeat it. ``began_s``: the moment on the monotonic clock from which its time counts; None: now.
    """
    started = time.monotonic() if began_s is None else began_s
    if output is not None:
        _must_be_writable(output)
    with _workplace() as work, WarmPool(work, settings.limits.open_s) as pool:
        folders = work, _store(settings, work)
        _tell(on_event, "reading the model")
        prepare.preload(pool, model, settings)
        source, graphs, examples = _read(model, sample, (settings, folders), on_event)
        plan = prepare.plan(source, graphs, settings, examples, folders)

        with Builds(plan, pool) as builds:
            builds.begin(ahead(plan))
            _tell(on_event, "asking the model itself")
            plan = _within_time(prepare.asked(plan, source, settings, examples, work), settings, started)
            trials, interrupted = _searched(plan, builds, on_event)
        verdicts = {}
        if output is not None:
            verdicts = _decided((plan, pool), settings, trials, interrupted, on_event)
            _tell(on_event, "writing the bundle")
            bundle.write(output, ship.contents(source, graphs, (plan, settings), (trials, verdicts)))

        first = verdicts.get(settings.batch[0])
        finished = Finished(trials, first, output, command, interrupted, _by_op(plan, first, settings, started))
        report = describe(_name(model), source, graphs, (plan, settings), finished)
        return Outcome(report, output, interrupted)


@rarely_collected()
def _read(
    model: Any, sample: Any, how: tuple[Settings, tuple[Path, Path]], on_event: OnEvent
) -> tuple[Source, prepare.Graphs, Sequence[Sequence[Array]]]:
    """The source, its optimised graphs, and example inputs of one row each."""
    settings, (work, store) = how
    request = prepare.request(sample, settings, work)
    source = _kept(open_source(model, request), work, store)
    sizes = prepare.batches(source, settings)
    given = prepare.ordered(source, sample)
    _tell(on_event, "rewriting the graph")
    examples = samples(source, replace(request, sample=given), settings.seed, _EXAMPLES)
    return source, prepare.graphs(source, sizes, examples[0], work), examples


def _within_time(plan: Plan, settings: Settings, started: float) -> Plan:
    """The plan with what is left for the search of a run's whole time; a budget that the user gave stays."""
    if settings.budget_s is not None:
        return plan
    least, after = (_QUICK_LEAST_S, _QUICK_AFTER_S) if settings.quick else (_LEAST_S, _AFTER_S)
    left = _left_s(settings, started) - after
    return replace(plan, limits=replace(plan.limits, budget_s=max(least, min(plan.limits.budget_s, left))))


def _left_s(settings: Settings, started: float) -> float:
    return (_QUICK_TOTAL_S if settings.quick else _TOTAL_S) - (time.monotonic() - started)


def _by_op(plan: Plan, verdict: Verdict | None, settings: Settings, started: float) -> ByOp:
    """Where the time goes in the user's own call where that stays and its engine tells, else in the winner.

    Only if this run still has the time to find out.
    """
    if verdict is None or verdict.winner is None:
        return ByOp()

    def in_time(takes_s: float = 0.0) -> bool:
        least = takes_s + (_QUICK_BY_OP_S if settings.quick else _BY_OP_S)
        return settings.budget_s is not None or _left_s(settings, started) >= least

    own = verdict.original if verdict.original_stays else None
    if own is not None and own.measurement is not None and in_time(1e-9 * (own.measurement.cold_start_ns or 0.0)):
        found = by_op(plan, own)
        if found.times:
            return found
    if not in_time():
        return ByOp(note="operators were not timed: no time was left; hasten explain does it")
    return by_op(plan, verdict.winner)


def _searched(plan: Plan, builds: Builds, on_event: OnEvent) -> tuple[tuple[Trial, ...], bool]:
    """Every trial, or those that were finished when the user interrupted."""
    finished: list[Trial] = list(plan.skipped)
    interrupted = False

    def watch(event: Event) -> None:
        nonlocal interrupted
        interrupted = interrupted or event.kind == "interrupted"
        if event.trial is not None:
            finished.append(event.trial)
        on_event(event)

    try:
        return search(plan, watch, builds), interrupted
    except KeyboardInterrupt:
        on_event(Event("interrupted", len(finished), len(plan.candidates)))
        return tuple(finished), True


def _decided(
    work: tuple[Plan, WarmPool], settings: Settings, trials: Sequence[Trial], interrupted: bool, on_event: OnEvent
) -> dict[int, Verdict]:
    """A verdict for each batch size; the first is decided by a play-off.

    Raises:  VerifyError: nothing can be shipped; KeyboardInterrupt: that is so because the search was interrupted
    """
    verdicts, (plan, _) = {}, work
    for size in plan.checks:
        mine = [trial for trial in trials if trial.candidate.batch == size]
        rounds = None
        if size == settings.batch[0] and not interrupted:
            rounds = _played(work, settings, mine, on_event)
        verdicts[size] = choose(mine, settings.objective, settings.bounds, rounds)
    if not any(verdict.winner for verdict in verdicts.values()):
        raise _interrupted_early() if interrupted else _nothing_passed(trials, settings)
    return verdicts


def _played(
    work: tuple[Plan, WarmPool], settings: Settings, trials: Sequence[Trial], on_event: OnEvent
) -> Rounds | None:
    plan, pool = work
    finalists = leaders(trials, settings.objective, settings.bounds)
    if len(finalists) < 2:
        return None
    _tell(on_event, "play-off of the leaders")
    try:
        return playoff(plan, finalists, _QUICK_PLAYOFF_S if settings.quick else _PLAYOFF_S, on_event, pool)
    except KeyboardInterrupt:
        return None


def _interrupted_early() -> KeyboardInterrupt:
    return KeyboardInterrupt("before any candidate had passed, so nothing was written; run it again to go on")


def _nothing_passed(trials: Sequence[Trial], settings: Settings) -> VerifyError:
    if choose(trials, settings.objective).winner is not None:  # but for the bounds
        return VerifyError(choose(trials, settings.objective, settings.bounds).reason)
    order = ("wrong", "failed", "unstable", "skipped")
    told = sorted((t for t in trials if t.reason and t.status in order), key=lambda t: order.index(t.status))
    why = f"{told[0].candidate.label}: {told[0].reason}" if told else "no engine reads it"
    return VerifyError(f"no candidate gave the source's answers; {why}")


def _must_be_writable(output: Path) -> None:
    """A minute of measuring must not end at a folder that is not there."""
    folder = output.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BundleError(
            f"cannot write bundle '{output}': {error.strerror or error} ('{folder}'); choose another place with -o"
        ) from error
    if output.is_dir():
        raise BundleError(f"cannot write bundle '{output}': it is a folder; name a file with -o")


def _kept(source: Source, work: Path, store: Path) -> Source:
    """The source with its file where the next run finds it again: an object's saved copy lies in a passing folder."""
    if not source.path.is_relative_to(work) or store.is_relative_to(work):
        return source
    kept = store / "sources" / source.fingerprint / source.path.name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.path.is_dir() else shutil.copyfile
        copy(source.path, kept)
    return replace(source, path=kept)


@contextmanager
def _workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hasten-work-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _store(settings: Settings, work: Path) -> Path:
    """Where trials are kept between runs."""
    if settings.fresh:
        return work / "trials"
    store = settings.cache or cache_folder("trials")
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError:
        return work / "trials"
    return store


def _tell(on_event: OnEvent, stage: str) -> None:
    on_event(Event("step", 0, 0, stage=stage))


def _name(model: Any) -> str:
    return Path(model).name if isinstance(model, (str, Path)) else str(getattr(model, "name", type(model).__name__))

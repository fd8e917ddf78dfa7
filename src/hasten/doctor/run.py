"""Many files through the rules, in several processes; what each gave comes back in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from hasten.doctor.check import UNREADABLE, Job, Result, check_bytes
from hasten.doctor.files import is_test_path, jobs
from hasten.doctor.settings import Settings
from hasten.records import Finding

__all__ = ["examine", "examine_bytes"]

_ALONE = 32  # so few files are quicker in one process
_CHUNK = 16


def examine(
    paths: Sequence[Path], settings: Settings, *, fix: str = "", write: bool = True, workers: int | None = None
) -> list[Result]:
    """The result of every Python file and notebook in ``paths``; fixed files are written back.

    Raises:  SettingsError: a path does not exist
    """
    work = list(jobs(paths, settings, fix))
    count = min(workers or _cores(), max(1, len(work) // _CHUNK))
    results = [_examine(job) for job in work] if len(work) <= _ALONE or count == 1 else _in_processes(work, count)
    if write:
        for job, result in zip(work, results, strict=True):
            if result.fixed is not None:
                job.path.write_bytes(result.fixed)
    return results


def examine_bytes(data: bytes, settings: Settings, *, name: str = "<stdin>", fix: str = "") -> Result:
    """The result of one text that is in no file."""
    path = Path(name)
    job = Job(path, name, settings.for_file(path), fix, is_test_path(path))
    return check_bytes(data, job)


def _in_processes(work: list[Job], count: int) -> list[Result]:
    try:
        with ProcessPoolExecutor(count) as pool:
            return list(pool.map(_examine, work, chunksize=_CHUNK))
    except (BrokenProcessPool, OSError):  # no processes to be had: a sandbox, a full machine
        return [_examine(job) for job in work]


def _examine(job: Job) -> Result:
    limit = job.settings.max_file_kb * 1024
    try:
        size = job.path.stat().st_size
        # A notebook carries its pictures: only its code counts, and that is known after reading.
        if size > limit * (20 if job.path.suffix == ".ipynb" else 1):
            return Result(job.shown, skipped=f"{size / 2**20:.1f} MB, over the limit of {limit / 2**20:g} MB")
        data = job.path.read_bytes()
    except OSError as error:
        return Result(job.shown, (Finding(UNREADABLE, f"cannot read: {error.strerror}", "", job.shown, 1, 1),))
    try:
        return check_bytes(data, job)
    except Exception as error:  # a fault of ours must not cost the other files
        reason = f"the doctor itself failed here: {_said(error)}"
        return Result(job.shown, (Finding(UNREADABLE, reason, "Please report it.", job.shown, 1, 1),))


def _said(error: Exception) -> str:
    """An error in one line; its own text may be endless, or fail to be made."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text[:200]}"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

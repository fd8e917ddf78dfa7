"""A path enters, a ``Model`` leaves: on the first artefact that runs here and still gives the stored answers."""

from __future__ import annotations

import shutil
import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hasten import host
from hasten.bundle import Bundle, Entry, copy, read
from hasten.bundle.signing import must_be_vouched
from hasten.bundle.unpack import cache_folder, unpack
from hasten.errors import BundleError, HastenError, SettingsError
from hasten.records import Artefact, Candidate
from hasten.runtime.lanes import Lane, Runner
from hasten.runtime.model import Model, Opened
from hasten.runtime.rebuild import rebuild
from hasten.runtime.recheck import recheck
from hasten.runtime.target import runs_here
from hasten.sessions import SESSIONS

__all__ = ["LIBRARIES", "library_version", "load", "open_bundle"]

# Where each engine's library says its version once it is imported; native code is stamped with its target instead.
LIBRARIES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch", "keras": "keras"}


def load(path: str | Path, *, trust: bool = False, engine: str | None = None) -> Model:
    """The model of a bundle, ready to answer, without the framework it came from.

    Code runs only where it was built by this user for this kind of processor, or with ``trust=True``; elsewhere it is
    rebuilt from the portable graph if its compiler is installed, or the next verified engine answers, with a warning.
    ``engine`` asks for one engine by name.

    Raises:  BundleError: missing, damaged, newer, or nothing in it runs here; SettingsError: no engine of that name
    """
    if engine is not None and engine not in SESSIONS:
        raise SettingsError(f"unknown engine '{engine}': expected one of {', '.join(SESSIONS)}")
    return open_bundle(Path(path), trust=trust, engine=engine)


def open_bundle(path: Path, *, trust: bool = False, engine: str | None = None, keep: Path | None = None) -> Model:
    """As ``load``; ``keep`` is a folder that the model owns and removes when it is closed or no longer used."""
    opening = Opening(read(path), trust, engine)
    release = _Release(keep)
    return Model(
        Opened(
            inputs=opening.bundle.inputs,
            outputs=opening.bundle.outputs,
            lanes=opening.lanes(),
            describe=opening.describe,
            save=partial(copy, opening.bundle.path),
            release=release,
            rows_mix=bool(opening.bundle.facts.get("source", {}).get("rows_mix")),
        )
    )


class _Release:
    """Removes a folder once, at the latest when the interpreter exits."""

    def __init__(self, folder: Path | None):
        self._finish = None if folder is None else weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def __call__(self) -> None:
        if self._finish is not None:
            self._finish()


def library_version(engine: str) -> str:
    """What the engine's library calls its version; "" where it does not say, or is not imported."""
    return str(getattr(sys.modules.get(LIBRARIES.get(engine, "")), "__version__", ""))


@dataclass(frozen=True)
class Opening:
    """One bundle being opened on one host."""

    bundle: Bundle
    trust: bool
    engine: str | None

    def lanes(self) -> tuple[Lane, ...]:
        """One lane per batch size, ascending; the first is open.

        Raises:  BundleError: no batch size runs here
        """
        entries = self._entries()
        lanes, reasons = [], []
        for batch in sorted({entry.artefact.candidate.batch for entry in entries}):
            mine = [entry for entry in entries if entry.artefact.candidate.batch == batch]
            lanes.append(Lane(batch, mine[0].latency_ns, partial(self.open, mine)))
        while lanes:
            try:
                lanes[0].runner  # noqa: B018  (opened here, so that a bundle that cannot run fails at load)
                return tuple(lanes)
            except HastenError as error:
                reasons.append(str(error))
                lanes.pop(0)
        raise BundleError(reasons[0] if reasons else f"cannot run bundle '{self.bundle.path}': it holds no artefact")

    def _entries(self) -> Sequence[Entry]:
        entries = self.bundle.entries
        if self.engine is None:
            return entries
        asked = [entry for entry in entries if entry.artefact.candidate.engine == self.engine]
        if asked:
            return asked
        if not entries:
            return ()
        first = entries[0].artefact
        candidate = Candidate(self.engine, batch=first.candidate.batch)
        return [Entry(Artefact(candidate, Path(), (), first.inputs, first.outputs, portable=False), role="rebuild")]

    def open(self, entries: Sequence[Entry]) -> Runner:
        """A runner of the first entry that runs here and gives the stored answers.

        Raises:  BundleError: none does; the message says why for each
        """
        reasons: list[str] = []
        for entry in entries:
            for stored, obtain in self._ways(entry):
                try:
                    runner = self._checked(Runner(obtain()), entry.library if stored else None)
                except HastenError as error:
                    reasons.append(f"{entry.artefact.candidate.label}: {error}")
                    continue
                if entry is not entries[0]:
                    label = runner.artefact.candidate.label
                    message = f"bundle '{self.bundle.path.name}' runs on {label} here; {reasons[0]}"
                    warnings.warn(message, RuntimeWarning, stacklevel=6)
                return runner
        raise BundleError(f"cannot run bundle '{self.bundle.path}' here: {'; '.join(reasons)}")

    def _ways(self, entry: Entry) -> Sequence[tuple[bool, Callable[[], Artefact]]]:
        """How its artefact can be had, and whether that is the very one that was verified."""
        if entry.artefact.portable:
            return [(True, partial(self._vouched, entry))]
        build = partial(rebuild, self.bundle, entry.artefact.candidate)
        if not entry.artefact.files:
            return [(False, build)]
        return [(True, partial(self._machine_code, entry)), (False, build)]

    def _machine_code(self, entry: Entry) -> Artefact:
        """The stored machine code, if it may and can run here.

        Raises:  BundleError: made for another processor, or by somebody else and not trusted
        """
        artefact = entry.artefact
        if not runs_here(artefact.target, self.host_matches()):
            raise BundleError(f"its machine code is for {artefact.target}, this processor is {host.isa().name}")
        return self._vouched(entry)

    def _vouched(self, entry: Entry) -> Artefact:
        """The stored files.

        Raises:  BundleError: opening them runs code that somebody else made, and that is not trusted
        """
        must_be_vouched(entry, trust=self.trust)
        return unpack(self.bundle, entry)

    def _checked(self, runner: Runner, library: str | None) -> Runner:
        """The runner, after answering the stored samples where anything differs from where it was verified.

        ``library`` is the version that it was verified with; None for an artefact that was built anew.
        """
        version = library_version(runner.artefact.candidate.engine)
        if library is None or version != library or not self.host_matches():
            try:
                recheck(self.bundle, runner)
            except HastenError:
                runner.close()
                raise
        return runner

    def host_matches(self) -> bool:
        """True on the machine, or one just like it, that the bundle was made on."""
        made_on = self.bundle.facts.get("host", {})
        return isinstance(made_on, dict) and made_on.get("key") == host.host_key()

    def describe(self, artefact: Artefact) -> dict[str, Any]:
        """What ``Model.info`` shows."""
        candidate = artefact.candidate
        return {
            "path": str(self.bundle.path),
            "format": self.bundle.manifest["format"],
            "engine": candidate.engine,
            "candidate": candidate.label,
            "precision": candidate.precision,
            "threads": candidate.threads,
            "batches": sorted({entry.artefact.candidate.batch for entry in self._entries()}),
            "inputs": [str(spec) for spec in self.bundle.inputs],
            "outputs": [str(spec) for spec in self.bundle.outputs],
            "portable": artefact.portable,
            "rebuilt": artefact.folder.parent == cache_folder("rebuilt"),
            "target": artefact.target,
            "bundle_bytes": self.bundle.stamp[0],
            "artefact_bytes": artefact.nbytes,
            "host_match": self.host_matches(),
            **self.bundle.facts,
        }

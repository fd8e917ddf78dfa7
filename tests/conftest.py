"""Fixtures for every test: where temporary files go, and where the shared models lie."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# TensorFlow uses oneDNN by itself on newer processors only; without it, channels-first convolutions and dilated
# transposed ones, which the tests hold our importer against, are refused.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Run in the background, tests inherit that Ctrl-C is ignored, and would hand that on to the programs they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this process and those it starts put temporary files: a folder of the session's, removed at its end."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("TMPDIR", str(folder))
        changed.setattr(tempfile, "tempdir", str(folder))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real and seed models beside the checkout; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "models"
    if not folder.is_dir():
        pytest.skip("no ../shared/models beside the checkout")
    return folder

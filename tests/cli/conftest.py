"""The program run in this process: what it printed and how it exited."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from program import Ran, Run

from hasten import cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the small models beside the tests


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Calls ``hasten ARGUMENTS``; trials are kept in a folder of this test session."""
    home = tmp_path_factory.getbasetemp() / "cli-home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("HASTEN_DEBUG", "")  # not deleted: a test that turns it on must not leave it on

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["hasten", *map(str, arguments)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call

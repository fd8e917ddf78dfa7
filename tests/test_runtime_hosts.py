"""Which artefact of a bundle runs: on this host and others, whole and broken, trusted or not."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

from hasten import host
from hasten.bundle import Contents, write
from hasten.errors import BundleError, EngineError
from hasten.runtime import load
from hasten.runtime import loading as loading_module
from hasten.runtime.target import runs_here
from linear_engine import WEIGHTS, contents, entry, linear, opened, rows

__all__ = ["linear"]


def test_machine_code_by_this_user_for_this_processor_runs_silently(linear: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = opened(linear, entry(linear, machine="x86-64-v3"), entry(linear))
    assert model.info()["engine"] == "steel"


def test_machine_code_for_another_cpu_falls_back_with_a_warning(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "rebuild", _no_builder)
    with pytest.warns(RuntimeWarning, match="runs on linear here; steel: its machine code is for aarch64"):
        model = opened(linear, entry(linear, machine="aarch64"), entry(linear), trust=True)
    np.testing.assert_array_equal(model(rows(1)), rows(1) @ WEIGHTS)


def test_machine_code_of_another_user_needs_trust(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(linear / "m", contents(entry(linear, machine="x86-64-v3")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(linear / "another"))
    monkeypatch.setattr(loading_module, "rebuild", _no_builder)
    with pytest.raises(BundleError, match="not built by this user; trust=True"):
        load(path)
    assert load(path, trust=True).info()["engine"] == "steel"


def test_code_that_calls_itself_portable_needs_trust_all_the_same(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = entry(linear, machine="x86-64-v3")
    posing = dataclasses.replace(code, artefact=dataclasses.replace(code.artefact, portable=True, target="any"))
    path = write(linear / "m", contents(posing))
    assert load(path).info()["engine"] == "steel"  # its maker's own
    monkeypatch.setenv("XDG_CONFIG_HOME", str(linear / "another"))
    with pytest.raises(BundleError, match="not built by this user; trust=True"):
        load(path)
    assert load(path, trust=True).info()["engine"] == "steel"


def test_rebuilt_code_must_give_the_stored_answers(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = entry(linear, machine="x86-64-v3", wrong=True).artefact
    monkeypatch.setattr(loading_module, "rebuild", lambda bundle, candidate: built)
    with pytest.warns(RuntimeWarning, match="runs on linear"):
        assert opened(linear, entry(linear, machine="aarch64"), entry(linear)).info()["engine"] == "linear"


def test_rebuilt_code_that_is_right_is_used(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = dataclasses.replace(entry(linear, machine="x86-64-v3").artefact, notes=("rebuilt",))
    monkeypatch.setattr(loading_module, "rebuild", lambda bundle, candidate: built)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = opened(linear, entry(linear, machine="aarch64"), entry(linear))
    assert model.info()["target"] == "x86-64-v3"


def test_on_another_host_the_samples_are_checked_again(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(linear / "m", contents(entry(linear, wrong=True)))
    assert load(path).info()["host_match"], "the same host trusts what was verified here"
    monkeypatch.setattr(host, "host_key", lambda: "another-host")
    with pytest.raises(BundleError, match="answers to the stored samples are wrong here"):
        load(path)


@pytest.mark.parametrize(
    ("target", "isa", "runs"),
    [
        ("x86-64-v3", host.Isa("x86-64-v4"), True),
        ("x86-64-v3", host.Isa("x86-64-v2"), False),
        ("x86-64-v4", host.Isa("x86-64-v4"), False),
        ("x86-64-v4", host.Isa("x86-64-v4", vnni=True, bf16=True, vbmi2=True), True),
        ("x86-64-v4", host.Isa("x86-64-v4", vnni=True, bf16=True), False),
        ("x86-64-v4-base", host.Isa("x86-64-v4"), True),
        ("zen4", host.Isa("x86-64-v4", vnni=True, bf16=True, vbmi2=True), True),
        ("zen4", host.Isa("x86-64-v4"), False),
        ("x86-64-v2", host.Isa("aarch64"), False),
        ("x86-64-v2", host.Isa("generic"), False),
        ("aarch64", host.Isa("aarch64"), True),
        ("aarch64-dotprod", host.Isa("aarch64"), False),
        ("aarch64-dotprod", host.Isa("aarch64", dotprod=True), True),
        ("c", host.Isa("x86-64-v4"), False),
        ("any", host.Isa("generic"), True),
    ],
)
def test_which_processor_runs_which_code(
    target: str, isa: host.Isa, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "isa", lambda: isa)
    assert runs_here(target, made_here=False) is runs
    assert runs_here("c", made_here=True)


def test_an_engine_that_will_not_open_falls_back(linear: Path) -> None:
    with pytest.warns(RuntimeWarning, match="made to fail"):
        model = opened(linear, entry(linear, broken=True), entry(linear))
    np.testing.assert_array_equal(model(rows(1)), rows(1) @ WEIGHTS)


def test_a_batch_size_that_will_not_open_leaves_its_rows_to_the_others(linear: Path) -> None:
    model = opened(linear, entry(linear), entry(linear, 8, broken=True))
    with pytest.warns(RuntimeWarning, match="batch 8 is left out"):
        np.testing.assert_array_equal(model.predict(rows(16)), rows(16) @ WEIGHTS)
    model.predict(rows(16))


def test_an_engine_asked_for_by_name(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(linear / "m", contents(entry(linear, machine="x86-64-v3"), entry(linear)))
    assert load(path, engine="linear").info()["engine"] == "linear"
    monkeypatch.setattr(loading_module, "rebuild", _no_builder)
    with pytest.raises(BundleError, match="openvino: cannot rebuild: no compiler in this test"):
        load(path, engine="openvino")


def test_a_bundle_without_artefacts_is_refused(linear: Path) -> None:
    empty = Contents(inputs=(), outputs=(), entries=())
    with pytest.raises(BundleError, match="holds no artefact"):
        load(write(linear / "m", empty))


def _no_builder(*_: object) -> object:
    raise EngineError("cannot rebuild: no compiler in this test")

"""What explain and export show of a bundle: the program that its winner runs, in its precision and mathematics."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hasten
from hasten.api import Settings
from hasten.api.explaining import explain, winner_profile
from hasten.api.subject import subject
from hasten.bundle import Contents, read, write
from hasten.bundle.unpack import unpack
from hasten.engines import BuildRequest
from hasten.errors import BundleError
from hasten.graph import specs
from hasten.graph import write as write_graph
from hasten.native.compile import Numerics
from hasten.records import Candidate

ROWS, HIDDEN, CLASSES = 160, 256, 8
# What stands in the emitted C where weights are stored so.
STORED = {"bfloat16": "uint16_t", "int8-weights": "int8_t", "int8-dynamic": "int8_t", "int8": "int8_t"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((ROWS, HIDDEN)) / 16, "v": rng.standard_normal((HIDDEN, CLASSES)) / 16}
    nodes = [
        helper.make_node("Identity", ["x"], ["same"], name="nothing"),
        helper.make_node("MatMul", ["same", "w"], ["h"], name="first"),
        helper.make_node("Tanh", ["h"], ["t"], name="bend"),
        helper.make_node("MatMul", ["t", "v"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("subject") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def bundle(model: Path, folder: Path, **options: object) -> Path:
    sample = np.random.default_rng(1).standard_normal((1, ROWS)).astype(np.float32)
    made = hasten.compile(model, engine="native", sample=sample, **options)
    made.save(folder / "net.hasten")
    return folder / "net.hasten"


@pytest.mark.parametrize("precision", STORED)
def test_a_bundle_in_lower_precision_is_explained_as_it_runs(model: Path, tmp_path: Path, precision: str) -> None:
    path = bundle(model, tmp_path, precision=precision)
    plain, found = explain(model), explain(path)
    assert plain.candidate == "" and found.candidate == f"native {precision}"
    # float32 itself takes three bytes for a weight where it gains by that
    assert found.profile.weight_bytes < 0.7 * plain.profile.weight_bytes
    assert STORED[precision] in found.profile.source and STORED[precision] not in plain.profile.source


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
@pytest.mark.parametrize("precision", STORED)
def test_a_bundle_in_lower_precision_is_exported_as_it_runs(model: Path, tmp_path: Path, precision: str) -> None:
    """The self-test holds it to what the bundle was held to: the bounds of float32 would be too narrow."""
    hasten.export(bundle(model, tmp_path, precision=precision), tmp_path / "lib", target="c")
    assert STORED[precision] in (tmp_path / "lib" / "net.c").read_text()
    build = ["gcc", "-O1", "selftest.c", "libnet.a", "-lm", "-o", "selftest"]
    subprocess.run(build, cwd=tmp_path / "lib", check=True)
    done = subprocess.run(["./selftest"], cwd=tmp_path / "lib", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:3]) == (0, "ok:")


def test_mathematics_and_team_of_a_bundle_are_those_explained(model: Path, tmp_path: Path) -> None:
    path = bundle(model, tmp_path, settings=Settings(math="strict"), threads=2)
    found = subject(path, None, Settings(), tmp_path)
    assert (found.numerics.math, found.threads) == ("strict", 2)
    assert subject(path, None, Settings(math="fast"), tmp_path).numerics.math == "fast", "what is asked for goes first"
    explained = explain(path)
    assert explained.threads == 2
    assert "meet(flags, part, parts)" in explained.profile.source
    assert explained.profile.source != explain(path, settings=Settings(math="fast")).profile.source


def test_rounded_activations_of_a_bundle_are_kept(model: Path, tmp_path: Path) -> None:
    opened = read(bundle(model, tmp_path))
    held = opened.entries[0]
    won = replace(held.artefact.candidate, options=(("activations", "int16"), ("math", "fast")))
    entry = replace(held, artefact=replace(unpack(opened, held), candidate=won))
    samples, expected = zip(*opened.checks(), strict=True)
    made = Contents(
        opened.inputs, opened.outputs, (entry,), opened.graph(), samples, expected, opened.tolerance, opened.facts
    )
    write(tmp_path / "rounded.hasten", made)
    found = subject(tmp_path / "rounded.hasten", None, Settings(), tmp_path)
    assert found.numerics == Numerics(activations="int16", math="fast")


def test_rewrites_of_a_bundle_are_told_from_the_source_on(model: Path, tmp_path: Path) -> None:
    path = bundle(model, tmp_path)
    kept, plain = explain(path), explain(model)
    assert kept.rewrites == plain.rewrites
    assert kept.rewritten_since == plain.rewritten_since == "source"
    opened = read(path)
    samples, expected = zip(*opened.checks(), strict=True)
    entries = tuple(replace(e, artefact=unpack(opened, e)) for e in opened.entries)
    write(
        tmp_path / "older.hasten", Contents(opened.inputs, opened.outputs, entries, opened.graph(), samples, expected)
    )
    since = explain(tmp_path / "older.hasten")
    assert since.rewritten_since == "portable graph"
    assert len(since.rewrites) < len(kept.rewrites), "what took the Identity away came before the portable graph"


@pytest.mark.parametrize("kept", [[{"name": "fold constants"}], ["fold constants"], 3])
def test_rewrites_that_a_bundle_tells_by_halves_are_a_damaged_bundle(model: Path, tmp_path: Path, kept: Any) -> None:
    opened = read(bundle(model, tmp_path))
    samples, expected = zip(*opened.checks(), strict=True)
    entries = tuple(replace(e, artefact=unpack(opened, e)) for e in opened.entries)
    made = Contents(opened.inputs, opened.outputs, entries, opened.graph(), samples, expected, rewrites={1: kept})
    write(tmp_path / "halves.hasten", made)
    with pytest.raises(BundleError, match=r"damaged bundle .*lacks what a rewrite did"):
        explain(tmp_path / "halves.hasten")


def test_a_report_profiles_the_program_of_a_winner_in_lower_precision(model: Path, tmp_path: Path) -> None:
    found = subject(model, None, Settings(), tmp_path)
    write_graph(found.model, tmp_path / "fixed.onnx")
    path, (inputs, outputs) = tmp_path / "fixed.onnx", specs(found.model)
    request = BuildRequest(Candidate("native", "bfloat16"), path, path, "onnx", inputs, outputs, tmp_path)
    told = winner_profile(request, found.checks[0][0])
    assert told is not None
    assert [op.op.count("bfloat16 weights") for op in told[0]] == [1, 1]

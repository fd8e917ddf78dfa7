"""The file format: whole or not at all, every byte covered, nothing unsafe accepted."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hasten.bundle import FORMAT, Bundle, copy, read, write
from hasten.bundle.contents import MANIFEST, seal
from hasten.bundle.frame import frame_hash
from hasten.bundle.signing import is_ours, sign
from hasten.bundle.unpack import unpack
from hasten.errors import BundleError
from linear_engine import WEIGHTS, contents, entry, linear

__all__ = ["linear"]


@pytest.fixture
def bundle(linear: Path) -> Path:
    return write(linear / "model.hasten", contents(entry(linear)))


def rewritten(source: Path, target: Path, change: object) -> Path:
    """The bundle with its manifest changed by somebody who knows the format and seals it again."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == MANIFEST:
                manifest = json.loads(data)
                change(manifest)  # type: ignore[operator]
                data = json.dumps(manifest).encode()
            new.writestr(info, data)
        new.comment = seal("0" * 64)
    reseal(target)
    return target


def reseal(path: Path) -> None:
    with path.open("r+b") as file:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        comment = seal(frame_hash(file, infos, {})[0])
        file.seek(-len(comment), os.SEEK_END)
        file.write(comment)


def test_what_was_written_is_read(bundle: Path) -> None:
    opened = read(bundle)
    assert opened.graph() == b"a graph, as far as the bundle knows"
    assert [str(s) for s in opened.inputs] == ["x: float32[batch, 3]"]
    assert opened.measurements() == {"trials": []}
    (x,), (y,) = opened.checks()[1]
    np.testing.assert_array_equal(y, x @ WEIGHTS)
    artefact = unpack(opened, opened.entries[0])
    np.testing.assert_array_equal(np.load(artefact.path(".npy")), WEIGHTS)


def test_rewrites_are_kept_by_batch_size(linear: Path) -> None:
    told = {"name": "drop_noops", "changes": 1, "nodes_before": 3, "nodes_after": 2, "macs_saved": 0}
    made = dataclasses.replace(contents(entry(linear)), rewrites={1: [told], 8: []})
    opened = read(write(linear / "told.hasten", made))
    assert opened.rewrites(1) == [told]
    assert opened.rewrites(8) == []
    assert opened.rewrites(2) is None


def test_a_bundle_from_before_rewrites_were_kept_opens(bundle: Path) -> None:
    older = read(rewritten(bundle, bundle.with_name("older"), lambda m: m.pop("rewrites")))
    assert older.rewrites(1) is None
    assert len(older.checks()) == len(read(bundle).checks())


def test_equal_contents_give_equal_bytes(linear: Path) -> None:
    made = contents(entry(linear))
    assert write(linear / "a", made).read_bytes() == write(linear / "b", made).read_bytes()


def test_a_flipped_byte_anywhere_is_found(bundle: Path) -> None:
    data = bundle.read_bytes()
    for at in range(len(data)):
        for mask in (0x01, 0x80) if at % 7 == 0 else (0x10,):
            bundle.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            with pytest.raises(BundleError):
                read(bundle)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_cut_off_anywhere_is_found(bundle: Path, share: float) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BundleError):
        read(bundle)


def test_appended_bytes_are_found(bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes() + b"x")
    with pytest.raises(BundleError):
        read(bundle)


@pytest.mark.parametrize("data", [b"", b"\x00" * 500, b"PK\x05\x06" + b"\x00" * 18, b"{}"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.hasten").write_bytes(data)
    with pytest.raises(BundleError, match=r"cannot load"):
        read(tmp_path / "x.hasten")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        read(tmp_path / "none.hasten")


def test_newer_format_says_upgrade(bundle: Path) -> None:
    newer = rewritten(bundle, bundle.with_name("newer"), lambda m: m.update(format=FORMAT + 1))
    with pytest.raises(BundleError, match="pip install -U hasten"):
        read(newer)


@pytest.mark.parametrize("name", ["../../evil.npy", "/etc/evil.npy", "a/../../evil", "c:evil\\x", "./w.npy"])
def test_names_outside_the_folder_are_refused(bundle: Path, name: str) -> None:
    def change(manifest: dict) -> None:
        manifest["artefacts"][0]["artefact"]["files"] = [name]

    with pytest.raises(BundleError, match="unsafe"):
        read(rewritten(bundle, bundle.with_name("evil"), change))


def test_a_member_named_outside_the_archive_is_refused(bundle: Path) -> None:
    evil = bundle.with_name("evil")
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(evil, "w") as new:
        manifest = json.loads(old.read(MANIFEST))
        for info in old.infolist():
            if info.filename != MANIFEST:
                new.writestr(info, old.read(info))
        new.writestr("../evil", b"")
        manifest["members"]["../evil"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        new.writestr(MANIFEST, json.dumps(manifest))
        new.comment = seal("0" * 64)
    reseal(evil)
    with pytest.raises(BundleError, match="unsafe member name"):
        read(evil)


def test_compressed_members_are_refused(bundle: Path) -> None:
    bomb = bundle.with_name("bomb")
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(bomb, "w") as new:
        for info in old.infolist():
            kind = zipfile.ZIP_DEFLATED if info.filename == "graph.onnx" else zipfile.ZIP_STORED
            new.writestr(info.filename, old.read(info), kind)
    with pytest.raises(BundleError, match="expected stored bytes"):
        read(bomb)


def test_a_manifest_without_its_parts_is_refused(bundle: Path) -> None:
    for part in ("inputs", "artefacts", "members"):
        with pytest.raises(BundleError):
            read(rewritten(bundle, bundle.with_name(part), lambda m, part=part: m.pop(part)))


def test_pickled_arrays_are_refused(bundle: Path) -> None:
    opened = read(bundle)
    poisoned = bundle.with_name("pickle")
    content = contents(entry(bundle.parent))
    write(
        poisoned, dataclasses.replace(content, graph=b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, ")
    )
    spans = dict(read(poisoned).spans)
    manifest = json.loads(json.dumps(dict(read(poisoned).manifest)))
    spans["checks/0/in_0.npy"] = spans["graph.onnx"]
    manifest["members"]["checks/0/in_0.npy"] = manifest["members"]["graph.onnx"]
    with pytest.raises(BundleError, match="not a plain array"):
        Bundle(poisoned, manifest, spans, read(poisoned).stamp).checks()
    assert opened.checks()


def test_an_unwritable_folder_leaves_nothing(linear: Path) -> None:
    with pytest.raises(BundleError, match="No such file or directory"):
        write(linear / "absent" / "model.hasten", contents(entry(linear)))
    (linear / "folder.hasten").mkdir()
    with pytest.raises(BundleError, match="cannot write bundle"):
        write(linear / "folder.hasten", contents(entry(linear)))
    assert not list(linear.glob(".*"))


def test_a_full_disk_leaves_the_old_bundle(linear: Path) -> None:
    target = write(linear / "model.hasten", contents(entry(linear)))
    before = target.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(BundleError, match=r"cannot write bundle .*; choose another place"):
            write(target, dataclasses.replace(contents(entry(linear)), graph=b"x" * 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == before
    assert not list(linear.glob(".*"))


def test_copy_needs_its_source(bundle: Path) -> None:
    assert copy(bundle, bundle.with_name("b.hasten")).read_bytes() == bundle.read_bytes()
    with pytest.raises(BundleError, match="is gone"):
        copy(bundle.with_name("never"), bundle.with_name("c.hasten"))


def test_a_file_changed_after_loading_is_noticed(bundle: Path) -> None:
    opened = read(bundle)
    write(bundle, dataclasses.replace(contents(entry(bundle.parent)), graph=b"another"))
    with pytest.raises(BundleError, match="changed after"):
        opened.graph()


def test_an_incomplete_cache_is_filled_again(bundle: Path) -> None:
    opened = read(bundle)
    artefact = unpack(opened, opened.entries[0])
    artefact.path(".npy").write_bytes(b"cut")
    np.testing.assert_array_equal(np.load(unpack(opened, opened.entries[0]).path(".npy")), WEIGHTS)


def test_altered_machine_code_in_the_cache_is_replaced(linear: Path) -> None:
    opened = read(write(linear / "m", contents(entry(linear, machine="x86-64-v3"))))
    file = unpack(opened, opened.entries[0]).path(".npy")
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"!")
    assert unpack(opened, opened.entries[0]).path(".npy").read_bytes() == good


def test_without_a_cache_files_go_to_a_temporary_folder(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.parent / "blocked").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bundle.parent / "blocked"))
    opened = read(bundle)
    np.testing.assert_array_equal(np.load(unpack(opened, opened.entries[0]).path(".npy")), WEIGHTS)


def test_machine_code_is_signed_and_portable_files_are_not(linear: Path) -> None:
    both = contents(entry(linear, machine="x86-64-v3"), entry(linear))
    steel, plain = read(write(linear / "m", both)).entries
    assert is_ours(steel)
    assert plain.mac is None
    key = linear / "config" / "hasten" / "bundle.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_signature_covers_files_details_and_target(linear: Path) -> None:
    (steel,) = read(write(linear / "m", contents(entry(linear, machine="x86-64-v3")))).entries
    assert not is_ours(dataclasses.replace(steel, hashes={"w.npy": "0" * 64}))
    assert not is_ours(dataclasses.replace(steel, artefact=dataclasses.replace(steel.artefact, target="any")))
    assert not is_ours(dataclasses.replace(steel, artefact=dataclasses.replace(steel.artefact, details={"a": 1})))


def test_another_users_signature_does_not_count(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (steel,) = read(write(linear / "m", contents(entry(linear, machine="x86-64-v3")))).entries
    monkeypatch.setenv("XDG_CONFIG_HOME", str(linear / "another"))
    assert not is_ours(steel)
    assert sign(steel) != steel.mac


def test_a_key_that_others_can_read_does_not_count(linear: Path) -> None:
    (steel,) = read(write(linear / "m", contents(entry(linear, machine="x86-64-v3")))).entries
    (linear / "config" / "hasten" / "bundle.key").chmod(0o644)
    with pytest.warns(UserWarning, match="others may read it"):
        assert not is_ours(steel)


def test_reading_a_bundle_imports_nothing_heavy(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hasten.bundle import read; read(Path(sys.argv[1]));"
        "bad = {'onnx', 'onnx_ir', 'typer', 'rich', 'psutil', 'platformdirs', 'torch'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle)], check=True)

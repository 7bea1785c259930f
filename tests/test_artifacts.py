"""Folders are complete or not there."""

import pytest

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts


def build_folder(path, inputs=None):
    with artifacts.build(path, "thing", inputs or {"a": 1}) as build:
        (build.path / "sub").mkdir()
        (build.path / "sub" / "data.bin").write_bytes(b"0123456789")
        build.summary["count"] = 10


def test_a_committed_folder_verifies_and_tells_its_summary(tmp_path):
    build_folder(tmp_path / "x")
    manifest = artifacts.verify(tmp_path / "x", "thing")
    assert manifest["summary"] == {"count": 10}
    assert list(manifest["files"]) == ["sub/data.bin"]


def test_same_content_gives_the_same_manifest_bytes(tmp_path):
    build_folder(tmp_path / "x")
    build_folder(tmp_path / "y")
    first, second = ((tmp_path / name / artifacts.COMMIT_MARKER).read_bytes() for name in "xy")
    assert first == second


def test_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="boom"), artifacts.build(tmp_path / "x", "thing", {}) as build:
        (build.path / "half").write_text("half")
        raise ValueError("boom")
    assert not (tmp_path / "x").exists()


def test_files_of_a_stranger_are_never_touched(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        build_folder(tmp_path / "x")
    assert (tmp_path / "x" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("place", range(10))
def test_every_flipped_byte_is_named(tmp_path, place):
    build_folder(tmp_path / "x")
    path = tmp_path / "x" / "sub" / "data.bin"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data\.bin has changed"):
        artifacts.verify(tmp_path / "x", "thing")


def test_truncation_missing_files_and_other_kinds_are_named(tmp_path):
    build_folder(tmp_path / "x")
    path = tmp_path / "x" / "sub" / "data.bin"
    with pytest.raises(UserError, match="holds a thing, not a token_store"):
        artifacts.read_manifest(tmp_path / "x", "token_store")
    path.write_bytes(b"01234")
    with pytest.raises(UserError, match="has 5 bytes where 10"):
        artifacts.verify(tmp_path / "x", "thing")
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        artifacts.verify(tmp_path / "x", "thing")
    with pytest.raises(UserError, match="does not exist"):
        artifacts.read_manifest(tmp_path / "absent", "thing")


def test_same_inputs_are_recognised(tmp_path):
    assert not artifacts.same_inputs(tmp_path / "x", "thing", {"a": 1})
    build_folder(tmp_path / "x", {"a": 1})
    assert artifacts.same_inputs(tmp_path / "x", "thing", {"a": 1})
    assert not artifacts.same_inputs(tmp_path / "x", "thing", {"a": 2})


def test_a_changed_commit_marker_is_named(tmp_path):
    build_folder(tmp_path / "x")
    marker = tmp_path / "x" / artifacts.COMMIT_MARKER
    marker.write_text(marker.read_text().replace('"count": 10', '"count": 11'))
    with pytest.raises(UserError, match=r"COMMITTED\.json has changed"):
        artifacts.read_manifest(tmp_path / "x", "thing")

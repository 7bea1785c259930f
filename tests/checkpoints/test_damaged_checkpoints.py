"""A flipped byte or a truncation anywhere is detected and named, and the newest valid step is used."""

import json
import logging
import os
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.checkpoints.step_folders import read_manifest
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.run_folder import step_folder
from tests.checkpoints.saving_process import state_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "checkpoints"
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, state_of(step), {"samples": step * 8})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def files_of(folder: Path, step: int) -> list[Path]:
    return sorted(path for path in Path(step_folder(folder, step)).rglob("*") if path.is_file())


def damaged_contents(content: bytes) -> dict[str, bytes | None]:
    """Returns a sample of what can happen to a file: flipped bits, truncations, growth, loss."""
    offsets = {0, len(content) // 3, len(content) // 2, len(content) - 1}
    flips = {
        f"bit flipped at {offset}": content[:offset]
        + bytes([content[offset] ^ 1 << offset % 8])
        + content[offset + 1 :]
        for offset in offsets
    }
    cuts = {f"cut to {size}": content[:size] for size in {0, len(content) // 2, len(content) - 1}}
    return flips | cuts | {"one byte more": content + b"\0", "removed": None}


def assert_is_step_one(checkpointer: Checkpointer) -> None:
    restored, metadata, step = checkpointer.restore(state_of(0))
    assert step == 1 and metadata == {"samples": 8}
    for found, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state_of(1)), strict=True):
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


def test_damage_to_any_file_is_named_and_the_step_before_used(folder):
    files = files_of(folder, 2)
    assert len(files) > 10
    with Checkpointer(folder) as checkpointer:
        for path in files:
            name = path.relative_to(step_folder(folder, 2)).as_posix()
            content = path.read_bytes()
            for what, damaged in damaged_contents(content).items():
                path.unlink() if damaged is None else path.write_bytes(damaged)
                assert checkpointer.latest_valid_step() == 1, f"{name}: {what}"
                uncommitted = path.name == artifacts.COMMIT_MARKER and damaged is None
                assert [(found.step, found.file) for found in checkpointer.rejected] == (
                    [] if uncommitted else [(2, name)]
                )
            with pytest.raises(UserError, match=path.name):
                checkpointer.restore(state_of(0), step=2)
            assert_is_step_one(checkpointer)
            path.write_bytes(content)
        assert checkpointer.latest_valid_step() == 2


def test_small_files_are_guarded_from_end_to_end(folder):
    with Checkpointer(folder) as checkpointer:
        for name in ("COMMITTED.json", "metadata.json"):
            path = Path(step_folder(folder, 2)) / name
            content = path.read_bytes()
            chooser = random.Random(0)
            for offset in range(0, len(content), 3 if name == "COMMITTED.json" else 37):
                flipped = content[offset] ^ 1 << chooser.randrange(8)
                path.write_bytes(content[:offset] + bytes([flipped]) + content[offset + 1 :])
                if name == "COMMITTED.json":
                    assert not isinstance(read_manifest(folder, 2), dict), offset
                else:
                    assert checkpointer.latest_valid_step() == 1
            path.write_bytes(content)


def test_orbax_alone_restores_wrong_values_that_we_refuse(folder):
    expected = np.asarray(state_of(2).params["layers"]["kernel"])
    raw = expected.tobytes()
    path = next(path for path in files_of(folder, 2) if raw[:256] in path.read_bytes())
    content = bytearray(path.read_bytes())
    content[content.index(raw[:256]) + 3] ^= 0x40
    path.write_bytes(bytes(content))

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        silently = orbax.restore(step_folder(folder, 2) / "state")
    differing = np.flatnonzero(np.asarray(silently["params"]["layers"]["kernel"]).ravel() != expected.ravel())
    assert differing.tolist() == [0], "this test needs Orbax to be fooled"

    with Checkpointer(folder) as checkpointer:
        assert_is_step_one(checkpointer)
        assert checkpointer.rejected[0].file == path.relative_to(step_folder(folder, 2)).as_posix()


def remade(folder: Path, change) -> bytes:
    """Returns the marker of step 2 after a change by someone who makes its digest again."""
    manifest = read_manifest(folder, 2)
    change(manifest)
    del manifest["digest"]
    return artifacts.manifest_text(artifacts.sealed(manifest), indent=1).encode()


HOSTILE_MARKERS = {
    "deep": lambda folder: b"[" * 100_000,
    "5,000 digits": lambda folder: b'{"digest": ' + b"9" * 5_000 + b"}",
    "truncated": lambda folder: (Path(step_folder(folder, 2)) / "COMMITTED.json").read_bytes()[:-9],
    "empty": lambda folder: b"",
    "no object": lambda folder: b"[]",
    "NaN": lambda folder: b'{"digest": NaN}',
    "files is a list": lambda folder: remade(folder, lambda manifest: manifest.update(files=[])),
    "no files": lambda folder: remade(folder, lambda manifest: manifest.update(files={})),
    "a name above the folder": lambda folder: remade(
        folder, lambda manifest: manifest["files"].update({"../step_0000000001/metadata.json": {"bytes": 1}})
    ),
    "an absolute name": lambda folder: remade(
        folder, lambda manifest: manifest["files"].update({"/etc/hostname": manifest["files"]["metadata.json"]})
    ),
    "a size that is text": lambda folder: remade(
        folder, lambda manifest: manifest["files"]["metadata.json"].update(bytes="5")
    ),
    "a digest that is a number": lambda folder: remade(
        folder, lambda manifest: manifest["files"]["metadata.json"].update(blake2b=5)
    ),
    "a summary that is a list": lambda folder: remade(folder, lambda manifest: manifest.update(summary=[2])),
}


@pytest.mark.parametrize("case", HOSTILE_MARKERS)
def test_a_hostile_marker_is_passed_over_for_the_step_before(folder, case):
    marker = Path(step_folder(folder, 2)) / "COMMITTED.json"
    marker.write_bytes(HOSTILE_MARKERS[case](folder))
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.latest_valid_step() == 1
        assert [(found.step, found.file) for found in checkpointer.rejected] == [(2, "COMMITTED.json")]
        assert "is damaged" in str(checkpointer.rejected[0]) and "\n" not in str(checkpointer.rejected[0])


@pytest.mark.parametrize("name", ["COMMITTED.json", "metadata.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_a_file_that_is_none_any_more_is_passed_over(folder, name, make):
    path = Path(step_folder(folder, 2)) / name
    path.unlink()
    make(path)
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.latest_valid_step() == 1


def test_rejected_steps_are_logged_with_file_and_reason(folder, caplog):
    path = Path(step_folder(folder, 2)) / "state" / "manifest.ocdbt"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING), Checkpointer(folder) as checkpointer:
        assert checkpointer.valid_steps() == [1]
        assert checkpointer.latest_valid_step() == 1
    assert "step 2: state/manifest.ocdbt has" in caplog.text


def test_no_valid_step_is_one_clear_line_with_every_reason(folder):
    for step in (1, 2):
        (Path(step_folder(folder, step)) / "metadata.json").unlink()
    with Checkpointer(folder) as checkpointer, pytest.raises(UserError) as raised:
        checkpointer.restore(state_of(0))
    message = str(raised.value)
    assert str(folder) in message and "\n" not in message
    assert "step 2: metadata.json is missing" in message and "step 1: metadata.json is missing" in message
    with Checkpointer(folder / "nowhere") as checkpointer, pytest.raises(UserError, match="no valid checkpoint"):
        checkpointer.read_metadata()


def test_renamed_step_is_not_taken_for_another(folder):
    Path(step_folder(folder, 2)).rename(step_folder(folder, 7))
    with Checkpointer(folder) as checkpointer:
        assert checkpointer.latest_valid_step() == 1
        assert "renamed" in checkpointer.rejected[0].reason


def test_damaged_step_is_replaced_when_training_reaches_it_again(folder):
    path = files_of(folder, 2)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with Checkpointer(folder) as checkpointer:
        checkpointer.restore(state_of(0))
        assert checkpointer.save(2, state_of(2), {"samples": 16}, wait=True)
        assert checkpointer.latest_valid_step() == 2 and not checkpointer.rejected


def test_damaged_steps_take_no_place_from_valid_ones(folder):
    (Path(step_folder(folder, 2)) / "metadata.json").unlink()
    with Checkpointer(folder, keep_last=2) as checkpointer:
        checkpointer.restore(state_of(0))
        checkpointer.save(3, state_of(3), {}, wait=True)
        assert checkpointer.valid_steps() == [1, 3] == checkpointer.committed_steps()


def test_marker_can_be_read_as_any_other_artifact(folder):
    manifest = artifacts.verify(step_folder(folder, 2), "checkpoint")
    assert manifest["summary"] == {"step": 2}
    assert json.loads((Path(step_folder(folder, 2)) / "metadata.json").read_text())["step"] == 2

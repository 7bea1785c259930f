"""A build that is killed, or runs out of disk, before any change it makes: the next one ends with the same bytes."""

import shutil
import sys
from pathlib import Path

import pytest

from apertus_jax.storage import artifacts
from tests.checkpoints.crash_points import content, read_log

SCRIPT = Path(__file__).with_name("abandoning_process.py")
ROOT = {"PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture(scope="module")
def states(crash_points, module_memory_path):
    """Every state in which a kill can leave the folder around a build."""
    watched = module_memory_path / "recorded" / "x"
    watched.parent.mkdir()
    return crash_points.record(
        [sys.executable, str(SCRIPT), str(watched), "-"], watched, module_memory_path / "states", ROOT
    )


def build_folder(path):
    with artifacts.build(path, "thing", {"a": 1}) as build:
        (build.path / "sub").mkdir()
        (build.path / "sub" / "data.bin").write_bytes(b"0123456789")
        (build.path / "last.txt").write_text("last")
        build.summary["count"] = 10


def test_a_kill_before_any_change_ends_with_the_same_bytes(states):
    whole = content(states[-1].folder)
    assert set(whole) == {"COMMITTED.json", "sub", "sub/data.bin", "last.txt"}
    assert len(states) > 15
    for state in states:
        if artifacts.is_complete(state.folder):
            artifacts.verify(state.folder, "thing")
            continue
        copy = state.folder.with_name(f"{state.folder.name}_again")
        if state.folder.exists():
            shutil.copytree(state.folder, copy)
        build_folder(copy)
        assert content(copy) == whole, state


def test_a_kill_leaves_files_that_someone_adds_afterwards_alone(states):
    for state in states[:-1]:
        if artifacts.is_complete(state.folder) or not state.folder.exists():
            continue
        copy = state.folder.with_name(f"{state.folder.name}_mine")
        shutil.copytree(state.folder, copy)
        (copy / "thesis.txt").write_text("years of work")
        before = content(copy)
        with pytest.raises(artifacts.UserError, match=r"thesis\.txt"):
            build_folder(copy)
        assert content(copy) == before, state


def test_full_disk_at_any_change_is_one_line_and_leaves_nothing(crash_points, module_memory_path, states):
    calls = read_log(module_memory_path / "states.log")
    for number in range(1, len(calls), 3):
        folder = module_memory_path / f"full_{number}" / "x"
        folder.parent.mkdir()
        command = [sys.executable, str(SCRIPT), str(folder), "-"]
        done = crash_points.run(command, folder, full_at=number, environment=ROOT)
        if done.returncode == 0:  # only removals were left, which need no space
            artifacts.verify(folder, "thing")
            continue
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "the disk is full; free space and run the same command again" in done.stderr
        assert artifacts.is_complete(folder) or not folder.exists(), sorted(content(folder))
        if not folder.exists():
            build_folder(folder)
        assert content(folder) == content(states[-1].folder)

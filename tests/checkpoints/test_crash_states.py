"""A crash before any change that a save makes leaves the old valid steps or the new ones, and saving goes on."""

import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.storage.run_folder import step_folder
from tests.checkpoints.crash_points import read_log
from tests.checkpoints.saving_process import state_of

SAVING_PROCESS = str(Path(__file__).parent / "saving_process.py")
ROOT = {"PYTHONPATH": str(Path(__file__).parents[2])}


def saving(folder: Path, keep_last: int, *steps: int) -> list[str]:
    return [sys.executable, SAVING_PROCESS, str(folder), str(keep_last), *map(str, steps)]


@pytest.fixture(scope="module")
def crash_states(crash_points, module_memory_path):
    """Every state of a folder in which step 1 is saved, then step 2, and step 1 is given up for it."""
    folder = module_memory_path / "recorded"
    folder.mkdir()
    return crash_points.record(saving(folder / "run", 1, 1, 2), folder / "run", folder / "states", ROOT)


def assert_holds(restored, step: int) -> None:
    for found, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state_of(step)), strict=True):
        assert found.dtype == expected.dtype and np.asarray(found).tobytes() == np.asarray(expected).tobytes()


def newest_restored(checkpointer: Checkpointer) -> int | None:
    """Returns the newest valid step after checking that what it restores is bit for bit what was saved."""
    if checkpointer.latest_valid_step() is None:
        return None
    restored, metadata, step = checkpointer.restore(state_of(0))
    assert_holds(restored, step)
    assert metadata == {"samples": step * 8}
    return step


def test_crash_states_cover_every_phase_of_a_save(crash_states):
    operations = read_log(crash_states[-1].folder.parent / "states.log")
    calls = {(operation.call, Path(operation.path).name) for operation in operations}
    assert {
        ("mkdir", "step_0000000002"),
        ("rename", "manifest.ocdbt.__lock"),
        ("rename", "state.orbax-checkpoint-tmp"),
        ("write rest", "metadata.json"),
        ("rename", ".COMMITTED.json.partial"),
        ("unlink", "COMMITTED.json"),
        ("rmdir", "step_0000000001"),
    } <= calls
    assert any(call == "write rest" and len(name) == 32 for call, name in calls)
    assert len(crash_states) > 100


def test_crash_before_any_change_leaves_old_or_new_valid_steps(crash_states):
    history = []
    for state in crash_states:
        with Checkpointer(state.folder) as checkpointer:
            history.append(newest_restored(checkpointer))
            assert not checkpointer.rejected, f"{state}: a committed step was damaged"
            steps = checkpointer.valid_steps()
        assert steps == checkpointer.committed_steps()
        assert steps in ([], [1], [1, 2], [2]), state
    order = [0 if step is None else step for step in history]
    assert order == sorted(order) and set(order) == {0, 1, 2}


def test_saving_goes_on_from_every_crash_state(crash_states, memory_path):
    first_commit = next(n for n, state in enumerate(crash_states) if Checkpointer(state.folder).committed_steps())
    # Before the first commit there is nothing to lose: a sample of those states is enough.
    for state in crash_states[:first_commit:4] + crash_states[first_commit:]:
        folder = memory_path / "run"
        if state.folder.exists():
            shutil.copytree(state.folder, folder)
        with Checkpointer(folder, keep_last=2) as checkpointer:
            newest = checkpointer.latest_valid_step() or 0
            checkpointer.save(newest + 1, state_of(newest + 1), {"samples": (newest + 1) * 8}, wait=True)
        with Checkpointer(folder) as checkpointer:
            assert newest_restored(checkpointer) == newest + 1, state
        found = {child.name for child in folder.iterdir()}
        expected = {step_folder(folder, step).name for step in checkpointer.committed_steps()}
        assert found == expected, f"{state}: leftovers stay"
        shutil.rmtree(folder)


def test_crash_while_leftovers_are_cleaned_keeps_the_valid_steps(crash_points, crash_states, memory_path):
    leftover = next(
        state
        for state in crash_states
        if state.operation
        and state.operation.path.endswith("/.COMMITTED.json.partial")
        and "step_0000000002" in state.operation.path
    )
    shutil.copytree(leftover.folder, memory_path / "run")
    states = crash_points.record(saving(memory_path / "run", 1, 3), memory_path / "run", memory_path / "states", ROOT)
    removals = [state for state in states if state.operation and "step_0000000002" in state.operation.path]
    assert len(removals) > 10
    for state in states:
        with Checkpointer(state.folder) as checkpointer:
            assert checkpointer.valid_steps() in ([1], [1, 3], [3]), state
            assert newest_restored(checkpointer) in (1, 3)


def test_killed_process_restores_the_newest_committed_step(crash_points, crash_states, memory_path):
    commits = [
        operation.number
        for operation in read_log(crash_states[-1].folder.parent / "states.log")
        if operation.call == "rename" and operation.path.endswith("/.COMMITTED.json.partial")
    ]
    # The number of operations differs a little from run to run, so the places keep clear of the end.
    for kill_at in (commits[0] + 20, (commits[0] + commits[1]) // 2, commits[1] - 25):
        folder, log = memory_path / f"killed_{kill_at}", memory_path / f"killed_{kill_at}.log"
        killed = crash_points.run(saving(folder, 1, 1, 2), folder, log, kill_at=kill_at, environment=ROOT)
        assert killed.returncode == -signal.SIGKILL
        done = {operation.path for operation in read_log(log)[:-1] if operation.call == "rename"}
        committed = [step for step in (1, 2) if str(step_folder(folder, step) / ".COMMITTED.json.partial") in done]
        with Checkpointer(folder) as checkpointer:
            if committed:
                assert newest_restored(checkpointer) == committed[-1]
            else:
                assert checkpointer.valid_steps() == []

"""A disk that fills up while a checkpoint is saved: one clear line, nothing half-written, the step before untouched."""

import json
import sys
from pathlib import Path

import pytest

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.errors import UserError
from tests.checkpoints.saving_process import state_of

HERE = Path(__file__).parent
ROOT = {"PYTHONPATH": str(HERE.parents[1])}


def test_full_disk_in_a_save_leaves_the_step_before_and_a_line(crash_points, memory_path):
    folder = memory_path / "run"
    command = [sys.executable, str(HERE / "filling_process.py"), str(folder), "2"]
    done = crash_points.run(command, folder, environment=ROOT)
    assert done.returncode == 0, done.stderr
    attempts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(attempts) > 30
    for attempt in attempts[:-1]:
        message = attempt["message"]
        assert str(folder) in message and "the disk is full" in message and "\n" not in message
        assert "step 2" in message and "last good checkpoint is step 1" in message
        assert attempt["left"] == ["step_0000000001"], attempt
        assert attempt["valid"] == [1]
    assert attempts[-1]["message"] is None and attempts[-1]["valid"] == [1, 2]


def test_full_disk_ends_the_process_with_the_line_and_status_two(crash_points, memory_path):
    folder = memory_path / "run"
    command = [sys.executable, str(HERE / "saving_process.py"), str(folder), "3", "1", "2"]
    done = crash_points.run(command, folder, full_at=40, environment=ROOT, timeout=60)
    assert done.returncode == 2
    assert "the disk is full" in done.stdout and "there is no good checkpoint yet" in done.stdout
    assert list(folder.iterdir()) == []


def test_error_of_an_asynchronous_save_surfaces_at_the_next_call(tmp_path, monkeypatch):
    def failing(*_):
        raise OSError(5, "Input/output error")

    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state_of(1), {}, wait=True)
        for surfaces in (checkpointer.wait, lambda: checkpointer.save(3, state_of(3), {}), checkpointer.valid_steps):
            with monkeypatch.context() as patch:
                patch.setattr("apertus_jax.checkpoints.step_folders.commit", failing)
                checkpointer.save(2, state_of(2), {})
                with pytest.raises(UserError, match="saving step 2 .*Input/output error.*step 1") as raised:
                    surfaces()
            assert isinstance(raised.value.__cause__, OSError)
            assert checkpointer.valid_steps() == [1]
        assert checkpointer.save(2, state_of(2), {}, wait=True)
    assert Checkpointer(tmp_path).valid_steps() == [1, 2]

"""Storage that fails for a moment under a run: read and written again, told, and no bit is different."""

import errno

import pytest

from apertus_jax.checkpoints import Checkpointer, step_folders
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.errors import TemporaryFailure, UserError
from apertus_jax.process import retries
from tests.training.small_run import small_run
from tests.training.test_resume import assert_same_end


def failing_at(function, failures, calls):
    """Returns a function that raises an input/output error at the given calls, and works otherwise."""

    def wrapped(*arguments, **named):
        calls.append(None)
        if len(calls) in failures:
            raise OSError(errno.EIO, "Input/output error")
        return function(*arguments, **named)

    return wrapped


def test_a_run_over_failing_storage_has_the_same_bits(store, finished_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    reads, digests, markers = [], [], []
    monkeypatch.setattr(BatchLoader, "batch", failing_at(BatchLoader.batch, {2, 3, 7}, reads))
    artifacts, write = step_folders.artifacts, step_folders.artifacts.write_atomically
    failing = failing_at(write, {1, 2}, markers)
    of_step = lambda path: path.name == artifacts.COMMIT_MARKER and "checkpoints" in path.parts  # noqa: E731
    by_name = lambda path, text: (failing if of_step(path) else write)(path, text)  # noqa: E731
    monkeypatch.setattr(artifacts, "write_atomically", by_name)
    digest = artifacts.size_and_digest
    failing_digest = failing_at(digest, {2}, digests)
    in_state = lambda path: (failing_digest if step_folders.STATE_FOLDER in path.parts else digest)(path)  # noqa: E731
    monkeypatch.setattr(artifacts, "size_and_digest", in_state)
    small_run(store, tmp_path / "run", training={"keep_last": 9})
    monkeypatch.undo()
    told = [record.getMessage() for record in caplog.records if "attempt" in record.getMessage()]
    assert sum(line.startswith("reading the batch of step") for line in told) == 3
    assert any(line.startswith("reading back ") for line in told)
    assert sum("COMMITTED.json failed (OSError: [Errno 5]" in line for line in told) == 2
    assert_same_end(finished_run, tmp_path / "run")


def test_a_save_that_failed_for_a_moment_is_done_again(store, finished_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(step_folders, "commit", failing_at(step_folders.commit, {1, 3}, calls := []))
    small_run(store, tmp_path / "run", training={"keep_last": 9})
    monkeypatch.undo()
    assert len(calls) >= 4 and any("saving step 12, attempt" in record.getMessage() for record in caplog.records)
    assert_same_end(finished_run, tmp_path / "run")


def test_storage_that_keeps_failing_ends_the_run_for_requeue(store, tmp_path, monkeypatch):
    always = failing_at(step_folders.commit, set(range(100)), [])
    monkeypatch.setattr(step_folders, "commit", always)
    with pytest.raises(TemporaryFailure, match="saving step 1 .*there is no good checkpoint yet") as raised:
        small_run(store, tmp_path / "run", total_steps=1)
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_not_tried_again(tmp_path, monkeypatch):
    def full(*_):
        calls.append(None)
        raise OSError(errno.ENOSPC, "No space left on device")

    calls = []
    monkeypatch.setattr(step_folders, "commit", full)
    with Checkpointer(tmp_path) as checkpoints, pytest.raises(UserError, match="the disk is full") as raised:
        checkpoints.save(1, {"a": 1.0}, {}, wait=True)
    assert not isinstance(raised.value, TemporaryFailure) and len(calls) == 1

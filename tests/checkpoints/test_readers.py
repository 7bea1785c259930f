"""Retention and readers: what somebody reads stays, and a reader that was killed is waited for no longer."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from etils import epath

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts, reader_lease
from apertus_jax.storage.reader_lease import ReaderLease, remove_unless_read
from apertus_jax.storage.run_folder import step_folder

ROOT = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
READER = """
import os, sys, time
from apertus_jax.storage.reader_lease import ReaderLease
lease = ReaderLease(sys.argv[1])
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(60)
print("reading", flush=True)
time.sleep(60)
"""


def save(checkpointer, step):
    checkpointer.save(step, {"weight": jnp.full(8, float(step))}, {}, wait=True)


def reading_process(folder, *arguments):
    command = [sys.executable, "-c", READER, str(folder), *arguments]
    process = subprocess.Popen(
        command, env=os.environ | ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "reading\n"
    return process


def test_retention_waits_for_a_reader(tmp_path):
    with Checkpointer(tmp_path, keep_last=1) as checkpointer:
        save(checkpointer, 1)
        with ReaderLease(step_folder(tmp_path, 1)), ReaderLease(step_folder(tmp_path, 1)):
            save(checkpointer, 2)
            save(checkpointer, 3)
            assert checkpointer.valid_steps() == [1, 3]
        save(checkpointer, 4)
        assert checkpointer.committed_steps() == [4]


def test_retention_waits_for_a_reader_elsewhere_until_its_end(tmp_path):
    with Checkpointer(tmp_path, keep_last=1) as checkpointer:
        save(checkpointer, 1)
        reader = reading_process(step_folder(tmp_path, 1), "fork")
        try:
            save(checkpointer, 2)
            assert checkpointer.committed_steps() == [1, 2]
            # The forked child outlives its parent and is no reader.
            reader.send_signal(signal.SIGKILL)
            reader.wait()
            save(checkpointer, 3)
            assert checkpointer.committed_steps() == [3]
        finally:
            os.killpg(reader.pid, signal.SIGKILL)


def test_lease_ends_with_the_object_that_holds_it(tmp_path):
    artifacts.write_atomically(tmp_path / "COMMITTED.json", "{}")
    lease = ReaderLease(tmp_path)
    assert not remove_unless_read(tmp_path)
    del lease
    assert remove_unless_read(tmp_path) and not tmp_path.exists()


def test_reader_needs_no_right_to_write_and_leaves_nothing(tmp_path):
    artifacts.write_atomically(tmp_path / "COMMITTED.json", "{}")
    tmp_path.chmod(0o555)
    try:
        with ReaderLease(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == ["COMMITTED.json"]
            assert not remove_unless_read(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_folder_without_a_marker_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="was removed while it was opened; give another step"):
        ReaderLease(tmp_path)


def test_reader_and_removal_never_both_win(tmp_path):
    for attempt in range(60):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        artifacts.write_atomically(folder / "COMMITTED.json", "{}")
        outcome, start = {}, threading.Barrier(2)

        def read(folder=folder, outcome=outcome, start=start):
            start.wait()
            with contextlib.suppress(UserError):
                outcome["lease"] = ReaderLease(folder)

        reader = threading.Thread(target=read)
        reader.start()
        start.wait()
        gone = remove_unless_read(folder)
        reader.join()
        assert gone != ("lease" in outcome) and folder.exists() == ("lease" in outcome)


@pytest.fixture
def object_store(tmp_path, monkeypatch):
    """A committed folder that is taken for one of an object store, which has no locks."""
    monkeypatch.setattr(reader_lease, "is_local", lambda path: False)
    monkeypatch.setattr(reader_lease, "HEARTBEAT_SECONDS", 0.5)
    folder = epath.Path(tmp_path / "step")
    folder.mkdir()
    artifacts.write_atomically(folder / "COMMITTED.json", "{}")
    return folder


def heartbeat(folder, at):
    (folder / ".reading-00.json").write_text(json.dumps({"pid": 1, "time": at}))


def test_reader_of_an_object_store_is_seen_by_its_heartbeat(object_store):
    lease = ReaderLease(object_store)
    time.sleep(2.5)  # longer than a reader without heartbeats would count
    assert not remove_unless_read(object_store) and artifacts.list_files(object_store) == []
    lease.release()
    assert [path.name for path in object_store.iterdir()] == ["COMMITTED.json"]
    assert remove_unless_read(object_store) and not object_store.exists()


def test_killed_reader_of_an_object_store_does_not_block_long(object_store):
    heartbeat(object_store, time.time() - 10)
    assert remove_unless_read(object_store)


def test_reader_that_comes_during_a_removal_keeps_the_object(object_store, monkeypatch):
    beating, looks = reader_lease._beating, []

    def first_look_sees_nobody(folder):
        looks.append(folder)
        if len(looks) == 1:
            heartbeat(object_store, time.time())
            return iter(())
        return beating(folder)

    monkeypatch.setattr(reader_lease, "_beating", first_look_sees_nobody)
    assert not remove_unless_read(object_store)
    assert (object_store / "COMMITTED.json").read_text() == "{}"

"""Checkpoints over storage that is slow and fails once in a hundred calls: nothing is lost, nothing is half there."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apertus_jax.checkpoints import Checkpointer, checkpointer, step_folders
from apertus_jax.errors import REQUEUE_STATUS, TemporaryFailure
from apertus_jax.process import retries
from apertus_jax.storage import artifacts
from apertus_jax.storage.run_folder import list_steps

HERE = Path(__file__).parent
STEPS, KEPT, STARTS = 12, 3, 60


@pytest.fixture(scope="module")
def faulty_library(tmp_path_factory):
    """The compiled library that lets calls fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not Path("/proc/self/fd").exists():
        pytest.skip("storage that fails needs gcc and Linux: an LD_PRELOAD library lets calls fail")
    library = tmp_path_factory.mktemp("faulty") / "faulty_storage.so"
    source = str(HERE / "faulty_storage.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl", "-lpthread"], check=True)
    return library


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_checkpoints_outlive_storage_that_fails_now_and_then(faulty_library, memory_path, tmp_path, seed):
    """One start after another, as launch scripts do, until every step is saved."""
    folder, log = memory_path / "run", tmp_path / "faults"
    log.touch()
    faults = {
        "FAULTS_BELOW": str(folder),
        "FAULTS_PER_THOUSAND": "10",
        "FAULTS_DELAY_US": "200",
        "FAULTS_LOG": str(log),
    }
    environment = os.environ | faults | {"LD_PRELOAD": str(faulty_library), "PYTHONPATH": str(HERE.parents[1])}
    saved, told = 0, ""
    for start in range(STARTS):
        process = [sys.executable, str(HERE / "faulty_process.py"), str(folder), str(KEPT), str(STEPS)]
        seeded = environment | {"FAULTS_SEED": str(1000 * seed + start)}
        done = subprocess.run(process, env=seeded, capture_output=True, text=True, timeout=600)
        told += done.stdout + done.stderr
        assert done.returncode in (0, REQUEUE_STATUS), told
        restored = [int(step) for step in re.findall(r"^RESTORED (\d+)$", done.stdout, re.MULTILINE)]
        assert restored >= [saved] if restored else saved == 0 or done.returncode, told
        saved = max([saved, *map(int, re.findall(r"^(?:SAVED|RESTORED) (\d+)$", done.stdout, re.MULTILINE))])
        if done.returncode == 0:
            break
    assert done.returncode == 0 and saved == STEPS, told
    calls = {line.split("\t")[0] for line in log.read_text().splitlines()}
    assert {"open", "read", "write"} <= calls
    with Checkpointer(folder) as checkpoints:
        assert checkpoints.valid_steps() == list(range(STEPS - KEPT + 1, STEPS + 1))
    assert list_steps(folder, committed=False) == []


def failing(function, failures):
    """Returns a function that raises an input/output error at the first calls, and works then."""
    left = iter(range(failures))

    def wrapped(*arguments):
        if next(left, None) is not None:
            raise OSError(errno.EIO, "Input/output error")
        return function(*arguments)

    return wrapped


def test_a_read_that_fails_for_a_moment_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    digest, regular_file = artifacts.size_and_digest, step_folders.regular_file
    markers = iter([2, 0])
    with Checkpointer(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"a": np.float32([step])}, {}, wait=True)

        class Marker:
            def __init__(self, path):
                self.read_bytes = failing(regular_file(path).read_bytes, next(markers, 0))

        monkeypatch.setattr(step_folders, "regular_file", Marker)
        monkeypatch.setattr(artifacts, "size_and_digest", failing(digest, 2))
        assert checkpoints.latest_valid_step() == 2 and checkpoints.rejected == ()
        monkeypatch.setattr(artifacts, "size_and_digest", failing(digest, 999))
        with pytest.raises(TemporaryFailure, match="cannot be read now: .*Input/output error") as raised:
            checkpoints.latest_valid_step()
    assert "\n" not in str(raised.value)


def test_an_old_step_that_cannot_be_removed_fails_no_save(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    with Checkpointer(tmp_path, keep_last=1) as checkpoints:
        checkpoints.save(1, {"a": np.float32([1])}, {}, wait=True)
        monkeypatch.setattr(checkpointer, "remove_unless_read", failing(checkpointer.remove_unless_read, 5))
        checkpoints.save(2, {"a": np.float32([2])}, {}, wait=True)
        assert checkpoints.valid_steps() == [1, 2]
        assert "was not removed (" in caplog.text and "the save after that removes it" in caplog.text
        checkpoints.save(3, {"a": np.float32([3])}, {}, wait=True)
        assert checkpoints.valid_steps() == [3]

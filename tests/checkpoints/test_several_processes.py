"""Several processes save one checkpoint together: each writes and digests its share, the first commits."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.checkpoints.step_folders import file_share
from apertus_jax.storage.run_folder import list_steps

HERE = Path(__file__).parent


def test_every_file_is_read_by_exactly_one_process():
    names = [f"state/d/{index:032x}" for index in range(100)]
    shares = [file_share(names, process, 3) for process in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(names)
    assert all(share for share in shares)


def save_together(folder, processes, saves):
    """Runs a job of local processes that save and restore; checks what each of them says, and what lies there then."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(HERE / "job_process.py"), str(folder), str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    job = [
        subprocess.Popen([*command, str(index), str(processes), str(saves)], env=environment, **pipes)
        for index in range(processes)
    ]
    outputs = [process.communicate(timeout=500) for process in job]
    for index, (process, (output, errors)) in enumerate(zip(job, outputs, strict=True)):
        assert process.returncode == 0, errors
        assert f"RESULT {index} {saves} {saves} [{saves}] ({8 // processes}, 8) True" in output

    with Checkpointer(folder) as checkpointer:
        restored, _, _ = checkpointer.restore({"kernel": jax.ShapeDtypeStruct((8, 8), np.float32)})
    assert np.array_equal(restored["kernel"], np.arange(64, dtype=np.float32).reshape(8, 8) * saves)
    assert list_steps(folder, committed=False) == []
    assert not list(folder.rglob(".*"))


# Four, because with two the hash gives the file that the race was about to the process that writes it.
def test_processes_of_a_job_share_one_checkpoint(tmp_path):
    save_together(tmp_path / "run", processes=4, saves=3)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_twenty_saves_in_a_row_meet_no_race(tmp_path, processes):
    save_together(tmp_path / "run", processes, saves=20)

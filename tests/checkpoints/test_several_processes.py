"""Several processes save one checkpoint together: each writes and digests its share, the first commits."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.checkpoints.step_folders import file_share
from apertus_jax.storage.run_folder import list_steps

HERE = Path(__file__).parent


def test_every_file_is_read_by_exactly_one_process():
    names = [f"state/d/{index:032x}" for index in range(100)]
    shares = [file_share(names, process, 3) for process in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(names)
    assert all(share for share in shares)


def test_processes_of_a_job_share_one_checkpoint(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    job = [
        subprocess.Popen(
            [sys.executable, str(HERE / "job_process.py"), str(tmp_path / "run"), str(port), str(index), "2"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in job]
    for index, (process, (output, errors)) in enumerate(zip(job, outputs, strict=True)):
        assert process.returncode == 0, errors
        assert f"RESULT {index} 2 2 [2] (4, 8) True" in output

    with Checkpointer(tmp_path / "run") as checkpointer:
        restored, _, _ = checkpointer.restore({"kernel": jax.ShapeDtypeStruct((8, 8), np.float32)})
    assert np.array_equal(restored["kernel"], np.arange(64, dtype=np.float32).reshape(8, 8) * 2)
    assert list_steps(tmp_path / "run", committed=False) == []
    assert not list((tmp_path / "run").rglob(".*"))

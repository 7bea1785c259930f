"""A model spread over processes is written, exported and loaded with the bytes that one process writes."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

from apertus_jax.model.model_folder import save_model
from apertus_jax.release import save_huggingface
from tests.release.test_device_boxes import contents
from tests.training.test_resume import process_environment

SCRIPT = Path(__file__).with_name("spread_process.py")
PROCESSES = 4


def test_processes_write_the_bytes_of_one(tmp_path, config, params):
    save_model(tmp_path / "model", config, params)
    shutil.copytree(tmp_path / "model", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "parameters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    job = [
        subprocess.Popen([*command, str(index), str(PROCESSES)], env=process_environment(devices=2), **pipes)
        for index in range(PROCESSES)
    ]
    outputs = [process.communicate(timeout=500)[0] for process in job]
    for process, output in zip(job, outputs, strict=True):
        assert process.returncode == 0, output
        assert f"RESULT True True {weights} " in output, output
    assert contents(tmp_path / "again") == contents(tmp_path / "model")
    save_huggingface(tmp_path / "by_one", config, params, dtype="bfloat16")
    assert contents(tmp_path / "repository") == contents(tmp_path / "by_one")

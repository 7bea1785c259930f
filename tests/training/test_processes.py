"""A job of several processes trains one run together."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from apertus_jax.checkpoints import open_model
from apertus_jax.model.model_folder import load_model
from apertus_jax.storage import artifacts
from tests.training.small_run import small_run
from tests.training.test_resume import SCRIPT, process_environment


def free_port():
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def run_job(store, output, processes, devices, total_steps):
    """Runs a job of local processes to its end and returns what each printed."""
    port = free_port()
    command = [sys.executable, str(SCRIPT), str(store), str(output), str(total_steps)]
    job = []
    for index in range(processes):
        environment = process_environment(devices) | {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        job.append(subprocess.Popen(command, env=environment, **pipes))
    outputs = [process.communicate(timeout=280)[0] for process in job]
    for process, output_text in zip(job, outputs, strict=True):
        assert process.returncode == 0, output_text
    return outputs


def losses(run_folder):
    """Returns the logged losses of a run."""
    return np.array([json.loads(line)["loss"] for line in (run_folder / "metrics.jsonl").read_text().splitlines()])


@pytest.fixture(scope="module")
def job_run(store, tmp_path_factory):
    """A run of two processes with four devices each that stopped after six steps and went on to the end."""
    folder = tmp_path_factory.mktemp("job") / "run"
    run_job(store, folder, processes=2, devices=4, total_steps=6)
    run_job(store, folder, processes=2, devices=4, total_steps=12)
    return folder


def test_two_processes_train_as_one_with_the_same_devices(job_run, finished_run):
    np.testing.assert_allclose(losses(job_run)[-1], losses(finished_run)[-1], rtol=1e-4)
    artifacts.verify(job_run / "model", "model")
    _, params = load_model(job_run)
    _, expected = load_model(finished_run)
    difference = np.abs(params["lm_head"]["kernel"] - expected["lm_head"]["kernel"]).max()
    assert difference <= 1e-3 * np.abs(expected["lm_head"]["kernel"]).max()


def test_model_of_a_job_is_that_of_its_last_step(job_run):
    saved = flatten_dict(open_model(job_run, 12).load(), sep="/")
    for name, leaf in flatten_dict(load_model(job_run)[1], sep="/").items():
        assert leaf.tobytes() == saved[name].tobytes(), name


def test_one_process_goes_on_where_two_stopped(job_run, store, tmp_path):
    summary = small_run(store, job_run, total_steps=14)
    assert summary["step"] == 14 and summary["finished"]

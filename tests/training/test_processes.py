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


def run_processes(script, arguments, processes, devices):
    """Runs a job of local processes to its end and returns what each printed."""
    port = free_port()
    command = [sys.executable, str(script), *map(str, arguments)]
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
    try:
        outputs = [process.communicate(timeout=900)[0] for process in job]
    finally:
        for process in job:
            process.kill()
    for process, output_text in zip(job, outputs, strict=True):
        assert process.returncode == 0, output_text
    return outputs


def run_job(store, output, processes, devices, total_steps, mesh=None):
    """Runs the tiny training as a job of local processes; a `mesh` by its axes, else all devices along data."""
    return run_processes(SCRIPT, [store, output, total_steps, json.dumps(mesh or {})], processes, devices)


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


def test_processes_hold_the_rows_that_the_mesh_gives_them(store):
    outputs = run_processes(SCRIPT.with_name("rows_process.py"), [store], processes=4, devices=2)
    told = [line.split()[2:] for output in outputs for line in output.splitlines() if line.startswith("ROWS")]
    rows = {}
    for name, spelled in told:
        rows.setdefault(name, []).append([int(row) for row in spelled.split(",")])
    assert rows["data"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert rows["tensor"] == rows["context"] == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7]]
    assert rows["apart"] == [[0, 3], [1, 6], [4, 7], [2, 5]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "devices"), [({"data": 2, "tensor": 4}, 2), ({"data": 2, "context": 2}, 1), ({"data": 1, "fsdp": 4}, 1)]
)
def test_groups_over_processes_train_as_one_process_does(mesh, devices, store, tmp_path):
    """The groups of `tensor` and of `context` span two processes each."""
    run_job(store, tmp_path / "job", 4, devices, 6, mesh)
    run_job(store, tmp_path / "alone", 1, 1, 6, dict.fromkeys(mesh, 1))
    np.testing.assert_allclose(losses(tmp_path / "job"), losses(tmp_path / "alone"), rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "index", "status", "line"),
    [
        (2, 0, 2, "apertus: not all of the JAX_NUM_PROCESSES=2 processes at localhost:"),
        (2, 2, 1, "UserError: JAX_PROCESS_ID=2 must be 0 to 1, for JAX_NUM_PROCESSES=2"),
    ],
)
def test_process_count_that_the_job_does_not_have_is_one_line(count, index, status, line):
    code = "from apertus_jax.training import multihost; multihost.join_job(multihost.JobLimits(start_seconds=3))"
    variables = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(index),
    }
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=process_environment(1) | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == status
    assert line in ended.stderr.splitlines()[-1] and "\n*** Check failure" not in ended.stderr

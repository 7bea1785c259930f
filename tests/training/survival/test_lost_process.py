"""Processes of a job that die or stall: the others end in time, say which one, and the restart has the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apertus_jax.storage.run_folder import step_folder
from tests.training.test_processes import free_port, run_job
from tests.training.test_resume import ROOT, SCRIPT, assert_same_end, process_environment

WAITING = Path(__file__).with_name("waiting_process.py")
LAUNCHER = ROOT / "experiments" / "launch" / "local_processes.py"
GLOO = {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}


def start_job(folder, count):
    """Starts processes that meet over and over, and returns them once they have met."""
    job = GLOO | {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WAITING), str(folder)],
            env=process_environment(1) | job | {"JAX_PROCESS_ID": str(index)},
            **pipes,
        )
        for index in range(count)
    ]
    for process in processes:
        for line in process.stdout:
            if line == "met\n":
                break
    return processes


def ends(processes, lost):
    """Returns status and last line of each process but the lost one, which is killed after them."""
    found = []
    for index, process in enumerate(processes):
        if index != lost:
            _, errors = process.communicate(timeout=280)
            found.append((process.returncode, errors.splitlines()[-1]))
    processes[lost].kill()
    processes[lost].communicate()
    return found


def check_loss(tmp_path, number, lost, count, told):
    """Sends a signal to one process of a job and checks what the others say at their end."""
    committed = step_folder(tmp_path, 250)
    committed.mkdir()
    (committed / "COMMITTED.json").touch()
    processes = start_job(tmp_path, count)
    processes[lost].send_signal(number)
    for status, line in ends(processes, lost):
        assert status == 75, line
        assert line.startswith(f"apertus: process {lost} of {count} died") and told in line
        assert "; the restart goes on from step 250; exit status 75 asks to be started again" in line


def test_a_killed_process_is_named_by_the_other_three(tmp_path):
    check_loss(tmp_path, signal.SIGKILL, 2, 4, "JobLimits.lost_seconds = 10")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lost", "told"),
    [
        (signal.SIGSTOP, 1, "JobLimits.lost_seconds = 10"),
        (signal.SIGSTOP, 0, "it has not answered for"),
        (signal.SIGKILL, 0, "or the network to it"),
    ],
    ids=["stalled", "first stalled", "first killed"],
)
def test_a_lost_process_is_named_whichever_it_is(tmp_path, number, lost, told):
    check_loss(tmp_path, number, lost, 2, told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "processes"),
    [(signal.SIGKILL, 2), (signal.SIGSTOP, 2), (signal.SIGKILL, 4)],
    ids=["killed", "stalled", "one of four killed"],
)
def test_a_job_restarted_after_a_loss_ends_with_the_same_bits(store, tmp_path, number, processes):
    devices = 8 // processes
    run_job(store, tmp_path / "reference", processes, devices, total_steps=12)
    environment = process_environment(devices) | GLOO | {"LOST_SECONDS": "10"}
    command = [sys.executable, str(LAUNCHER), f"--processes={processes}", "--restarts=1", "--grace=20", "--"]
    command += [sys.executable, str(SCRIPT), str(store), str(tmp_path / "lost"), "12"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    launcher = subprocess.Popen(command, env=environment, **pipes)
    seen = []
    for line in launcher.stdout:
        seen.append(line)
        if line.startswith("step 8/"):
            children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
            os.kill(int(children[1]), number)
            break
    seen += launcher.stdout.readlines()
    assert launcher.wait(timeout=280) == 0, "".join(seen)
    assert any(f"process 1 of {processes} died or stalled" in line for line in seen), "".join(seen)
    assert any("restart 1 of 1" in line for line in seen) and any("resumed at step" in line for line in seen)
    assert_same_end(tmp_path / "reference", tmp_path / "lost")

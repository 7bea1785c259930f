"""A run that is interrupted, in whatever way, ends as the run that was not, bit for bit."""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.optimization import ademamix, optimizer_chain, weight_decay_mask, wsd_schedule
from apertus_jax.sharding import MeshConfig
from apertus_jax.training.program import make_program
from tests.checkpoints.crash_points import CrashPoints
from tests.training.small_run import MODEL, OBJECTIVE, TRAINING, small_run

SCRIPT = Path(__file__).with_name("small_run.py")
ROOT = Path(__file__).parent.parent.parent
TIMING = ("tokens_per_second", "model_flops_per_second", "seconds_left", "data_seconds")
LAST_STEP = 12


def process_environment(devices):
    """Returns the environment of a training process with fake devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_enable_concurrency_optimized_scheduler=false"
    return dict(os.environ) | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def start(store, output, devices=8, total_steps=LAST_STEP):
    """Starts a training process."""
    command = [sys.executable, str(SCRIPT), str(store), str(output), str(total_steps)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=process_environment(devices), **pipes)


@functools.cache
def abstract_state():
    """Returns shapes and shardings of the state of `small_run`."""
    optimizer = optimizer_chain(
        ademamix(wsd_schedule(1e-2, 16, 160, 40), mask=weight_decay_mask), TRAINING["clip_norm"]
    )
    return make_program(MODEL, optimizer, OBJECTIVE, MeshConfig(), 1, TRAINING["sequence_length"]).abstract_state


def state_bytes(run_folder, step=None):
    """Returns the leaves of a checkpoint as bytes by their path."""
    with Checkpointer(run_folder / "checkpoints") as checkpoints:
        state, _, found = checkpoints.restore(abstract_state(), step=step)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}, found


def logged(run_folder):
    """Returns the metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def assert_same_end(first, second):
    """Checks states, metrics and model files of two finished runs bit for bit."""
    (left, left_step), (right, right_step) = state_bytes(first), state_bytes(second)
    assert left_step == right_step == LAST_STEP
    assert left == right
    assert logged(first) == logged(second)
    names = ("config.json", "parameters.safetensors")
    for name in names:
        assert (first / "model" / name).read_bytes() == (second / "model" / name).read_bytes()


def kill_at_random_until_finished(store, output, devices, kills, generator):
    """Kills a training process at random moments after its first steps, then lets it end."""
    for _ in range(kills):
        process = start(store, output, devices)
        for line in process.stdout:
            if "compiled the step" in line or "no checkpoint" in line:
                break
        time.sleep(generator.uniform(0.0, 1.0))
        process.kill()
        process.communicate()
    process = start(store, output, devices)
    log, _ = process.communicate(timeout=200)
    assert process.returncode == 0, log


@pytest.mark.parametrize(("devices", "kills"), [(1, 1), (8, 2)])
def test_resume_after_kill_is_bit_identical(store, tmp_path, devices, kills, finished_run):
    reference = finished_run
    if devices != 8:
        reference = tmp_path / "reference"
        kill_at_random_until_finished(store, reference, devices, 0, None)
    kill_at_random_until_finished(store, tmp_path / "killed", devices, kills, random.Random(devices))
    assert_same_end(reference, tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_resume_after_many_kills_is_bit_identical(store, tmp_path, devices):
    kill_at_random_until_finished(store, tmp_path / "reference", devices, 0, None)
    kill_at_random_until_finished(store, tmp_path / "killed", devices, 25, random.Random(devices))
    assert_same_end(tmp_path / "reference", tmp_path / "killed")


def test_crash_states_of_a_run_all_resume_bit_identically(store, finished_run, tmp_path, tmp_path_factory):
    crash_points = CrashPoints.build(tmp_path_factory.mktemp("crash_points"))
    output = tmp_path / "recorded"
    command = [sys.executable, str(SCRIPT), str(store), str(output)]
    states = crash_points.record(command, output / "checkpoints", tmp_path / "states", process_environment(8))
    assert len(states) > 100
    references = {step: state_bytes(finished_run, step)[0] for step in (5, 10, 12)}
    newest_so_far = 0
    resumable = []
    for state in states:
        with Checkpointer(state.folder) as checkpoints:
            newest = checkpoints.latest_valid_step() or 0
        assert newest >= newest_so_far, f"{state} lost step {newest_so_far}"
        if newest > newest_so_far:
            resumable.append(state)
        newest_so_far = newest
    assert newest_so_far == LAST_STEP
    for number, state in enumerate([states[len(states) // 7], *resumable[:2]]):
        resumed = tmp_path / f"resumed_{number}"
        shutil.copytree(output, resumed, ignore=shutil.ignore_patterns("checkpoints", "model", "finished.json"))
        shutil.copytree(state.folder, resumed / "checkpoints")
        small_run(store, resumed)
        assert_same_end(finished_run, resumed)
    for state in states[:: max(1, len(states) // 12)]:
        folder = tmp_path / "look"
        shutil.copytree(state.folder, folder / "checkpoints")
        with Checkpointer(folder / "checkpoints") as checkpoints:
            step = checkpoints.latest_valid_step()
        if step is not None:
            assert state_bytes(folder, step)[0] == references[step], state
        shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2], ids=["SIGTERM", "SIGUSR2"])
def test_a_signal_saves_the_step_it_came_at_and_ends_the_run(store, tmp_path, number):
    process = start(store, tmp_path / "run", total_steps=100_000)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("step 4/"):
            break
    process.send_signal(number)
    seen += process.stdout.readlines()
    assert process.wait(timeout=200) == 0, "".join(seen)
    assert any(f"stopped by {number.name}" in line for line in seen) and "'finished': False" in seen[-1]
    state, step = state_bytes(tmp_path / "run")
    assert step < 100_000 and f"'step': {step}" in seen[-1]
    small_run(store, tmp_path / "uninterrupted", total_steps=step)
    assert state == state_bytes(tmp_path / "uninterrupted")[0]


def test_a_file_called_exit_stops_the_run(store, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "exit").touch()
    assert small_run(store, tmp_path / "run") == {"step": 1, "finished": False}
    assert not (tmp_path / "run" / "exit").exists()


def test_damaged_newest_checkpoint_is_named_and_not_used(store, finished_run, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns("model", "finished.json"))
    newest = folder / "checkpoints" / "step_0000000012"
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    small_run(store, folder, training={"keep_last": 9})
    assert any(victim.name in record.getMessage() for record in caplog.records)
    assert_same_end(finished_run, folder)

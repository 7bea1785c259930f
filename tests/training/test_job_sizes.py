"""A job that goes on with another number of processes, or is asked to stop, ends as a run that was left alone."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apertus_jax.training.records.telemetry import read_metrics
from tests.training.test_processes import losses, run_processes
from tests.training.test_resume import ROOT, SCRIPT, process_environment, state_bytes

READING = Path(__file__).with_name("reading_process.py")
LAUNCHER = ROOT / "experiments" / "launch" / "local_processes.py"
# Processes → the step up to which they go; the batch doubles after step 5.
STARTS = ((8, 2), (4, 4), (2, 7), (1, 9), (4, 11))


def samples_read(outputs):
    """Returns the samples that the processes of a start read, by step, ascending."""
    read = {}
    for step, samples in re.findall(r"^READ (\d+) ([\d,]+)$", "\n".join(outputs), re.MULTILINE):
        read.setdefault(int(step), set()).update(map(int, samples.split(",")))
    return {step: sorted(samples) for step, samples in read.items()}


@pytest.mark.slow
def test_other_numbers_of_processes_go_on_with_the_run(store, tmp_path):
    alone = samples_read(run_processes(READING, [store, tmp_path / "alone", STARTS[-1][1]], processes=1, devices=1))
    read = {}
    for processes, total_steps in STARTS:
        outputs = run_processes(READING, [store, tmp_path / "run", total_steps], processes, devices=1)
        assert all(f"DEVICES {processes} {processes}" in output for output in outputs)
        read |= samples_read(outputs)
    assert read == alone
    sizes = [len(samples) for _, samples in sorted(read.items())]
    assert sizes[0] == 8 and sizes[-1] == 16
    np.testing.assert_array_equal(np.concatenate([read[step] for step in sorted(read)]), np.arange(sum(sizes)))
    counts = [[(row["step"], row["samples"]) for row in read_metrics(tmp_path / name)] for name in ("run", "alone")]
    assert counts[0] == counts[1] and len(counts[0]) == len(sizes)
    found, expected = losses(tmp_path / "run"), losses(tmp_path / "alone")
    firsts = [steps for _, steps in STARTS[:-1]]
    print(
        "largest relative difference",
        np.abs(found / expected - 1).max(),
        "at first steps",
        np.abs(found / expected - 1)[firsts],
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found[firsts], expected[firsts], rtol=1e-6)


@pytest.mark.slow
def test_a_job_asked_to_stop_saves_and_goes_on(store, tmp_path):
    """The launcher passes SIGTERM on; all processes stop after one step, and the next start has its bits."""
    command = [sys.executable, str(LAUNCHER), "--processes=4", "--restarts=0", "--"]
    command += [sys.executable, str(SCRIPT), str(store), str(tmp_path / "run")]
    environment = process_environment(2) | {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    launcher = subprocess.Popen([*command, "100000"], env=environment, **pipes)
    seen = []
    for line in launcher.stdout:
        seen.append(line)
        if line.startswith("step 4/"):
            launcher.send_signal(signal.SIGTERM)
            break
    seen += launcher.stdout.readlines()
    assert launcher.wait(timeout=900) == 0, "".join(seen)
    told = re.findall(r"\{'step': (\d+), 'finished': False\}", "".join(seen))
    state, step = state_bytes(tmp_path / "run")
    assert told == [str(step)] * 4 and 4 <= step < 100_000, "".join(seen)
    assert sum("stopped by SIGTERM" in line for line in seen) == 4
    run_processes(SCRIPT, [store, tmp_path / "undisturbed", step], processes=4, devices=2)
    assert state == state_bytes(tmp_path / "undisturbed")[0]
    for name in ("run", "undisturbed"):
        run_processes(SCRIPT, [store, tmp_path / name, step + 2], processes=4, devices=2)
    assert state_bytes(tmp_path / "run") == state_bytes(tmp_path / "undisturbed")

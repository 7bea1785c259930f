"""The SLURM script of sweeps, with programs of its own in place of SLURM's: shares, requeuing, and the comparison."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "launch" / "sweep_slurm.sh"
SBATCH = """#!/bin/sh
echo "sbatch $*" >> "$LOG"
for last; do :; done
case "$*" in *--array=0-2*) for SLURM_ARRAY_TASK_ID in 0 1 2; do
  export SLURM_ARRAY_TASK_ID SLURM_JOB_ID=7$SLURM_ARRAY_TASK_ID
  sh -c "$last" || echo "task failed" >> "$LOG"
done;; esac
echo 41
"""
SRUN = '#!/bin/sh\nexec "$@"\n'
SCONTROL = '#!/bin/sh\necho "scontrol $*" >> "$LOG"\n'
PYTHON = """#!/bin/sh
echo "python $*" >> "$LOG"
case "$*" in *--list*) printf "%s" "$LEFT"; exit 0;; esac
exit $STATUS
"""


@pytest.fixture
def submit(tmp_path):
    """Returns a function that submits a sweep of three tasks and returns what was called, line by line."""
    programs = {
        "sbatch": SBATCH,
        "srun": '#!/bin/sh\nexec "$@"\n',
        "scontrol": '#!/bin/sh\necho "scontrol $*" >> "$LOG"\n',
    }
    for name, text in programs.items() | {(".venv/bin/python", PYTHON)}:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def call(status: int = 0, left: str = "") -> list[str]:
        log = tmp_path / "log"
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "LOG": str(log), "STATUS": str(status), "LEFT": left}
        words = [SCRIPT, "3", "my file.gin", "store", "runs/sweep", "--vary=goldfish.k=3,10", "--vary=a.b='x; y'"]
        subprocess.run(["bash", *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
        return log.read_text().splitlines()

    return call


def test_every_task_trains_its_share_and_the_comparison_follows(submit):
    calls = submit()
    for task in range(3):
        words = (
            "sweep --gin_file=my file.gin --store=store --output=runs/sweep --vary=goldfish.k=3,10 --vary=a.b='x; y'"
        )
        assert f"python -m apertus_jax {words} --task={task}/3" in calls
    assert not [line for line in calls if line.startswith("scontrol")]
    last = [line for line in calls if line.startswith("sbatch")][-1]
    assert "--dependency=afterany:41" in last and "compare runs/sweep --output=runs/sweep_comparison" in last


@pytest.mark.parametrize("status", [0, 140], ids=["saved", "between runs"])
def test_task_with_runs_left_is_queued_again(submit, status):
    requeued = [line for line in submit(status, "apertus pretrain") if line.startswith("scontrol")]
    assert requeued == ["scontrol requeue 70", "scontrol requeue 71", "scontrol requeue 72"]


def test_task_with_a_failed_run_is_not_queued_again(submit):
    calls = submit(2, "apertus pretrain")
    assert "task failed" in calls and not [line for line in calls if line.startswith("scontrol")]

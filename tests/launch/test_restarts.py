"""Launch scripts, with programs of their own for SLURM's and for training: who is started again, and how often."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "experiments" / "launch"
PROGRAMS = {
    "srun": '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
    "scontrol": '#!/bin/sh\necho "scontrol $*" >> "$LOG"\n',
    # Ends with the first status that is left in the file STATUSES, 0 when there is none.
    ".venv/bin/python": """#!/bin/sh
echo "python $*" >> "$LOG"
status=$(head -n 1 "$STATUSES"); sed -i 1d "$STATUSES"
[ "${status:-0}" != 0 ] || [ -n "$UNFINISHED" ] || { mkdir -p run && touch run/finished.json; }
exit ${status:-0}
""",
}


@pytest.fixture
def launch(tmp_path):
    """Returns a function that runs a script until it ends and returns its status and what it called."""
    for name, text in PROGRAMS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def call(script: str, statuses: str = "", **variables: str) -> tuple[int, list[str]]:
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses.split()))
        (tmp_path / "log").write_text("")
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
        environment |= {"STATUSES": str(tmp_path / "statuses"), "SLURM_JOB_ID": "7", "LAUNCH": str(LAUNCH)}
        words = ["bash", str(LAUNCH / script), "my.gin", "store", "run", "--gin.a.b='x y'"]
        done = subprocess.run(words, cwd=tmp_path, env=environment | variables, capture_output=True, text=True)
        return done.returncode, (tmp_path / "log").read_text().splitlines()

    return call


def test_slurm_queues_a_job_again_until_it_is_finished(launch):
    status, calls = launch("slurm.sh", UNFINISHED="yes")
    assert status == 0 and calls[-1] == "scontrol requeue 7"
    status, calls = launch("slurm.sh")
    assert status == 0 and len(calls) == 1
    assert calls[0].endswith("--input=store --output=run --gin.pretrain.distributed=True --gin.a.b='x y'")


@pytest.mark.parametrize("crash", ["75", "134", "137"])
def test_slurm_queues_a_crashed_job_again_up_to_a_limit(launch, crash):
    for _ in range(2):
        status, calls = launch("slurm.sh", crash, MAX_CRASHES="2")
        assert status == 0 and calls[-1] == "scontrol requeue 7"
    status, calls = launch("slurm.sh", crash, MAX_CRASHES="2")
    assert status == int(crash) and len(calls) == 1


def test_an_orderly_stop_forgets_crashes(launch):
    for statuses in ("75", "0", "75"):
        status, calls = launch("slurm.sh", statuses, MAX_CRASHES="1", UNFINISHED="yes")
        assert status == 0 and calls[-1] == "scontrol requeue 7"


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_pod.sh"])
def test_bad_input_is_not_started_again(launch, script):
    status, calls = launch(script, "2")
    assert status == 2 and len(calls) == 1


def test_a_worker_of_a_pod_starts_again_after_crashes(launch):
    status, calls = launch("tpu_pod.sh", "75 137 75 0")
    assert status == 0 and len(calls) == 4
    status, calls = launch("tpu_pod.sh", "75 75 75 75", MAX_CRASHES="2")
    assert status == 75 and len(calls) == 3


def test_slices_say_which_one_they_are(launch):
    status, calls = launch("tpu_slices.sh", SLICES="2", SLICE="1", COORDINATOR="10.0.0.1:8476")
    assert status == 0 and len(calls) == 1
    assert launch("tpu_slices.sh", SLICES="2", SLICE="2", COORDINATOR="10.0.0.1:8476")[0] == 2
    assert launch("tpu_slices.sh", SLICES="2")[0] != 0


def local(tmp_path, code, *options):
    """Runs the local launcher over two processes of a Python text and returns its status and what they printed."""
    words = [sys.executable, str(LAUNCH / "local_processes.py"), "--processes=2", "--grace=60", *options, "--"]
    environment = os.environ | {"FOLDER": str(tmp_path)}
    done = subprocess.run([*words, sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


# The first start of process 1 dies of a signal, process 0 asks to be started again; then all is well.
DIES_ONCE = """
import os, pathlib, signal
index = os.environ["JAX_PROCESS_ID"]
began = pathlib.Path(os.environ["FOLDER"], index)
print(index, os.environ["JAX_NUM_PROCESSES"], began.exists(), flush=True)
if not began.exists():
    began.touch()
    os.kill(os.getpid(), signal.SIGKILL) if index == "1" else os._exit(75)
"""


def test_local_processes_are_started_again_together(tmp_path):
    status, lines, errors = local(tmp_path, DIES_ONCE)
    assert status == 0 and sorted(lines) == ["0 2 False", "0 2 True", "1 2 False", "1 2 True"]
    assert "restart 1 of 3" in errors


def test_local_processes_have_a_limit_of_restarts(tmp_path):
    status, lines, errors = local(tmp_path, "print(1); import os; os._exit(75)", "--restarts=1")
    assert status == 75 and len(lines) <= 4 and "no restart is left of 1" in errors
    status, _, errors = local(tmp_path, "import sys; sys.exit(2)")
    assert status == 2 and "not started again" in errors


def test_a_stalled_local_process_is_killed_after_the_grace(tmp_path):
    code = """
import os, signal
os.kill(os.getpid(), signal.SIGSTOP) if os.environ["JAX_PROCESS_ID"] == "1" else os._exit(75)
"""
    status, _, errors = local(tmp_path, code, "--restarts=0", "--grace=1")
    assert status == 75 and "no restart is left of 0" in errors

"""Interrupted commands: one line, a status that says so, and the same command again ends with the same bytes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apertus_jax import cli
from tests.checkpoints.crash_points import CrashPoints
from tests.hostile import invocations
from tests.hostile.invocations import BY_COMMAND
from tests.hostile.table import LOG_LINE

CHILD = Path(__file__).with_name("interrupted.py")
ROOT = CHILD.parents[2]
WRITERS = [name for name, invocation in BY_COMMAND.items() if invocation.output]
ENDINGS = {
    "sigterm": (r"SIGTERM|stopped", (143, 130)),
    "full": (r"disk is full", (2,)),
    "memory": (r"memory", (2,)),
}
# What tells of the time, the place or the process, not of the result.
# Checkpoints hold times of writing, and a stop saves one more; the model that they lead to is compared.
CHECKPOINTS = "checkpoints"
NOT_THE_RESULT = {"LEASE.json", "metrics.jsonl", "report.html", "run.json", "finished.json", "history.jsonl"}


@pytest.fixture(scope="session")
def crash_points(tmp_path_factory):
    """The compiled interposer; skips where it cannot be built."""
    return CrashPoints.build(tmp_path_factory.mktemp("crash_points"))


def result_of(folder):
    """Returns the files of an output folder: digests of committed ones, names of all."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    files = {str(path) for path in paths if CHECKPOINTS not in path.parts}
    digests = {}
    for name in files:
        if Path(name).name == "COMMITTED.json":
            manifest = json.loads((folder / name).read_text())
            digests[name] = {
                file: value for file, value in manifest["files"].items() if Path(file).name not in NOT_THE_RESULT
            }
    assert not [name for name in files if "partial" in name or Path(name).name == "BUILDING.json"], files
    return digests, {name for name in files if "tensorboard" not in name}


def interrupt(crash_points, condition, number, command, output):
    """Runs the good call of a command under a condition in a process of its own."""
    arguments = BY_COMMAND[command].arguments(dict(BY_COMMAND[command].inputs), str(output))
    line = [sys.executable, str(CHILD), condition, str(number), str(output), *arguments]
    environment = {"PYTHONPATH": str(ROOT)}
    if condition == "full":
        return crash_points.run(line, output, environment=environment, timeout=300)
    return subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False)


def check(crash_points, condition, number, command, output):
    """Interrupts a command, looks at how it ended, and runs it again to its end, from there and from nothing."""
    done = interrupt(crash_points, condition, number, command, output)
    if done.returncode != 0:
        words, statuses = ENDINGS[condition]
        lines = done.stderr.rstrip("\n").split("\n")
        told = [line for line in lines if not LOG_LINE.match(line)]
        assert done.returncode in statuses, f"{done.returncode}: {done.stderr[-1500:]}"
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        assert [line for line in told if line.startswith("apertus: ")] == told[-1:], done.stderr[-1500:]
        assert re.search(words, lines[-1]), lines[-1]
    arguments = BY_COMMAND[command].arguments(dict(BY_COMMAND[command].inputs), str(output))
    if done.returncode != 0:
        status, _, complaints = invocations.call(arguments)
        assert status == 0, f"the same command again: {complaints[-1500:]}"
    interrupted = result_of(output)
    shutil.rmtree(output)
    for beside in output.parent.glob(f"{output.name}.*"):
        shutil.rmtree(beside)
    assert invocations.call(arguments)[0] == 0
    assert result_of(output) == interrupted
    return done.returncode != 0


@pytest.fixture
def output(workspace, tmp_path, monkeypatch):
    """Where the command writes; the current folder is the workspace."""
    monkeypatch.chdir(workspace)
    return tmp_path / "out"


@pytest.mark.parametrize("command", ["remove", "tokenize"])
def test_sigterm_is_one_line_and_the_rerun_has_the_same_bytes(crash_points, output, command):
    assert check(crash_points, "sigterm", 3, command, output)


@pytest.mark.hostile
@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("command", WRITERS)
def test_sigterm_of_every_command_loses_nothing(crash_points, output, command, number):
    check(crash_points, "sigterm", number, command, output)


@pytest.mark.hostile
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("command", WRITERS)
def test_full_disk_in_every_command_loses_nothing(crash_points, output, command, number):
    check(crash_points, "full", number, command, output)


@pytest.mark.hostile
@pytest.mark.parametrize("command", WRITERS)
def test_memory_limit_of_every_command_loses_nothing(crash_points, output, command):
    check(crash_points, "memory", 24, command, output)


def test_the_interruptions_cover_every_command_that_writes():
    assert set(WRITERS) == {name for name, command in cli.COMMANDS.items() if "output" in command.flags}

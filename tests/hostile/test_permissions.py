"""Inputs that may not be read and outputs that may not be written, with root's privileges dropped: one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import situations
from tests.hostile.invocations import BY_COMMAND
from tests.hostile.table import LOG_LINE, REMEDY, content_of

CHILD = Path(__file__).with_name("interrupted.py")
ROOT = CHILD.parents[2]
READERS = [(name, slot) for name, invocation in BY_COMMAND.items() for slot in invocation.inputs]
WRITERS = [name for name, invocation in BY_COMMAND.items() if invocation.output]


def check(command, paths, output, name, folder, workspace):
    """Runs a command without privileges and asserts the promise of the hostile table."""
    arguments = BY_COMMAND[command].arguments(paths, str(output))
    line = [sys.executable, str(CHILD), "denied", "0", str(output), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
    before = content_of(workspace)
    done = subprocess.run(
        line, env=environment, cwd=workspace, capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stderr.rstrip("\n").split("\n")
    assert done.returncode == 2, f"{done.returncode}: {done.stderr[-1500:]}"
    assert lines[-1].startswith("apertus: ") and not [each for each in lines[:-1] if not LOG_LINE.match(each)], lines
    assert name in lines[-1] and "permission" in lines[-1] and REMEDY.search(lines[-1]), lines[-1]
    assert content_of(workspace) == before and not Path(output).exists()


def unreadable(command, slot, workspace, folder):
    """Runs a command whose input may not be read."""
    paths = dict(BY_COMMAND[command].inputs)
    path = situations.no_permission(situations.Place(folder, workspace / paths[slot]))
    check(command, paths | {slot: str(path)}, folder / "out", path.name, folder, workspace)
    path.chmod(0o700)


def unwritable(command, workspace, folder):
    """Runs a command whose output lies in a folder that may not be written to."""
    output = situations.no_permission_to_write(situations.Place(folder, folder))
    check(command, dict(BY_COMMAND[command].inputs), output, "closed", folder, workspace)


def test_an_unreadable_input_is_one_line(workspace, tmp_path):
    unreadable("tokenize", "--input", workspace, tmp_path)


def test_an_unwritable_output_is_one_line(workspace, tmp_path):
    unwritable("remove", workspace, tmp_path)


@pytest.mark.hostile
@pytest.mark.parametrize(("command", "slot"), READERS)
def test_an_unreadable_input_of_every_command_is_one_line(workspace, tmp_path, command, slot):
    unreadable(command, slot, workspace, tmp_path)


@pytest.mark.hostile
@pytest.mark.parametrize("command", WRITERS)
def test_an_unwritable_output_of_every_command_is_one_line(workspace, tmp_path, command):
    unwritable(command, workspace, tmp_path)

"""Commands × hostile situations: one line, status 2, nothing changed on disk.

The suite runs each situation once and each command once; `make test-hostile` runs every cell.
"""

import os
import re

import pytest

from apertus_jax import cli
from apertus_jax.storage.lease import acquire_lease
from tests.hostile import invocations, table
from tests.hostile.invocations import BY_COMMAND


def test_every_command_has_a_good_call():
    assert set(BY_COMMAND) == set(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_ends_with_its_closing_line(good_calls, command):
    call, output = good_calls[1][command], BY_COMMAND[command].output
    if "output" not in cli.COMMANDS[command].flags:
        assert call.shown.strip()  # it answers, and writes nothing
        return
    told = [line for line in call.last_lines if re.match(rf"{command}: .*\b(open|in) {output}\b", line)]
    assert told, call.last_lines
    # No kind of folder is told by its bare name, for want of a line in HELD.
    assert not any(" written; " in line for line in told)


@pytest.fixture
def place(workspace, tmp_path, monkeypatch):
    """An empty folder for one cell; the current folder is the workspace."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run_cells(cells, workspace, place):
    """Runs cells and reports all that break the promise at once."""
    broken = {}
    for number, cell in enumerate(cells):
        folder = place / f"cell{number}"
        folder.mkdir()
        try:
            table.check(cell, workspace, folder)
        except (AssertionError, Exception, table.Hang) as error:
            broken[str(cell)] = f"{type(error).__name__}: {error}"
    report = "\n".join(f"{name}\n    {message[:700]}" for name, message in broken.items())
    assert not broken, f"{len(broken)} of {len(cells)} cells break the promise\n{report}"


def test_each_situation_and_each_command_once(workspace, place):
    run_cells(table.choose(list(table.cells(workspace))), workspace, place)


@pytest.mark.hostile
@pytest.mark.parametrize("command", BY_COMMAND)
def test_every_cell_of_a_command(command, workspace, place):
    run_cells([cell for cell in table.cells(workspace) if cell.command == command], workspace, place)


@pytest.mark.parametrize("command", ["why", "provenance", "plan", "doctor"])
def test_output_for_a_terminal_without_unicode_is_escaped(command, workspace, place):
    invocation = BY_COMMAND[command]
    status, shown, complaints = invocations.call(invocation.arguments(dict(invocation.inputs), ""), "ascii")
    assert status == 0 and shown, complaints


# Several tasks of one `prepare` share its output and hold their parts; an audit holds a folder within its own.
HELD_BY_PART = ("prepare", "memorization", "sweep")


def test_a_held_output_names_its_holder(workspace, place):
    writers = [name for name, each in BY_COMMAND.items() if each.output and name not in HELD_BY_PART]
    for number, command in enumerate(writers):
        output = place / f"out{number}"
        with acquire_lease(output):
            before = table.content_of(place)
            status, _, complaints = invocations.call(
                BY_COMMAND[command].arguments(BY_COMMAND[command].inputs, str(output))
            )
        assert status == 2 and f"process {os.getpid()}" in complaints, f"{command}: {complaints[-500:]}"
        assert table.content_of(place) == before

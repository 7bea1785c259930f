"""The hostile table: commands × situations, and the promise that every cell is held to.

Generated from the commands' calls (`invocations.py`), the situations (`situations.py`) and the signatures of the
commands. A cell is good when the command ends within ten seconds with status 2 and one line that names thing, value and
remedy, and when nothing on disk has changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from apertus_jax import cli, configuration
from apertus_jax.configuration.registry import SUPPLIED_BY_THE_EDGE
from tests.hostile import invocations, situations
from tests.hostile.invocations import BY_COMMAND, Invocation

HANG_SECONDS = 60
# What to do, or what would be right.
REMEDY = re.compile(r"; |did you mean|known are|give |choose |write |must be |must not be |is expected")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LOG_LINE = re.compile(r"apertus_jax[\w.]*: |─+ \d+/\d+ ")
WRONG_VALUES = {"bool": "'text'", "int": "'text'", "float": "'text'", "str": "3", "epath.PathLike": "3"}
OUT_OF_RANGE = {"int": str(-(10**30)), "float": "1e999"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One command in one situation.

    Attributes:
      command: name of the command.
      situation: name of the situation.
      slot: the input, gin file, output or parameter that is wrong.
      arguments: further arguments that make it so.
      names: what the line has to name, when that is not the path.
    """

    command: str
    situation: str
    slot: str = ""
    arguments: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.command}-{self.situation}-{self.slot}".replace(" ", "_").rstrip("-")


def cells(workspace: Path) -> Iterator[Cell]:
    """Yields every cell of the table."""
    for invocation in invocations.INVOCATIONS:
        yield from _input_cells(invocation, workspace)
        if invocation.output:
            for situation in situations.OUTPUTS:
                if situation != "output inside an input" or _first_folder(invocation, workspace):
                    yield Cell(invocation.command, situation, "--output")
            for address in situations.ADDRESSES:
                yield Cell(invocation.command, f"output at {address.partition(':')[0]}", "--output", (address,))
        if invocation.command != "doctor":  # it reads no configuration of its own
            for situation in situations.GIN_FILES:
                yield Cell(invocation.command, situation, "--gin_file")
        yield from _flag_cells(invocation)


def _input_cells(invocation: Invocation, workspace: Path) -> Iterator[Cell]:
    for slot, name in invocation.inputs.items():
        good = workspace / name
        marked = good.is_dir() and (good / invocation.markers.get(slot, situations.COMMITTED)).is_file()
        for situation, (_, wanted) in situations.INPUTS.items():
            about_content = wanted != "any" or situation in CONTENT
            if about_content and good.is_dir() and not marked:
                continue  # what lies in a folder of loose files is judged row by row
            if about_content and name in invocations.OPAQUE:
                continue
            if wanted in ("marked", "tables") and not good.is_dir():
                continue
            if wanted == "tables" and not _reads_tables(invocation, good):
                continue
            yield Cell(invocation.command, situation, slot)


def _reads_tables(invocation: Invocation, good: Path) -> bool:
    """Whether the command reads large files of the artefact; these read records and manifests alone."""
    if invocation.command in ("provenance", "reproduce", "compare"):
        return False
    return any(good.rglob("*.parquet")) or any(good.rglob("*.safetensors"))


CONTENT = {name for name, (make, _) in situations.INPUTS.items() if "marker" in (make.__doc__ or "")}


def _flag_cells(invocation: Invocation) -> Iterator[Cell]:
    """Yields cells of wrong flags, and of a wrong value for every parameter of the command."""
    command = invocation.command
    yield Cell(command, "unknown flag", "--no_such_flag", ("--no_such_flag=1",), ("--no_such_flag",))
    if command == "doctor":
        return
    arguments = ("--gin_file=fehlt-\u00e9-\u65e5.gin",)
    yield Cell(command, "terminal not utf-8", "--gin_file=", arguments, ("fehlt-",))
    function = cli.COMMANDS[command].function
    yield Cell(command, "unknown binding", "gin", (f"--gin.{function}.no_such=1",), ("no_such",))
    yield Cell(command, "line break in a binding", "gin", (f"--gin.{function}.x=1\nimport os",), ("--gin",))
    yield Cell(command, "lone surrogate in a binding", "gin", (f"--gin.{function}.no\udc80=1",), ("gin",))
    configuration.register(cli.locations())
    for name, parameter in configuration.signature(function).parameters.items():
        if name in (*SUPPLIED_BY_THE_EDGE, *cli.COMMANDS[command].flags.values(), cli.COMMANDS[command].positional):
            continue
        if f"{function}.{name}" in invocation.inputs:
            continue
        kind = str(parameter.annotation).partition(" | None")[0]
        wrong = WRONG_VALUES.get(kind, "3" if "str" in kind else "'text'")
        yield Cell(command, "wrong gin kind", name, (f"--gin.{function}.{name}={wrong}",), (name,))
        if kind in OUT_OF_RANGE:
            yield Cell(command, "out of range", name, (f"--gin.{function}.{name}={OUT_OF_RANGE[kind]}",), (name,))


def _first_folder(invocation: Invocation, workspace: Path) -> Path | None:
    return next((workspace / name for name in invocation.inputs.values() if (workspace / name).is_dir()), None)


def choose(every: list[Cell]) -> list[Cell]:
    """Returns a selection in which each situation and each command comes at least once."""
    chosen: list[Cell] = []
    used: dict[str, int] = {}
    for situation in dict.fromkeys(cell.situation for cell in every):
        candidates = [cell for cell in every if cell.situation == situation]
        cell = min(candidates, key=lambda each: (used.get(each.command, 0), each.command))
        used[cell.command] = used.get(cell.command, 0) + 1
        chosen.append(cell)
    chosen += [next(cell for cell in every if cell.command == name) for name in BY_COMMAND if name not in used]
    return chosen


class Hang(BaseException):
    """A cell did not end; no handler of ordinary errors may swallow it."""


@contextlib.contextmanager
def _time_limit(folder: Path) -> Iterator[None]:
    """Raises `Hang` in the main thread after HANG_SECONDS; a reader stuck in C on a pipe is let go first."""

    def stop(*_: object) -> None:
        raise Hang(f"did not end within {HANG_SECONDS} s")

    def release() -> None:
        for path in folder.rglob("*"):
            if path.is_fifo():
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    watchdog = threading.Timer(HANG_SECONDS + 2, release)
    watchdog.daemon = True
    watchdog.start()
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        watchdog.cancel()


def content_of(folder: Path) -> dict[str, tuple]:
    """Returns everything below a folder, links not followed: name → mode, size, time of change, target."""
    found = {}
    pending = [folder]
    while pending:
        for entry in os.scandir(pending.pop()):
            state = entry.stat(follow_symlinks=False)
            target = os.readlink(entry.path) if entry.is_symlink() else ""
            # A folder's size and time change with what comes into it, which is listed itself.
            size, changed = (0, 0) if entry.is_dir(follow_symlinks=False) else (state.st_size, state.st_mtime_ns)
            found[entry.path] = (state.st_mode, size, changed, target)
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return found


def command_line(cell: Cell, workspace: Path, folder: Path) -> tuple[list[str], str]:
    """Makes the situation in `folder` → the command line, and what the error has to name."""
    invocation = BY_COMMAND[cell.command]
    paths, output, gin_file = dict(invocation.inputs), str(folder / "out"), ""
    names = cell.names[0] if cell.names else ""
    if cell.slot in invocation.inputs:
        marker = invocation.markers.get(cell.slot, situations.COMMITTED)
        place = situations.Place(folder, workspace / invocation.inputs[cell.slot], marker)
        paths[cell.slot] = names = str(situations.INPUTS[cell.situation][0](place))
    elif cell.slot == "--output" and cell.arguments:
        output = names = cell.arguments[0]
    elif cell.slot == "--output":
        place = situations.Place(folder, _first_folder(invocation, workspace) or folder)
        output = names = str(situations.OUTPUTS[cell.situation](place))
    elif cell.slot == "--gin_file":
        place = situations.Place(folder, workspace / "whole.gin")
        gin_file = names = str(situations.GIN_FILES[cell.situation](place))
    arguments = invocation.arguments(paths, output, gin_file)
    if cell.slot != "--output":
        arguments += cell.arguments
    return arguments, names


def check(cell: Cell, workspace: Path, folder: Path) -> None:
    """Runs one cell in this process and asserts the promise."""
    arguments, names = command_line(cell, workspace, folder)
    before = content_of(workspace) | content_of(folder)
    with _time_limit(folder):
        encoding = "ascii" if cell.situation == "terminal not utf-8" else "utf-8"
        status, _, complaints = invocations.call(arguments, encoding)
    after = content_of(workspace) | content_of(folder)
    assert status == cli.BAD_INPUT_STATUS, f"status {status}\n{complaints[-2000:]}"
    assert "Traceback" not in complaints, complaints[-3000:]
    lines = complaints.rstrip("\n").split("\n")
    others = [line for line in lines[:-1] if not LOG_LINE.match(line)]
    assert lines[-1].startswith("apertus: ") and not others, complaints[-2000:]
    assert not CONTROL.search(lines[-1]), f"{lines[-1]!r}"
    name = names if cell.arguments else Path(names).name[:20]  # long paths are shown shortened
    assert name in lines[-1], f"{name!r} is not named: {lines[-1]}"
    assert REMEDY.search(lines[-1]) and len(lines[-1]) < 1500, f"no remedy: {lines[-1]}"
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not changed, f"changed on disk: {sorted(changed)[:5]}; {lines[-1]}"

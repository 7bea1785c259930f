"""Every state that a crash can leave a folder in, from one run: the Python side of `crash_points.c`.

    crash_points = CrashPoints.build(tmp_path_factory.mktemp("crash_points"))      # skips the test without gcc
    states = crash_points.record([sys.executable, "save.py"], watched=run_folder, snapshots=tmp_path / "states")
    crash_points.run(command, watched=run_folder, kill_at=17)                       # dies before operation 17
    crash_points.run(command, watched=run_folder, full_at=9)                        # ENOSPC from operation 9 on

The command is any process, a training run included; only changes below `watched` count as operations.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
SITE = re.compile(r"\.building-[0-9a-f]{8}/")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One change below the watched folder, in the order in which it happened."""

    number: int
    call: str
    path: str


@dataclasses.dataclass(frozen=True)
class CrashState:
    """A copy of the watched folder as a process killed just before `operation` leaves it (None: after the last)."""

    folder: Path
    operation: Operation | None

    def __str__(self) -> str:
        if self.operation is None:
            return "after the last operation"
        return f"before operation {self.operation.number}, {self.operation.call} {self.operation.path}"


@dataclasses.dataclass(frozen=True)
class CrashPoints:
    """The compiled interposer."""

    library: Path

    @classmethod
    def build(cls, folder: Path) -> CrashPoints:
        """Compiles the interposer into `folder`; skips the calling test where there is no gcc or no Linux."""
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None or not Path("/proc/self/fd").exists():
            pytest.skip("enumerating crash points needs gcc and Linux: they are taken by an LD_PRELOAD library")
        library = folder / "crash_points.so"
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True
        )
        return cls(library)

    def run(
        self,
        command: Sequence[str],
        watched: Path,
        log: Path | None = None,
        snapshots: Path | None = None,
        kill_at: int | None = None,
        full_at: int | None = None,
        full_count: int | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command under the interposer and returns it, however it ended.

        Args:
          command: what to run.
          watched: the folder whose changes are operations; it need not exist yet.
          log: file that gets the operations (read it with `read_log`).
          snapshots: folder that gets a numbered copy of `watched` before each operation.
          kill_at: kills the process before this operation.
          full_at: calls that need space fail with ENOSPC from this operation on.
          full_count: how many of them fail; default all.
          environment: variables beside those of this process.
          timeout: seconds.
        """
        settings = {
            "LD_PRELOAD": self.library,
            "CRASH_WATCH": watched.resolve(),
            "CRASH_LOG": log,
            "CRASH_SNAPSHOTS": snapshots,
            "CRASH_KILL_AT": kill_at,
            "CRASH_FULL_AT": full_at,
            "CRASH_FULL_COUNT": full_count,
        }
        if snapshots is not None:
            snapshots.mkdir(parents=True, exist_ok=True)
        variables = {name: str(value) for name, value in settings.items() if value is not None}
        return subprocess.run(
            list(command),
            env=dict(os.environ) | dict(environment or {}) | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def record(
        self,
        command: Sequence[str],
        watched: Path,
        snapshots: Path,
        environment: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> list[CrashState]:
        """Runs a command to its end and returns every distinct state in which a crash could have left `watched`."""
        log = snapshots.with_suffix(".log")
        done = self.run(command, watched, log=log, snapshots=snapshots, environment=environment, timeout=timeout)
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        operations = {operation.number: operation for operation in read_log(log)}
        if not operations:
            raise AssertionError(f"{command} changed nothing below {watched}")
        copies = sorted((child for child in snapshots.iterdir()), key=lambda child: int(child.name))
        states = [CrashState(copy, operations[int(copy.name)]) for copy in copies]
        return _distinct([*states, CrashState(watched, None)])


def fill_disk_after(operations: int, count: int = -1) -> None:
    """Inside a process that `run` started: from the given operation on (1 is the next), calls that need space fail.

    Args:
      operations: which operation, counted from now; 0 frees the disk again.
      count: how many calls fail before there is space again; -1 for all.
    """
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.crash_points_fill(ctypes.c_long(operations), ctypes.c_long(count))


def operations_so_far() -> int:
    """Inside a process that `run` started: how many operations there have been."""
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.crash_points_operations.restype = ctypes.c_long
    return library.crash_points_operations()


def read_log(log: Path) -> list[Operation]:
    """Returns the operations of a run in order; the sites of builds, whose names are random, are left out of paths."""
    rows = [line.split("\t", 2) for line in SITE.sub("", log.read_text()).splitlines()]
    return [Operation(int(number), call, path) for number, call, path in rows]


def content(folder: Path) -> dict[str, bytes | None]:
    """Returns every file below a folder with its bytes, and every subfolder with None."""
    entries = sorted(folder.rglob("*")) if folder.exists() else []
    return {str(entry.relative_to(folder)): None if entry.is_dir() else entry.read_bytes() for entry in entries}


def _distinct(states: Sequence[CrashState]) -> list[CrashState]:
    seen: set[str] = set()
    distinct = []
    for state in states:
        fingerprint = hashlib.blake2b(repr(content(state.folder)).encode()).hexdigest()
        if fingerprint not in seen:
            seen.add(fingerprint)
            distinct.append(state)
    return distinct

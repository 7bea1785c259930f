"""One command under a condition that a process makes for itself: `interrupted.py CONDITION NUMBER OUTPUT ARGUMENT…`.

CONDITION is one of
  sigterm  this process gets SIGTERM at its NUMBER-th change below OUTPUT
  full     the disk is full from the NUMBER-th change on (under the interposer of tests/checkpoints/crash_points.py)
  memory   NUMBER more megabytes of address space than the imports took
  denied   permissions hold for root too: the capabilities that pass them by are dropped (NUMBER is ignored)
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import sys
from pathlib import Path

from apertus_jax import cli
from tests.checkpoints.crash_points import fill_disk_after

MEGABYTE = 1 << 20
CAPABILITY_VERSION_3 = 0x20080522
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of linux/capability.h.
PASSING_PERMISSIONS = 1 << 1 | 1 << 2


def terminate_at(number: int, output: str) -> None:
    """Sends SIGTERM to this process when it makes its `number`-th change below `output`."""
    changes = 0
    main_process = os.getpid()

    def count(event: str, arguments: tuple) -> None:
        nonlocal changes
        writes = event in ("os.mkdir", "os.rename", "os.remove") or (event == "open" and str(arguments[1])[:1] in "wxa")
        if writes and str(arguments[0]).startswith(output) and os.getpid() == main_process:
            changes += 1
            if changes == number:
                os.kill(main_process, signal.SIGTERM)

    sys.addaudithook(count)


def limit_memory(megabytes: int, command: str) -> None:
    """Imports what the command needs, then lets the address space grow by so many megabytes only."""
    module, _, _ = cli.COMMANDS[command].location.partition(":")
    importlib.import_module(module)
    importlib.import_module("apertus_jax.configuration").register(cli.locations())
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def drop_privileges() -> None:
    """Makes file permissions hold for this process and all threads it starts from now on, root included."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the capabilities 0-31, then of 32-63
    library = ctypes.CDLL(None, use_errno=True)
    if library.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for number in (0, 1, 2):
        sets[number] &= ~PASSING_PERMISSIONS
    if library.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def main(condition: str, number: int, output: str, arguments: list[str]) -> int:
    """Runs the command line under the condition."""
    if condition == "sigterm":
        terminate_at(number, output)
    elif condition == "full":
        fill_disk_after(number)
    elif condition == "denied":
        drop_privileges()
    else:
        limit_memory(number, arguments[0])
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))

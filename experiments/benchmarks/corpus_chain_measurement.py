"""Runs one side of a comparison in processes of its own: seconds of wall and processor, peak memory of the tree."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

POLL_SECONDS = 0.05
# On a shared machine one core is one core: no library may start threads of its own.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS")}


@dataclasses.dataclass(frozen=True)
class Run:
    """What one child and all of its descendants took.

    Attributes:
      wall: seconds from start to end.
      processor: seconds of user and system time of all processes.
      peak_mb: largest sum of the resident sets of all processes; pages that they share count once for each.
      parent_mb: largest resident set of the child itself.
      worker_mb: largest resident set of one of its descendants.
      load: the machine's load average of one minute when the child ended.
    """

    wall: float
    processor: float
    peak_mb: float
    parent_mb: float
    worker_mb: float
    load: float


def use_one_core() -> None:
    """Binds this process, and all that it starts from now on, to one core and libraries to one thread."""
    os.environ.update(ONE_THREAD)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def run_script(script: str, arguments: Sequence[str | Path], log: Path) -> Run:
    """Runs a script of this folder to its end.

    Raises:
      SystemExit: it failed; the message ends with the last line that it wrote.
    """
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    started = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        peak = parent = worker = 0.0
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            sizes = tree_megabytes(child.pid)
            peak, parent = max(peak, sum(sizes.values())), max(parent, sizes.pop(child.pid, 0.0))
            worker = max([worker, *sizes.values()])
            time.sleep(POLL_SECONDS)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if child.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["it wrote nothing"])[-1]
        raise SystemExit(f"{script} ended with status {child.returncode}: {last}")
    return Run(wall, usage.ru_utime + usage.ru_stime, peak, parent, worker, os.getloadavg()[0])


def tree_megabytes(root: int) -> dict[int, float]:
    """Returns the resident sets of a process and all of its descendants, in millions of bytes."""
    parents, pages = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                status = Path(entry.path, "stat").read_bytes()
                pages[int(entry.name)] = int(Path(entry.path, "statm").read_bytes().split()[1])
            except (FileNotFoundError, ProcessLookupError):  # ended since the listing
                continue
            # The name in parentheses may hold anything; the state and the parent follow its last parenthesis.
            parents[int(entry.name)] = int(status[status.rindex(b")") + 2 :].split()[1])
    sizes = {}
    for pid, resident in pages.items():
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root:
            sizes[pid] = resident * os.sysconf("SC_PAGE_SIZE") / 1e6
    return sizes

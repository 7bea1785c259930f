#!/usr/bin/env python3
"""Starts one run as several processes of this machine, and again after a crash.

    python experiments/launch/local_processes.py --processes=4 --restarts=3 -- \\
        .venv/bin/python -m apertus_jax pretrain --gin_file=my.gin --store=STORE --output=RUN \\
        --gin.pretrain.distributed=True

Every process gets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. When one ends with an error the others
are given --grace seconds and are killed then. Status 75, which asks for it, and the death by a signal lead to a new
start of all, at most --restarts times in all; any other error ends the launcher with the same status at once. SIGTERM
and SIGUSR2 are passed on: the run saves and stops.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

REQUEUE_STATUS = 75
POLL_SECONDS = 0.1
SIGNAL_STATUS = 128


def free_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(command: list[str], count: int) -> list[subprocess.Popen[bytes]]:
    """Starts the processes of one job."""
    address = f"localhost:{free_port()}"
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [subprocess.Popen(command, env=os.environ | job | {"JAX_PROCESS_ID": str(i)}) for i in range(count)]


def wait(processes: list[subprocess.Popen[bytes]], grace: float) -> list[int]:
    """Waits until all have ended and returns their statuses, that of the one that failed first in front."""
    order: list[int] = []
    deadline: float | None = None
    while len(order) < len(processes):
        for process in processes:
            if process.poll() is not None and process.pid not in order:
                order.append(process.pid)
                if process.returncode and deadline is None:
                    deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                if process.poll() is None:
                    process.kill()
        time.sleep(POLL_SECONDS)
    statuses = {process.pid: process.returncode for process in processes}
    return sorted((statuses[pid] for pid in order), key=lambda status: status == 0)


def main() -> int:
    """Runs the job until it ends well or may not be started again; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--grace", type=float, default=120.0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command or options.processes < 1:
        parser.error("give --processes of at least 1 and, after --, the command")
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, pass_on)
    for restart in range(options.restarts + 1):
        processes[:] = start(command, options.processes)
        statuses = wait(processes, options.grace)
        if not any(statuses):
            return 0
        failure = next((status for status in statuses if status > 0 and status != REQUEUE_STATUS), None)
        told = ", ".join(map(str, statuses))
        if failure is not None:
            print(f"launcher: the processes ended with {told}; not started again", file=sys.stderr, flush=True)
            return failure
        if restart < options.restarts:
            line = f"launcher: the processes ended with {told}; restart {restart + 1} of {options.restarts}"
            print(line, file=sys.stderr, flush=True)
    print(f"launcher: no restart is left of {options.restarts}", file=sys.stderr, flush=True)
    return next(SIGNAL_STATUS - status if status < 0 else status for status in statuses if status)


if __name__ == "__main__":
    sys.exit(main())

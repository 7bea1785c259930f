"""Two sides measured in turn (A B A B …), each in processes of its own: shared by `decode.py` and `scoring.py`.

Machines drift and are shared, so a comparison of one A with one B says little. Medians are over the calls during which
other processes left the machine alone, and over all calls where too few such exist; the table says which.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from train_step_measurements import QUIET_SHARE, THREADS, busy_seconds, wait_for_quiet

QUIET_CALLS = 3


def build_parser(description: str, shapes: Iterable[str], calls: int) -> argparse.ArgumentParser:
    """Returns the options that both comparisons have; `calls` is the default of timed calls in each process."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(shapes), action="append", help="repeatable; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--calls", type=int, default=calls, help="timed calls in each process")
    parser.add_argument("--patience", type=float, default=20, help="seconds a process waits in all for others to pause")
    parser.add_argument("--json", type=Path, help="write every number there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def time_calls(call: Callable[[], Any], calls: int, patience: float) -> dict[str, Any]:
    """Calls once to warm up and `calls` times more → the answer, seconds, processor seconds, others' share."""
    started = time.perf_counter()
    answer = call()
    record: dict[str, Any] = {"answer": answer, "first_call": time.perf_counter() - started}
    record |= {"seconds": [], "processor": [], "others": []}
    for _ in range(calls):
        patience = wait_for_quiet(patience)
        started, own, busy = time.perf_counter(), time.process_time(), busy_seconds()
        call()
        elapsed, used = time.perf_counter() - started, time.process_time() - own
        foreign = busy_seconds() - busy - used
        record["seconds"].append(elapsed)
        record["processor"].append(used)
        record["others"].append(max(foreign, 0.0) / (elapsed * os.cpu_count()))
    return record


def in_process(script: str, task: dict[str, Any]) -> dict[str, Any]:
    """Runs `script --child TASK` in a fresh process and returns what it prints, with the load at its start."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(THREADS),
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
    }
    load = os.getloadavg()[0]
    with tempfile.TemporaryFile("w+") as messages:
        done = subprocess.run(
            [sys.executable, script, "--child", json.dumps(task)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        )
        if done.returncode:
            messages.seek(0)
            raise SystemExit(f"measurement {task} failed:\n{messages.read()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"load": load}


def take_turns(
    script: str, sides: Sequence[str], task: dict[str, Any], rounds: int, console: Console
) -> dict[str, dict[str, Any]]:
    """Measures every side in turn, `rounds` times → side → its last answer, lists of numbers and their summary."""
    records: dict[str, dict[str, Any]] = {}
    for number in range(rounds):
        for side in sides:
            console.print(f"[dim]{task['shape']}: round {number + 1} of {rounds}, {side}[/dim]", highlight=False)
            result = in_process(script, task | {"side": side})
            record = records.setdefault(
                side, {"seconds": [], "processor": [], "others": [], "first_call": [], "load": []}
            )
            record["answer"] = result["answer"]
            for name in ("seconds", "processor", "others"):
                record[name] += result[name]
            for name in ("first_call", "load"):
                record[name].append(result[name])
    return {side: record | summarize(record) for side, record in records.items()}


def summarize(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the median call, over undisturbed calls where there are enough of them."""
    calls = zip(record["seconds"], record["others"], strict=True)
    quiet = [seconds for seconds, others in calls if others < QUIET_SHARE]
    return {
        "median_seconds": statistics.median(quiet if len(quiet) >= QUIET_CALLS else record["seconds"]),
        "best_seconds": min(record["seconds"]),
        "median_processor_seconds": statistics.median(record["processor"]),
        "quiet_calls": len(quiet),
    }


def show(title: str, units: float, unit: str, records: dict[str, dict[str, Any]], console: Console) -> None:
    """Prints a row for each side; ratios are against the first."""
    table = Table(title=title)
    for column in ("", f"{unit}/s", "median s", "best s", "× ours", "processor s", "first call s", "quiet", "load"):
        table.add_column(column, justify="right" if column else "left")
    ours = next(iter(records.values()))["median_seconds"]
    for side, record in records.items():
        table.add_row(
            side,
            f"{units / record['median_seconds']:.0f}",
            f"{record['median_seconds']:.2f}",
            f"{record['best_seconds']:.2f}",
            f"{record['median_seconds'] / ours:.2f}",
            f"{record['median_processor_seconds']:.2f}",
            f"{statistics.median(record['first_call']):.1f}",
            f"{record['quiet_calls']}/{len(record['seconds'])}",
            f"{statistics.median(record['load']):.1f}",
        )
    console.print(table)

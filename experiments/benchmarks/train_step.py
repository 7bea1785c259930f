"""One training step on the CPU, ours against transformers on torch: time, memory, share of the matrix-product bound.

    python experiments/benchmarks/train_step.py                       (both shapes, about a quarter of an hour)
    python experiments/benchmarks/train_step.py --shape cpu-60m --rounds 5 --json result.json
    python experiments/benchmarks/train_step.py --shape cpu-60m --search

A step is forward, backward, clipping and AdamW in float32 on two threads. Ours is the program that `pretrain` runs,
loss masks included; torch is `ApertusForCausalLM` with sdpa attention, eager and compiled. Every measurement is a
process of its own and the sides take turns (A B A B …), because machines drift. Medians are over the steps during which
other processes left the machine alone, and over all steps where too few such exist; the table says which.
`--search` times what `PRESETS` were chosen from: attention implementations and unrolling.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from train_step_measurements import QUIET_SHARE, SHAPES, THREADS, run_child

QUIET_STEPS = 3
# What `--search` found fastest on two cores.
PRESETS = {
    "cpu-60m": {"attention": "xla_blockwise", "scan_unroll": 8, "num_tiles": 4},
    "big-vocab": {"attention": "xla_blockwise", "scan_unroll": 1, "num_tiles": 8},
}
TARGETS = {"cpu-60m": {"speed": 1.1}, "big-vocab": {"memory": 0.6}}


def in_process(task: dict[str, Any]) -> dict[str, Any]:
    """Runs one measurement in a fresh process and returns its result with the load average at its start."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(THREADS),
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    load = os.getloadavg()[0]
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    with tempfile.TemporaryFile("w+") as messages:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=messages, text=True)
        if done.returncode:
            messages.seek(0)
            raise SystemExit(f"measurement {task} failed:\n{messages.read()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"load": load}


def sides_of(shape: str, search: bool) -> dict[str, dict[str, Any]]:
    """Returns label → what to run, in the order of a round."""
    preset = PRESETS[shape]
    if search:
        return {
            f"{attention}, unroll {unroll}": {
                "side": "ours",
                "options": preset | {"attention": attention, "scan_unroll": unroll},
            }
            for attention in ("xla", "xla_blockwise")
            for unroll in (1, SHAPES[shape].model["num_layers"])
        }
    sides = {
        "ours": {"side": "ours", "options": preset},
        "torch eager": {"side": "torch", "options": {"compiled": False, "fused": True}},
    }
    if shutil.which("gcc") or shutil.which("g++"):
        sides["torch.compile"] = {"side": "torch", "options": {"compiled": True, "fused": True}}
    return sides


def compare(shape: str, options: argparse.Namespace, console: Console) -> dict[str, dict[str, Any]]:
    """Measures every side in turn, `rounds` times → label → seconds, others, losses, peak megabytes, load."""
    results: dict[str, dict[str, list[Any]]] = {}
    for number in range(options.rounds):
        for label, side in sides_of(shape, options.search).items():
            console.print(f"[dim]{shape}: round {number + 1} of {options.rounds}, {label}[/dim]", highlight=False)
            result = in_process(
                {"kind": "step", "shape": shape, "steps": options.steps, "patience": options.patience, **side}
            )
            record = results.setdefault(label, {"seconds": [], "others": [], "losses": [], "megabytes": [], "load": []})
            for name in ("seconds", "others"):
                record[name] += result[name]
            record["losses"].append(result["losses"])
            record["megabytes"].append(result["peak_megabytes"])
            record["load"].append(result["load"])
            if options.json:
                options.json.write_text(json.dumps(results))  # a long comparison that is cut short keeps its numbers
    return {label: record | summarize(record) for label, record in results.items()}


def summarize(record: dict[str, list[Any]]) -> dict[str, Any]:
    """Returns the median step, over undisturbed steps where there are enough of them, and the peak memory."""
    quiet = [
        seconds for seconds, others in zip(record["seconds"], record["others"], strict=True) if others < QUIET_SHARE
    ]
    chosen = quiet if len(quiet) >= QUIET_STEPS else record["seconds"]
    return {
        "median_seconds": statistics.median(chosen),
        "best_seconds": min(record["seconds"]),
        "median_of_all_seconds": statistics.median(record["seconds"]),
        "undisturbed_steps": len(quiet),
        "peak_megabytes": statistics.median(record["megabytes"]),
    }


def show_steps(shape: str, results: dict[str, dict[str, Any]], bound: float | None, console: Console) -> None:
    """Prints one row for each side; ratios are against the first row."""
    table = Table(title=f"{shape}: one training step, float32, {THREADS} threads")
    for column in ("", "median s", "best s", "quiet", "× ours", "of bound", "MB", "loss", "load"):
        table.add_column(column, justify="right" if column else "left")
    first = next(iter(results.values()))
    for label, record in results.items():
        seconds = record["median_seconds"]
        table.add_row(
            label,
            f"{seconds:.3f}",
            f"{record['best_seconds']:.3f}",
            f"{record['undisturbed_steps']}/{len(record['seconds'])}",
            f"{seconds / first['median_seconds']:.2f}",
            f"{bound / seconds:.2f}" if bound else "",
            f"{record['peak_megabytes']:.0f}",
            f"{record['losses'][0][-1]:.2f}",
            f"{statistics.median(record['load']):.1f}",
        )
    console.print(table)


def show_verdict(shape: str, outcome: dict[str, Any], console: Console) -> None:
    """Prints the ratios that are promised, with their targets."""
    sides = outcome["sides"]
    record, eager = sides["ours"], sides["torch eager"]
    speed = eager["median_seconds"] / record["median_seconds"]
    memory = record["peak_megabytes"] / eager["peak_megabytes"]
    targets = TARGETS[shape]
    console.print(f"speed against torch eager {speed:.2f} (target: {targets.get('speed', 'none')}, more is better)")
    console.print(f"memory against torch eager {memory:.2f} (target: {targets.get('memory', 'none')}, less is better)")
    products = outcome["products"]
    rate = products["flops"] / products["seconds"] / 1e9
    console.print(f"products with weights alone: {products['seconds']:.3f} s at {rate:.0f} GFLOP/s")
    for strategy, seconds in outcome["goldfish"].items():
        share = seconds / record["median_seconds"]
        console.print(f"Goldfish {strategy}: {1e3 * seconds:.2f} ms, {share:.2%} of the step (target: below 1%)")


def main() -> None:
    """Compares the sides at each shape, or is the process of one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), action="append", help="repeatable; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=5, help="timed steps in each process")
    parser.add_argument("--patience", type=float, default=30, help="seconds a process waits in all for others to pause")
    parser.add_argument("--search", action="store_true", help="time the choices behind PRESETS, without torch")
    parser.add_argument("--json", type=Path, help="write every number there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_child(json.loads(arguments.child))))
        return
    console = Console()
    outcomes = {}
    for shape in arguments.shape or SHAPES:
        sides = compare(shape, arguments, console)
        outcomes[shape] = {"sides": sides}
        if arguments.search:
            show_steps(shape, sides, None, console)
            continue
        for kind in ("products", "goldfish"):
            outcomes[shape][kind] = in_process({"kind": kind, "shape": shape})
        outcomes[shape]["goldfish"].pop("load")
        show_steps(shape, sides, outcomes[shape]["products"]["seconds"], console)
        show_verdict(shape, outcomes[shape], console)
    if arguments.json:
        arguments.json.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()

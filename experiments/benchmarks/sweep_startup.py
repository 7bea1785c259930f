"""Start-up of runs within a sweep: seconds before the first step of a first run, of another seed, and of another k.

    python experiments/benchmarks/sweep_startup.py --store=runs/quickstart/store

Trains 30 steps each of k = 3, 10, 50 with two seeds, as one sweep in an empty folder, and prints for every run the wall
time and the processor time from the moment that the sweep turns to it to the call of its first step. Programs that an
earlier process compiled are not used. On a busy machine the processor time is what counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

from apertus_jax.cli import main as apertus  # noqa: E402

VARIED = ("--vary=goldfish.k=3,10,50", "--vary=TrainingConfig.seed=1,2")


def measure(store: Path, gin_file: str, folder: Path) -> list[tuple[str, float, float]]:
    """Runs the sweep and returns (run, wall seconds, processor seconds) before the first step of each run."""
    from apertus_jax.sweeps.planned_runs import PlannedRun
    from apertus_jax.training.program import Program

    begun: list[tuple[str, float, float]] = []
    found: dict[str, tuple[float, float]] = {}
    configure, step = PlannedRun.configure, Program.step

    def configured(run: PlannedRun) -> None:
        begun.append((run.name, time.monotonic(), time.process_time()))
        configure(run)

    def stepped(program: Program, *arguments: object) -> object:
        name, wall, processor = begun[-1]
        found.setdefault(name, (time.monotonic() - wall, time.process_time() - processor))
        return step(program, *arguments)

    PlannedRun.configure, Program.step = configured, stepped
    words = [f"--gin_file={gin_file}", f"--store={store}", f"--output={folder}", "--steps=30", *VARIED]
    if status := apertus(["sweep", *words]):
        sys.exit(status)
    return [(name, *seconds) for name, seconds in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="token store")
    parser.add_argument("--gin_file", default="quickstart.gin", help="what is trained; it must use @goldfish()")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.store, arguments.gin_file, Path(folder) / "sweep")
    for name, wall, processor in rows:
        print(f"{name:16}  {wall:6.2f} s, {processor:6.2f} s of processor time before the first step")


if __name__ == "__main__":
    main()

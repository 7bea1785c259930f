"""The memory that `plan` foretells beside what XLA allots, on eight fake devices: a table of ratios.

    python experiments/benchmarks/plan_memory.py        about 2 minutes

A model of 7.4 M parameters under meshes, recomputation and accumulation. State and batch must agree to the byte, apart
from fields of the batch that the step does not read; of the rest, XLA's peak of temporary memory over the plan's is
shown.
Nothing here depends on time or load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_cpu_enable_concurrency_optimized_scheduler=false",
)

from rich.console import Console
from rich.progress import track
from rich.table import Table

from apertus_jax import sharding
from apertus_jax.data import BatchSchedule
from apertus_jax.model import ModelConfig
from apertus_jax.objectives import goldfish, not_after_eod
from apertus_jax.optimization import ademamix
from apertus_jax.training import Objective, RunSchedule, TrainingConfig
from apertus_jax.training.planning.plan_command import plan

MODEL = ModelConfig(4096, 256, 1344, 6, 8, 4, attention_implementation="xla_blockwise")
OBJECTIVE = Objective([goldfish(k=4, h=8), not_after_eod(2)], num_tiles=8)
REMAT_POLICIES = ("none", "dots", "full")
MESHES = ({"data": 8}, {"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2})
ACCUMULATIONS = (1, 2)


def measure(remat_policy: str, mesh: dict[str, int], accumulation: int) -> tuple[int, int, int]:
    """Returns bytes: state and batch that XLA does not read, the rest as planned, and XLA's temporary memory."""
    with contextlib.redirect_stdout(io.StringIO()):
        figures = plan(
            dataclasses.replace(MODEL, remat_policy=remat_policy),
            OBJECTIVE,
            ademamix,
            RunSchedule(BatchSchedule(32), learning_rate=1e-3, total_steps=100),
            training=TrainingConfig(sequence_length=256, accumulation=accumulation),
            mesh=sharding.MeshConfig(**mesh),
            compile=True,
        )
    memory, compiled = figures["memory"], figures["compiled"]
    exact = memory["parameters"] + memory["optimizer_state"] + memory["batch"]
    return exact - compiled["state_and_batch"], memory["total"] - exact, compiled["temporary"]


def main() -> None:
    """Prints the table."""
    table = Table(title="one of eight devices, MB")
    for column in ("remat", "mesh", "pieces", "not read, bytes", "planned", "XLA", "ratio"):
        table.add_column(column, justify="left" if column in ("remat", "mesh") else "right")
    ratios = []
    combinations = list(itertools.product(REMAT_POLICIES, MESHES, ACCUMULATIONS))
    for remat, mesh, accumulation in track(combinations, "compiling", console=Console(stderr=True)):
        unread, planned, allotted = measure(remat, mesh, accumulation)
        ratios.append(allotted / planned)
        spelled = " ".join(f"{axis} {size}" for axis, size in mesh.items())
        sizes = (f"{planned / 1e6:.1f}", f"{allotted / 1e6:.1f}", f"{ratios[-1]:.2f}")
        table.add_row(remat, spelled, str(accumulation), f"{unread:,}", *sizes)
    table.caption = f"ratios from {min(ratios):.2f} to {max(ratios):.2f}"
    Console().print(table)


if __name__ == "__main__":
    main()

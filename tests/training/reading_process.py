"""Process of a job that trains and tells which samples it read: `reading_process.py STORE OUTPUT TOTAL_STEPS`."""

from __future__ import annotations

import sys

import jax

from apertus_jax.data import BatchSchedule
from apertus_jax.data.loader.batch_loader import Batch, BatchLoader
from apertus_jax.sharding import MeshConfig
from tests.training.small_run import small_run

BATCH = BatchLoader.batch


def telling(loader: BatchLoader, step: int) -> Batch:
    """Builds the batch of a step and prints its samples, those of this process."""
    batch = BATCH(loader, step)
    # In one write, because threads read ahead.
    sys.stdout.write(f"READ {step} {','.join(map(str, batch['sample_ids'].tolist()))}\n")
    return batch


if __name__ == "__main__":
    BatchLoader.batch = telling  # type: ignore[method-assign]
    store, output, total_steps = sys.argv[1:]
    mesh = MeshConfig(data=1, fsdp=-1)
    doubling = {"batch_schedule": BatchSchedule(8, 16, 40), "total_steps": int(total_steps)}
    small_run(store, output, {"log_every": 1}, mesh=mesh, distributed=True, **doubling)
    print("DEVICES", jax.device_count(), jax.process_count())

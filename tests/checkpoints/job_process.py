"""One process of a job of several that saves and restores together: `job_process.py FOLDER PORT INDEX COUNT SAVES`."""

from __future__ import annotations

import sys

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.sharding import MeshConfig, make_mesh


def main(folder: str, port: str, index: str, count: str, saves: str) -> None:
    """Saves some steps from every process, restores the newest, and prints its own part of it."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", int(count), int(index))
    sharding = NamedSharding(make_mesh(MeshConfig(data=1, fsdp=int(count))), PartitionSpec("fsdp"))
    whole = np.arange(64, dtype=np.float32).reshape(8, 8)
    with Checkpointer(folder, keep_last=1, timeout_seconds=60) as checkpointer:
        for step in range(1, int(saves) + 1):
            state = {"kernel": jax.make_array_from_callback((8, 8), sharding, lambda part, s=step: whole[part] * s)}
            checkpointer.save(step, state, {"step": step})
        checkpointer.wait()
        wanted = {"kernel": jax.ShapeDtypeStruct((8, 8), np.float32, sharding=sharding)}
        restored, metadata, step = checkpointer.restore(wanted)
        steps = checkpointer.valid_steps()
    part = restored["kernel"].addressable_shards[0]
    correct = np.array_equal(part.data, whole[part.index] * int(saves))
    print(f"RESULT {index} {step} {metadata['step']} {steps} {part.data.shape} {correct}")
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

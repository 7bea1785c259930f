"""Process of a job that reads batches for several meshes and checks what lies on its devices: `rows_process.py STORE`.

Nothing is compiled.
"""

from __future__ import annotations

import functools
import sys

import jax
import numpy as np

from apertus_jax import sharding
from apertus_jax.data import BatchSchedule, DeviceBatches, Mixture, MixtureStage, TokenStore, stream_of_store
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.training.multihost import join_job

MESHES = {
    "data": (sharding.MeshConfig(data=-1), 1),
    "tensor": (sharding.MeshConfig(data=-1, tensor=4), 1),
    "context": (sharding.MeshConfig(data=1, fsdp=-1, context=4), 1),
    # As on a torus, where the devices of a host do not follow one another along the mesh.
    "apart": (sharding.MeshConfig(data=-1), 3),
}
STEPS = 6


def main(store: str) -> None:
    """Prints the rows of this process by mesh; fails where a device holds another row than it should."""
    join_job()
    opened = TokenStore.open(store)
    mixture = Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})])
    stream = stream_of_store(opened, mixture, BatchSchedule(8, 16, 24), 32, 0, STEPS)
    make_loader = functools.partial(BatchLoader, stream, opened.vocab_size, opened.eod_id)
    whole = make_loader()
    for name, (config, stride) in MESHES.items():
        count = jax.device_count()
        devices = [jax.devices()[place * stride % count] for place in range(count)]
        mesh = sharding.make_mesh(config, devices)
        loader = make_loader(rows_of_batch=functools.partial(sharding.rows_of_process, mesh))
        with DeviceBatches(loader.iterate(0, STEPS), sharding.batch_sharding(mesh)) as batches:
            for step, batch in enumerate(batches):
                expected = whole.batch(step)
                for field in batch.keys() - {"sample_ids"}:
                    assert batch[field].shape == expected[field].shape
                    for shard in batch[field].addressable_shards:
                        np.testing.assert_array_equal(shard.data, expected[field][shard.index])
        print("ROWS", jax.process_index(), name, ",".join(map(str, loader.rows(0))))


if __name__ == "__main__":
    main(*sys.argv[1:])

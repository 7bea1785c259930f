"""One process of a job that holds a model together: `spread_process.py FOLDER PORT INDEX COUNT`.

Loads FOLDER/model onto the mesh, writes it again as model folder and repository, and loads the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np

from apertus_jax import sharding
from apertus_jax.errors import UserError
from apertus_jax.model import abstract_parameters, model_folder
from apertus_jax.model.model_folder import load_model, read_config, save_model
from apertus_jax.release import huggingface, load_huggingface, save_huggingface
from apertus_jax.storage.tensors import device_boxes

seen = [0]


def noting(leaf, box):
    """Takes a box off the mesh, and notes how many bytes it has."""
    values = device_boxes.read_box(leaf, box)
    seen.append(values.nbytes)
    return values


def main(folder: str, port: str, index: str, count: str) -> None:
    """Does all of it and prints what it saw."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", int(count), int(index))
    model_folder.read_box = huggingface.read_box = noting
    root = Path(folder)
    mesh = sharding.MeshConfig(data=1, fsdp=jax.device_count() // 2, tensor=2)
    config = read_config(root / "model")
    places = sharding.parameter_shardings(abstract_parameters(config), sharding.make_mesh(mesh), mesh.axis_rules())
    _, params = load_model(root / "model", shardings=places)
    assert not any(leaf.is_fully_addressable for leaf in jax.tree.leaves(params))
    save_model(root / "again", config, params)
    save_huggingface(root / "repository", config, params, dtype="bfloat16")
    jax.experimental.multihost_utils.sync_global_devices("written")
    _, narrow = load_huggingface(root / "repository", shardings=places)
    for one, other in zip(jax.tree.leaves(narrow), jax.tree.leaves(params), strict=True):
        for shard, wanted in zip(one.addressable_shards, other.addressable_shards, strict=True):
            rounded = np.asarray(wanted.data).astype(jax.numpy.bfloat16).astype(np.float32)
            assert np.array_equal(np.asarray(shard.data), rounded)
    try:
        load_model(root / "damaged", shardings=places)
        refused = "accepted"
    except UserError as error:
        refused = str(error)
    shard = max(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))
    print(f"RESULT {len(seen) > 20} {max(seen) <= shard} {refused}", flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

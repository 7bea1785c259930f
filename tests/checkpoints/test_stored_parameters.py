"""Parameters of a checkpoint are copied chunk by chunk: the bits that were saved, from any mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from apertus_jax.checkpoints import Checkpointer, stored_parameters
from apertus_jax.sharding import MeshConfig, make_mesh
from apertus_jax.storage.run_folder import step_folder
from apertus_jax.storage.tensors.reader import TensorReader
from apertus_jax.storage.tensors.writer import TensorSpec


@pytest.mark.parametrize("spec", [(None, "fsdp", "tensor"), (("fsdp", "tensor"),), ()])
def test_leaves_are_copied_chunk_by_chunk(tmp_path, monkeypatch, spec):
    values = np.random.default_rng(0).standard_normal((8, 12, 16)).astype(np.float32)
    place = NamedSharding(make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)), PartitionSpec(*spec))
    state = {"params": {"a": {"kernel": jax.device_put(values, place)}, "scalar": jax.device_put(np.float32(3))}}
    with Checkpointer(tmp_path / "steps") as checkpoints:
        checkpoints.save(7, state, {}, wait=True)
    largest = []
    chunks = stored_parameters._chunks
    monkeypatch.setattr(stored_parameters, "PIECE_BYTES", 100)
    monkeypatch.setattr(
        stored_parameters, "_chunks", lambda shape, chunk: largest.append(chunk) or chunks(shape, chunk)
    )
    specs = [TensorSpec("a/kernel", values.shape, values.dtype), TensorSpec("scalar", (), values.dtype)]
    leaves = {"a/kernel": ("params", "a", "kernel"), "scalar": ("params", "scalar")}
    folder = step_folder(tmp_path / "steps", 7) / "state"
    stored_parameters.copy_leaves(folder, leaves, specs, str(tmp_path / "model.safetensors"))
    assert len(largest) == 2 and np.prod(largest[0]) <= np.prod(place.shard_shape(values.shape))
    with TensorReader(tmp_path) as reader:
        assert reader.read("a/kernel").tobytes() == values.tobytes()
        assert reader.read("scalar") == 3

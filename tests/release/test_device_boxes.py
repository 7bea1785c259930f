"""Parameters to and from the mesh: the same bytes as from whole arrays, and never more than a shard at a time."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from apertus_jax import sharding
from apertus_jax.checkpoints import huggingface_repository
from apertus_jax.errors import UserError
from apertus_jax.model import abstract_parameters, model_folder
from apertus_jax.model.model_folder import load_model, save_model
from apertus_jax.release import export, huggingface, import_huggingface, load_huggingface, save_huggingface
from apertus_jax.sharding import MeshConfig
from apertus_jax.storage.tensors import device_boxes
from apertus_jax.storage.tensors.boxes import box_shape
from tests.model_parameters import random_parameters

MESH = MeshConfig(data=1, fsdp=4, tensor=2)


def shardings_of(config, mesh_config=MESH):
    """Returns where each parameter lies on a mesh of the eight devices."""
    mesh = sharding.make_mesh(mesh_config)
    return sharding.parameter_shardings(abstract_parameters(config), mesh, mesh_config.axis_rules())


def contents(folder):
    """Returns the bytes of every file of a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def on_mesh(config, params):
    return jax.device_put(params, shardings_of(config))


@pytest.fixture
def largest_bytes(monkeypatch):
    """Lists the bytes of every box that is taken off the mesh or read for a shard."""
    seen = []

    def noting(read):
        def note(leaf, box):
            values = read(leaf, box)
            seen.append(values.nbytes)
            return values

        return note

    for module in (model_folder, huggingface):
        monkeypatch.setattr(module, "read_box", noting(device_boxes.read_box))

    put = device_boxes.put_shards
    monkeypatch.setattr(
        device_boxes,
        "put_shards",
        lambda shape, dtype, place, read: put(shape, dtype, place, lambda box: noting(lambda _, b: read(b))(None, box)),
    )
    return seen


def largest_shard(tree):
    return max(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def same_bits(tree, expected):
    for name, leaf in flatten_dict(expected, sep="/").items():
        found = flatten_dict(tree, sep="/")[name]
        assert found.dtype == np.float32 and np.asarray(found).tobytes() == leaf.tobytes(), name


def test_model_of_a_mesh_has_the_bytes_of_whole_arrays(tmp_path, config, params, on_mesh, largest_bytes):
    save_model(tmp_path / "mesh", config, on_mesh)
    assert max(largest_bytes) <= largest_shard(on_mesh) < 8 * max(largest_bytes)
    save_model(tmp_path / "whole", config, params)
    assert contents(tmp_path / "mesh") == contents(tmp_path / "whole")
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    by_library = safetensors.numpy.save(flat, metadata={"format": "pt"})
    assert contents(tmp_path / "mesh")["parameters.safetensors"] == by_library


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_of_a_mesh_has_the_bytes_of_whole_arrays(tmp_path, config, params, on_mesh, largest_bytes, dtype):
    save_huggingface(tmp_path / "mesh", config, on_mesh, dtype=dtype, shard_bytes=50_000)
    assert max(largest_bytes) <= largest_shard(on_mesh)
    save_huggingface(tmp_path / "whole", config, params, dtype=dtype, shard_bytes=50_000)
    assert contents(tmp_path / "mesh") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "mesh")) > 6


def test_models_and_repositories_load_onto_the_mesh(tmp_path, config, params, on_mesh, largest_bytes):
    save_model(tmp_path / "model", config, params)
    save_huggingface(tmp_path / "repository", config, params)
    largest_bytes.clear()
    for found_config, found in (
        load_model(tmp_path / "model", shardings=shardings_of(config)),
        load_huggingface(tmp_path / "repository", shardings=shardings_of(config)),
    ):
        assert found_config == config
        same_bits(found, params)
        jax.tree.map(lambda leaf, wanted: leaf.sharding == wanted.sharding or pytest.fail(str(leaf)), found, on_mesh)
    assert 0 < max(largest_bytes) <= largest_shard(on_mesh)


def test_damaged_model_is_refused_on_the_mesh_too(tmp_path, config, params):
    save_model(tmp_path / "model", config, params)
    path = tmp_path / "model" / "parameters.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="parameters.safetensors has changed"):
        load_model(tmp_path / "model", shardings=shardings_of(config))


def test_commands_convert_without_the_whole_model(tmp_path, config, params, monkeypatch):
    save_model(tmp_path / "model", config, params)
    save_huggingface(tmp_path / "by_hand", config, params)
    for module in (model_folder, huggingface_repository):
        monkeypatch.setattr(module, "unflatten_dict", None)  # which a whole tree is made with
    export(tmp_path / "model", tmp_path / "repository")
    import_huggingface(tmp_path / "repository", tmp_path / "again")
    weights = "model.safetensors"
    assert contents(tmp_path / "repository")[weights] == contents(tmp_path / "by_hand")[weights]
    weights = "parameters.safetensors"
    assert contents(tmp_path / "again")[weights] == contents(tmp_path / "model")[weights]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", [(None, "fsdp", "tensor"), (("fsdp", "tensor"),), (), ("tensor", None, "fsdp")])
def test_every_bit_comes_through_the_sum_of_devices(spec, dtype):
    bits = np.random.default_rng(0).integers(0, 2**16, (8, 12, 16), np.uint16)
    bits[0, 0, :2] = 0x8000, 0x7FC1  # minus zero, and a NaN with something in it
    whole = np.repeat(bits, 2, axis=-1).view(np.float32) if dtype == "float32" else bits.view(jax.numpy.bfloat16)
    place = NamedSharding(sharding.make_mesh(MESH), PartitionSpec(*spec))
    leaf = jax.device_put(whole, place)
    for box in ((0, 8), (0, 12), (0, 16)), ((3, 5), (0, 12), (0, 16)), ((0, 8), (2, 7), (5, 16)), ((7, 8),) * 3:
        box = tuple(slice(*ends) for ends in box)
        for read in (device_boxes.read_box, device_boxes._box_of_all):
            found = read(leaf, box)
            assert found.shape == box_shape(box) and found.dtype == whole.dtype
            assert found.tobytes() == np.ascontiguousarray(whole[box]).tobytes()


def test_weights_that_are_not_finite_are_placed(tmp_path, config):
    flat = flatten_dict(random_parameters(config), sep="/")
    flat["layers/attention/query/kernel"][1, 7, 3, 5] = np.nan
    save_huggingface(tmp_path / "repository", config, unflatten_dict(flat, sep="/"))
    row = 3 * config.head_dim + 5
    with pytest.raises(UserError, match=rf"layers.1.self_attn.q_proj.weight .* nan at \[{row}, 7\]"):
        load_huggingface(tmp_path / "repository", shardings=shardings_of(config))

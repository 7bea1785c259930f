"""Promises of saving and restoring: what was saved comes back, onto any mesh, or a line says what does not fit."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from apertus_jax.checkpoints import Checkpointer, step_folders
from apertus_jax.checkpoints.step_folders import steps_to_remove
from apertus_jax.errors import UserError
from apertus_jax.sharding import MeshConfig, make_mesh
from apertus_jax.storage.run_folder import list_steps
from tests.checkpoints.saving_process import TrainState, state_of

SPECS = {
    "embedding": PartitionSpec("tensor", "fsdp"),
    "kernel": PartitionSpec(None, "fsdp", "tensor"),
    "scale": PartitionSpec(),
}
SHAPES = {"embedding": (16, 8), "kernel": (3, 8, 24), "scale": (8,)}
MESHES = {
    "one_device": (MeshConfig(data=1), 1),
    "fsdp_8": (MeshConfig(data=1, fsdp=8), 8),
    "fsdp_4_tensor_2": (MeshConfig(data=1, fsdp=4, tensor=2), 8),
    "data_2_fsdp_2_tensor_2": (MeshConfig(data=2, fsdp=2, tensor=2), 8),
}


def mesh_of(name):
    config, num_devices = MESHES[name]
    return make_mesh(config, jax.devices()[:num_devices])


def values():
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def sharded_state(mesh, seed_values):
    params = {name: jax.device_put(value, NamedSharding(mesh, SPECS[name])) for name, value in seed_values.items()}
    moments = jax.tree.map(lambda leaf: (leaf * leaf).astype(jnp.bfloat16), params)
    samples = jax.device_put(np.array([1, 2**32 - 1], np.uint32), NamedSharding(mesh, PartitionSpec()))
    return {"params": params, "moments": moments, "samples": samples}


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.fixture(scope="module")
def saved_on_every_mesh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    for name in MESHES:
        with Checkpointer(folder / name) as checkpointer:
            checkpointer.save(5, sharded_state(mesh_of(name), values()), {"mesh": name})
    return folder


@pytest.mark.parametrize("saved_on", MESHES)
@pytest.mark.parametrize("restored_on", MESHES)
def test_saved_on_one_mesh_restores_bit_for_bit_on_another(saved_on_every_mesh, saved_on, restored_on):
    expected = sharded_state(mesh_of(restored_on), values())
    with Checkpointer(saved_on_every_mesh / saved_on) as checkpointer:
        restored, metadata, step = checkpointer.restore(abstract(expected))
    assert_same(restored, expected)
    assert (metadata, step) == ({"mesh": saved_on}, 5)
    for left, right in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert left.sharding == right.sharding


def test_every_kind_of_leaf_and_container_comes_back(tmp_path):
    params = {"layers": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3)))
    state = {
        "train": TrainState(params, {"empty": {}}, jnp.uint32(2**32 - 1), np.int64(2**40 + 1)),
        "optimizer": optimizer.init(params),
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(8, impl="rbg"), 3),
        "low": jnp.asarray([1.5, -2.25], jnp.bfloat16),
        "host": np.arange(4, dtype=np.int64) << 40,
        "flag": np.bool_(True),
        "numbers": [3, 2.5, True],
    }
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {}, wait=True)
        restored, _, _ = checkpointer.restore(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for name in ("key", "keys"):
        assert restored[name].dtype == state[name].dtype
        assert np.array_equal(jax.random.key_data(restored.pop(name)), jax.random.key_data(state.pop(name)))
    for left, right in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert isinstance(left, type(right)) and np.asarray(left).dtype == np.asarray(right).dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def test_saved_values_are_those_at_the_call_not_later_ones(tmp_path):
    device = jnp.arange(1 << 20, dtype=jnp.float32)
    host = np.arange(1 << 16, dtype=np.int64)
    advance = jax.jit(lambda array: array * 2 + 1, donate_argnums=0)
    device = advance(device)
    expected = {"device": np.array(device), "host": host.copy()}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"device": device, "host": host}, {})
        host += 1
        for _ in range(20):
            device = advance(device)
        jax.block_until_ready(device)
        wanted = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in expected.items()}
        restored, _, _ = checkpointer.restore(wanted)
    assert_same(restored, expected)


def test_save_returns_before_the_checkpoint_is_written(tmp_path, monkeypatch):
    may_finish = threading.Event()
    digest_files = step_folders.digest_files

    def slow(*arguments):
        assert may_finish.wait(30)
        return digest_files(*arguments)

    monkeypatch.setattr(step_folders, "digest_files", slow)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.save(1, state_of(1), {})
        assert checkpointer.committed_steps() == []
        may_finish.set()
        checkpointer.wait()
        assert checkpointer.committed_steps() == [1]
        assert checkpointer.last_save.step == 1 and checkpointer.last_save.total_bytes > 0


def refused(checkpointer, wanted, **arguments):
    with pytest.raises(UserError) as raised:
        checkpointer.restore(wanted, **arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(4, state_of(4), {"samples": 32}, wait=True)
    return folder


def test_other_architecture_is_refused_with_leaf_and_shapes(small_checkpoint):
    state = state_of(4)
    wider = jax.ShapeDtypeStruct((3, 24, 32), jnp.float32)
    with Checkpointer(small_checkpoint) as checkpointer:
        message = refused(checkpointer, state._replace(params=state.params | {"layers": {"kernel": wider}}))
        assert "params/layers/kernel has shape (3, 24, 16) in the checkpoint and (3, 24, 32) here" in message
        message = refused(checkpointer, state._replace(params=state.params | {"bias": wider}))
        assert "params/bias (3, 24, 32) is part of this run and missing from the checkpoint" in message
        message = refused(checkpointer, state._replace(params={"scale": state.params["scale"]}))
        assert "params/layers/kernel (3, 24, 16) is in the checkpoint and no part of this run" in message


def test_another_dtype_is_refused_and_never_cast(small_checkpoint):
    state = state_of(4)
    lower = state._replace(params=state.params | {"scale": jax.ShapeDtypeStruct((16,), jnp.bfloat16)})
    with Checkpointer(small_checkpoint) as checkpointer:
        message = refused(checkpointer, lower)
        assert "params/scale is float32 in the checkpoint and bfloat16 here" in message
        message = refused(checkpointer, {"params": {"scale": lower.params["scale"]}}, partial=True)
        assert "params/scale is float32" in message


def test_part_of_a_state_can_be_restored_alone(small_checkpoint):
    state = state_of(4)
    with Checkpointer(small_checkpoint) as checkpointer:
        restored, metadata, step = checkpointer.restore({"params": state.params}, partial=True)
        assert_same(restored, {"params": state.params})
        assert (metadata, step) == ({"samples": 32}, 4) == checkpointer.read_metadata()
        assert "missing from the checkpoint" in refused(checkpointer, {"weights": state.params}, partial=True)


@pytest.mark.parametrize(
    ("committed", "newest", "keep_last", "keep_every", "removed"),
    [
        ([1, 2, 3, 4], 4, 2, None, [2, 1]),
        ([1, 2, 3, 4], 4, 1, None, [3, 2, 1]),
        ([10, 15, 20, 25, 30], 30, 1, 10, [25, 15]),
        ([10, 20, 30], 30, 5, 0, []),
        ([10, 20, 30, 40], 20, 1, None, [10]),
        ([5], 5, 1, None, []),
    ],
)
def test_retention_keeps_last_and_every_nth_step_so_far(committed, newest, keep_last, keep_every, removed):
    assert steps_to_remove(committed, newest, keep_last, keep_every) == removed


def test_retention_on_disk(tmp_path):
    with Checkpointer(tmp_path, keep_last=2, keep_every=3) as checkpointer:
        for step in range(1, 8):
            checkpointer.save(step, state_of(step), {})
        checkpointer.wait()
        assert checkpointer.valid_steps() == [3, 6, 7]
    with pytest.raises(UserError, match="keep_last=0"):
        Checkpointer(tmp_path, keep_last=0)


def test_step_half_removed_is_a_leftover_and_no_longer_counts(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state_of(1), {}, wait=True)
        monkeypatch.setattr(type(checkpointer.folder), "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            step_folders.remove_step(tmp_path, 1)
        assert checkpointer.committed_steps() == []
        assert list_steps(tmp_path, committed=False) == [1]


def test_valid_step_is_never_overwritten(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.save(1, state_of(1), {}, wait=True)
        assert not checkpointer.save(1, state_of(1), {})
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(UserError, match="step_0000000001 already holds a valid checkpoint of step 1"):
            checkpointer.save(1, state_of(2), {})
        checkpointer.restore(state_of(1))
        assert not checkpointer.save(1, state_of(1), {})


def test_reading_an_empty_folder_writes_nothing(tmp_path):
    with Checkpointer(tmp_path / "none") as checkpointer:
        assert checkpointer.latest_valid_step() is None and checkpointer.valid_steps() == []
    assert not (tmp_path / "none").exists()

"""A mesh for every topology, and the rows that each process must read for it: on devices recorded from libtpu."""

import dataclasses
import math

import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.sharding import MeshConfig, make_mesh, rows_of_process
from tests.sharding.fake_devices import RECORDED, gpu_devices, tpu_devices

MOST_PROCESSES = 16  # whose rows are compared, of each mesh


def rows_by_place(mesh, batch_size, process):
    """The rows of the places in the mesh, counted along data and fsdp, where devices of a process stand."""
    blocks = mesh.shape["data"] * mesh.shape["fsdp"]
    size = batch_size // blocks
    places = mesh.devices.reshape(blocks, -1)
    return [
        block * size + row
        for block in range(blocks)
        if any(device.process_index == process for device in places[block])
        for row in range(size)
    ]


def assert_rows_are_right(mesh, batch_size):
    """Every row lies with some process, and each process is told those of its devices."""
    processes = sorted({device.process_index for device in mesh.devices.flat})
    for process in processes[:: math.ceil(len(processes) / MOST_PROCESSES)]:
        rows = rows_of_process(mesh, batch_size, process)
        assert rows.dtype == np.int64 and rows.tolist() == rows_by_place(mesh, batch_size, process)
    if len(processes) <= MOST_PROCESSES:
        told = [rows_of_process(mesh, batch_size, process) for process in processes]
        assert np.array_equal(np.unique(np.concatenate(told)), np.arange(batch_size))


def extent(group):
    """The number of cores in the smallest box of the torus that holds a group of devices."""
    coords = np.array([(*device.coords, device.core_on_chip) for device in group])
    return int((coords.max(axis=0) - coords.min(axis=0) + 1).prod())


@pytest.mark.parametrize("topology", RECORDED)
def test_every_topology_has_every_mesh_with_its_rows(topology):
    devices = tpu_devices(topology)
    batch_size = 2 * len(devices)
    slices = len({device.slice_index for device in devices})
    for inner in ({"tensor": 1}, {"tensor": 2}, {"tensor": 4}, {"tensor": 8}, {"tensor": 2, "context": 2}):
        if len(devices) // slices % math.prod(inner.values()):
            continue
        config = MeshConfig(data=slices, fsdp=-1, **inner)
        mesh = make_mesh(config, devices)
        assert set(mesh.devices.flat) == set(devices)
        assert_rows_are_right(mesh, batch_size)
        # What moves most, the last axes, moves within a box of neighbours.
        for group in mesh.devices.reshape(-1, mesh.shape["tensor"] * mesh.shape["context"]):
            assert len({device.slice_index for device in group}) == 1
            assert extent(group) == len(group), (topology, inner)


@pytest.mark.parametrize("axis", ["data", "fsdp"])
@pytest.mark.parametrize(("topology", "slices"), [("v5p:4x4x4", 2), ("v5p:2x2x2", 4), ("v6e:16x16", 2), ("v5e:4x4", 3)])
def test_only_the_chosen_axis_leaves_a_slice(topology, slices, axis):
    devices = tpu_devices(topology, slices)
    sizes = {"data": slices, "fsdp": -1} if axis == "data" else {"data": 1, "fsdp": -1}
    mesh = make_mesh(MeshConfig(**sizes, tensor=2, across_slices=axis, slices=slices), devices)
    numbers = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    outer = np.moveaxis(numbers, ("data", "fsdp").index(axis), 0).reshape(slices, -1)
    assert np.array_equal(outer, np.repeat(np.arange(slices)[:, None], outer.shape[1], axis=1))
    assert_rows_are_right(mesh, 2 * len(devices))


@pytest.mark.parametrize("of_node", [4, 8])
def test_gpu_nodes_keep_tensor_inside_as_far_as_it_fits(of_node):
    devices = gpu_devices(16, of_node)
    for tensor in (1, 2, 4, 8, 16):
        mesh = make_mesh(MeshConfig(data=2, fsdp=-1, tensor=tensor), devices)
        nodes = {len({device.process_index for device in group}) for group in mesh.devices.reshape(-1, tensor)}
        assert nodes == {max(1, tensor // of_node)}
        assert_rows_are_right(mesh, len(devices))


def test_rows_may_be_apart_and_shared():
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1), tpu_devices("v5p:8x8x8"))
    rows = rows_of_process(mesh, 1024, 0)
    assert len(rows) == 8 and np.diff(rows).max() > 1
    shared = make_mesh(MeshConfig(data=1, fsdp=-1, tensor=8), gpu_devices(4, 4))
    told = [rows_of_process(shared, 4, process).tolist() for process in range(4)]
    assert told == [[0, 1], [0, 1], [2, 3], [2, 3]]


SLICES = tpu_devices("v5p:2x2x2", 2)
TORUS = tpu_devices("v5p:4x4x4")


@pytest.mark.parametrize(
    ("config", "devices", "message"),
    [
        (MeshConfig(data=-1), TORUS[:60], "slice 0 has 60 devices of kind TPU v5, and its torus of 4×4×4 chips has 64"),
        (MeshConfig(data=64), TORUS[:60], "makes a mesh of 64 devices, and there are 60"),
        (MeshConfig(fsdp=48), TORUS, "needs a multiple of 48 devices, and there are 64"),
        (MeshConfig(data=-1), SLICES[:12], "slice 1 has 4 devices and slice 0 has 8"),
        (MeshConfig(slices=2), SLICES[:8], "MeshConfig.slices=2 and the job has 1 [(]number 0[)]; start every slice"),
        (MeshConfig(slices=3), SLICES, "MeshConfig.slices=3 and the job has 2 [(]number 0, 1[)]"),
        (
            MeshConfig(data=1, fsdp=-1),
            SLICES,
            "joins 2 slices along data=1, which is no multiple of 2; change its size",
        ),
        (MeshConfig(slices=2), gpu_devices(2, 4), "MeshConfig.slices=2 is for TPUs and this is gpu"),
        (MeshConfig(), [dataclasses.replace(TORUS[0], core_on_chip=core) for core in (0, 1)], "no mesh of 2×1×1×1"),
    ],
)
def test_mesh_that_its_devices_cannot_make_is_one_line(config, devices, message):
    with pytest.raises(UserError, match=message) as raised:
        make_mesh(config, devices)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 450


def test_axis_across_slices_must_split_the_batch():
    with pytest.raises(UserError, match="MeshConfig.across_slices='tensor' must be one of"):
        MeshConfig(across_slices="tensor")
    with pytest.raises(UserError, match="MeshConfig.slices"):
        MeshConfig(slices=-1)

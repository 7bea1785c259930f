"""Device layout: which device stands where in the mesh, on tori of TPUs, over several slices, on nodes of GPUs."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils

from apertus_jax.errors import UserError
from apertus_jax.sharding.rules import MESH_AXES


def lay_out_devices(shape: Sequence[int], devices: Sequence[jax.Device], slices: int, across_slices: str) -> np.ndarray:
    """Returns the devices as an array of `shape`, neighbours along the last axes closest to each other.

    TPUs follow their torus, of which an axis may take a part of a dimension. Several slices are joined along one axis:
    its outer part runs over the network between them. Devices of other kinds are taken by their numbers, which go node
    by node on GPUs, so that the last axes stay within a node as long as they fit.

    Args:
      shape: sizes of `MESH_AXES`; their product is the number of devices.
      devices: those of all processes.
      slices: how many slices there must be; 0 for as many as there are.
      across_slices: the axis over the network between slices.

    Raises:
      UserError: a slice or a chip is missing, or the axis cannot be divided among the slices.
    """
    if devices[0].platform != "tpu":
        if slices > 1:
            raise UserError(f"MeshConfig.slices={slices} is for TPUs and this is {devices[0].platform}; leave it at 0")
        return mesh_utils.create_device_mesh(shape, devices)
    by_slice = _devices_by_slice(devices, slices)
    for number, members in by_slice.items():
        _refuse_gaps(number, members)
    axis, parts = MESH_AXES.index(across_slices), len(by_slice)
    if shape[axis] % parts:
        spelled = ", ".join(f"{name}={size}" for name, size in zip(MESH_AXES, shape, strict=True))
        raise UserError(
            f"the mesh of {spelled} joins {parts} slices along {across_slices}={shape[axis]}, which is no multiple of "
            f"{parts}; change its size, or MeshConfig.across_slices"
        )
    within = [size // parts if name == across_slices else size for name, size in zip(MESH_AXES, shape, strict=True)]
    try:
        layouts = [
            mesh_utils.create_device_mesh(within, members, allow_split_physical_axes=True)
            for members in by_slice.values()
        ]
    except (AssertionError, NotImplementedError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(
            f"no mesh of {'×'.join(map(str, within))} can be laid over {math.prod(within)} devices of kind "
            f"{devices[0].device_kind} ({told}); change the axis sizes"
        ) from error
    return np.concatenate(layouts, axis=axis)


def _devices_by_slice(devices: Sequence[Any], slices: int) -> dict[int, list[Any]]:
    """Returns the devices of each slice, by its number."""
    members: dict[int, list[Any]] = collections.defaultdict(list)
    for device in devices:
        members[getattr(device, "slice_index", None) or 0].append(device)
    sizes = {number: len(each) for number, each in sorted(members.items())}
    if slices and len(sizes) != slices:
        raise UserError(
            f"MeshConfig.slices={slices} and the job has {len(sizes)} (number {', '.join(map(str, sizes))}); start "
            "every slice, or change the number"
        )
    smallest, largest = min(sizes, key=lambda number: sizes[number]), max(sizes, key=lambda number: sizes[number])
    if sizes[smallest] != sizes[largest]:
        raise UserError(
            f"slice {smallest} has {sizes[smallest]} devices and slice {largest} has {sizes[largest]}; slices must be "
            "alike, start all processes of each"
        )
    return {number: members[number] for number in sizes}


def _refuse_gaps(number: int, devices: Sequence[Any]) -> None:
    """Raises UserError unless the devices of a slice are all those of a box of its torus."""
    chips = np.array([device.coords for device in devices])
    extent = chips.max(axis=0) - chips.min(axis=0) + 1
    cores = len({device.core_on_chip for device in devices})
    if len(devices) != extent.prod() * cores:
        raise UserError(
            f"slice {number} has {len(devices)} devices of kind {devices[0].device_kind}, and its torus of "
            f"{'×'.join(map(str, extent))} chips has {extent.prod() * cores}; start the processes of all of its chips"
        )

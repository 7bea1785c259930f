"""TPU topologies by name, such as v5p:8x8x8: chips that nobody needs to have, to lay meshes over and compile for."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from apertus_jax.errors import UserError
from apertus_jax.training.planning.chips import CHIPS, Chip

LARGEST_DIMENSION = 1024
LIBTPU_VARIABLES = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # no TPU here to ask for or to lock


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of a kind of chip, all of one shape.

    Attributes:
      chip: its name in `CHIPS`.
      shape: chips along each dimension of the torus of one slice.
      slices: how many.
    """

    chip: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def kind(self) -> Chip:
        """Figures of the chip."""
        return CHIPS[self.chip]

    @property
    def num_devices(self) -> int:
        """What JAX calls devices: chips, or their cores where it sees those."""
        return math.prod(self.shape) * self.kind.devices * self.slices


@dataclasses.dataclass(frozen=True)
class DrawnDevice:
    """A device that is not here: as much of it as laying out a mesh asks."""

    id: int
    coords: tuple[int, ...]
    core_on_chip: int
    slice_index: int
    device_kind: str
    platform: str = "tpu"


def topology_named(name: str) -> Topology:
    """Returns the topology of a name CHIP:AxB, CHIP:AxBxC or CHIP:AxBxC:SLICES.

    Raises:
      UserError: another form, an unknown chip, or a torus of more or fewer dimensions than its own.
    """
    form = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)(?::(\d+))?", name)
    if form is None:
        raise UserError(
            f"--topology={name} must be CHIP:AxBxC or CHIP:AxBxC:SLICES, for example v5p:8x8x8 or v6e:16x16:2"
        )
    if form[1] not in CHIPS:
        raise UserError(f"--topology={name} names the chip {form[1]!r}; known are {', '.join(CHIPS)}")
    shape, slices = tuple(map(int, form[2].split("x"))), int(form[3] or 1)
    dimensions = CHIPS[form[1]].dimensions
    if len(shape) != dimensions:
        example = "x".join(["4"] * dimensions)
        raise UserError(
            f"--topology={name}: {form[1]} has a torus of {dimensions} dimensions; write {form[1]}:{example}"
        )
    if not 1 <= min(shape) <= max(shape) <= LARGEST_DIMENSION or not 1 <= slices <= LARGEST_DIMENSION:
        raise UserError(f"--topology={name}: sizes and slices are from 1 to {LARGEST_DIMENSION}")
    return Topology(form[1], shape, slices)


def drawn_devices(topology: Topology) -> list[DrawnDevice]:
    """Returns devices with the coordinates of a topology, without libtpu: enough for a mesh, not for a compiler."""
    kind = topology.kind
    found: list[DrawnDevice] = []
    for number in range(topology.slices):
        for place in itertools.product(*(range(size) for size in reversed(topology.shape))):
            coords = (*reversed(place), *(0,) * (3 - len(place)))
            found += [DrawnDevice(len(found) + core, coords, core, number, kind.name) for core in range(kind.devices)]
    return found


def described_devices(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a topology as libtpu describes them: a program can be compiled for them.

    Raises:
      UserError: libtpu is not installed, or knows no such topology.
    """
    if not os.environ.get("TPU_LIBRARY_PATH") and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "--topology compiles with libtpu, which is not installed: pip install -r requirements-tpu.txt (no TPU is "
            "needed), or --gin.plan.compile=False for arithmetic alone"
        )
    from jax.experimental import topologies

    for name, value in LIBTPU_VARIABLES.items():
        os.environ.setdefault(name, value)
    spelled = f"{topology.chip}:{'x'.join(map(str, topology.shape))}"
    options = {"num_slices": topology.slices} if topology.slices > 1 else {}
    try:
        devices: Sequence[Any] = topologies.get_topology_desc(platform="tpu", topology_name=spelled, **options).devices
    except Exception as error:  # whatever type the plugin raises
        told = " ".join(str(error).split())[:200]
        raise UserError(f"libtpu describes no topology {spelled} with {topology.slices} slices ({told})") from error
    # Described are both cores of a v4 chip, which a job there has as one device.
    return [device for device in devices if device.core_on_chip < topology.kind.devices]


def torus_extents(mesh: Mesh, axis: str) -> tuple[int, ...]:
    """Returns over how many chips a mesh axis reaches in each dimension of the torus, within a slice."""
    devices: Any = np.moveaxis(mesh.devices, mesh.axis_names.index(axis), -1).reshape(-1, mesh.shape[axis])
    first: Sequence[Any] = [each for each in devices[0] if slice_of(each) == slice_of(devices[0][0])]
    places = np.array([each.coords for each in first])
    return tuple(int(size) for size in places.max(axis=0) - places.min(axis=0) + 1)


def slices_along(mesh: Mesh, axis: str) -> int:
    """Returns over how many slices a mesh axis reaches."""
    line: Any = np.moveaxis(mesh.devices, mesh.axis_names.index(axis), -1).reshape(-1, mesh.shape[axis])[0]
    return len({slice_of(each) for each in line})


def slice_of(device: Any) -> int:
    """Returns the number of the slice that a device belongs to."""
    return getattr(device, "slice_index", None) or 0

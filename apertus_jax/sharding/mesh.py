"""Device mesh: axis sizes, device order, and the context in which programs run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from apertus_jax.errors import UserError
from apertus_jax.sharding.device_layout import lay_out_devices
from apertus_jax.sharding.rules import BATCH_AXES, MESH_AXES, AxisRules, MeshAxes, resolve_rules
from apertus_jax.validation import fields_by_annotation, require_list, require_whole_number


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class MeshConfig:
    """Sizes of the mesh axes (at most one is -1: whatever is left) and the table of axis rules.

    `data` and `fsdp` split the batch (`fsdp` the parameters too), `tensor` splits heads, feedforward and vocabulary,
    `context` the sequence. `rules` is "auto", a preset of `apertus_jax.sharding.PRESETS`, or a whole table of
    (array axis, mesh axis) pairs; `rule_overrides` replaces single entries of it. On TPUs of several slices the mesh
    axis `across_slices`, "data" or "fsdp", runs over the network between them; `slices` is how many there must be, 0
    for as many as there are.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    context: int = 1
    rules: str | Sequence[tuple[str, MeshAxes]] = "auto"
    rule_overrides: Sequence[tuple[str, MeshAxes]] = ()
    across_slices: str = "data"
    slices: int = 0

    def __post_init__(self) -> None:
        # Which sizes make a mesh is for `mesh_shape` to say, which knows the devices.
        for axis in MESH_AXES:
            require_whole_number(f"MeshConfig.{axis}", getattr(self, axis))
        if not isinstance(self.rules, str):
            require_pairs("MeshConfig.rules", self.rules)
        require_pairs("MeshConfig.rule_overrides", self.rule_overrides)
        if self.across_slices not in BATCH_AXES:
            raise UserError(f"MeshConfig.across_slices={self.across_slices!r} must be one of {BATCH_AXES}")
        require_whole_number("MeshConfig.slices", self.slices, at_least=0)

    def axis_rules(self, platform: str | None = None) -> AxisRules:
        """Returns the resolved table for `platform` ("cpu", "gpu", "tpu"; default: where JAX runs)."""
        return resolve_rules(self.rules, platform or jax.default_backend(), self.rule_overrides)


def require_pairs(name: str, value: Any) -> None:
    """Raises UserError unless `value` is a list of (array axis, mesh axis or axes or None) pairs."""
    require_list(name, value)
    for pair in value:
        fits = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
        if not fits or not isinstance(pair[1], str | tuple | list | None):
            raise UserError(f"{name} holds {pair!r}; each entry is a pair like ('embed', 'fsdp') or ('embed', None)")


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, ...]:
    """Returns the sizes of `MESH_AXES` for `num_devices` devices, -1 resolved.

    Raises:
      UserError: a size is not positive, more than one is -1, or the sizes do not divide the devices.
    """
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    spelled = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise UserError(f"MeshConfig({spelled}) leaves {' and '.join(free)} open; at most one axis may be -1")
    if any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(f"MeshConfig({spelled}) has an axis below 1; sizes are positive, or -1 for what is left")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free:
        if num_devices % fixed:
            raise UserError(
                f"MeshConfig({spelled}) needs a multiple of {fixed} devices, and there are {num_devices}; "
                "change the axis sizes"
            )
        sizes[free[0]] = num_devices // fixed
    elif fixed != num_devices:
        raise UserError(
            f"MeshConfig({spelled}) makes a mesh of {fixed} devices, and there are {num_devices}; "
            "change the axis sizes or set one of them to -1"
        )
    return tuple(sizes.values())


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of `config` over `devices` (default: all), with axes `data, fsdp, tensor, context`.

    The axes are of type Auto: with JAX's present default, Explicit, Linen's logical constraints assert instead of
    resharding.

    Raises:
      UserError: the mesh does not fit the number of devices, or a chip or a slice is missing; see `lay_out_devices`.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(config, len(devices))
    layout = lay_out_devices(shape, devices, config.slices, config.across_slices)
    return Mesh(layout, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


@contextlib.contextmanager
def logical_axis_rules(rules: AxisRules) -> Iterator[None]:
    """Makes `rules` the table that Linen's logical constraints look up."""
    with nn.logical_axis_rules(rules):
        yield


@contextlib.contextmanager
def use_mesh(mesh: Mesh, rules: AxisRules) -> Iterator[Mesh]:
    """Runs a block under a mesh and its table: constraints on named axes take effect inside."""
    with jax.set_mesh(mesh), logical_axis_rules(rules):
        yield mesh


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding that keeps an array whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of every array of a batch: the leading axis over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def rows_of_process(mesh: Mesh, batch_size: int, process_index: int | None = None) -> np.ndarray:
    """Returns which rows of a batch lie on the devices of a process (default: this one): int64[R], ascending.

    They need not follow one another, and processes share rows where `tensor` or `context` spans them.

    Raises:
      UserError: the batch does not divide over the mesh.
    """
    check_batch(mesh, batch_size)
    bounds = {
        index[0].indices(batch_size)[:2]
        for device, index in batch_sharding(mesh).devices_indices_map((batch_size,)).items()
        if device.process_index == (jax.process_index() if process_index is None else process_index)
    }
    return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in sorted(bounds)])


def check_batch(mesh: Mesh | AbstractMesh, batch_size: int, sequence_length: int | None = None) -> None:
    """Checks that a batch divides over the mesh.

    Raises:
      UserError: the batch does not divide by data × fsdp, or the sequence by context; the message has the numbers.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size % parts:
        raise UserError(
            f"a batch of {batch_size} sequences does not divide over {parts} devices "
            f"(data={mesh.shape['data']} × fsdp={mesh.shape['fsdp']}); make the batch a multiple of {parts}"
        )
    if sequence_length is not None and sequence_length % mesh.shape["context"]:
        raise UserError(
            f"a sequence length of {sequence_length} does not divide over context={mesh.shape['context']}; "
            "change one of them"
        )

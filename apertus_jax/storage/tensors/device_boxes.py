"""Boxes of arrays, to and from the mesh: no host and no device holds a leaf that is spread over devices whole.

Out of the mesh: of a leaf that one process holds, a box is put together on the host from the pieces of its shards. Of a
leaf that is spread over processes, each device lays its part of the box into zeros and all add up what they have, as
integers, so that every bit comes through: twice the box on each device, once on the host.

Onto the mesh: each device gets its shard, read from wherever the values are, one shard at a time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, ReadBox, box_of, box_shape, overlap, seen_from

# XLA gives a device twice a piece to add it up, four times at worst: a shard in all.
PIECES_OF_A_SHARD = 4
_BITS = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}


def is_spread(leaf: Any) -> bool:
    """Returns whether a leaf has parts that this process does not hold."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def piece_bytes(leaves: Iterable[Any]) -> int:
    """Returns how much of a leaf is taken at a time: little beside a shard of the largest, arrays or abstract."""
    largest = max((shard_bytes(leaf) for leaf in leaves), default=PIECE_BYTES)
    return min(PIECE_BYTES, -(-largest // PIECES_OF_A_SHARD))


def shard_bytes(leaf: Any) -> int:
    """Returns the bytes of one device's part of an array, or of all of one without a sharding."""
    sharding = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return math.prod(shape) * np.dtype(leaf.dtype).itemsize


def read_box(leaf: Any, box: Box) -> np.ndarray:
    """Returns what is in a box of a leaf, on the host. Every process calls it for a leaf that is spread over several.

    Raises:
      ValueError: a leaf that is spread over several processes without a mesh, or of one-byte numbers.
    """
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)[box]
    if not leaf.is_fully_addressable:
        return _box_of_all(leaf, box)
    values = np.empty(box_shape(box), leaf.dtype)
    for shard in leaf.addressable_shards:
        place = box_of(shard.index, leaf.shape)
        common = overlap(place, box) if shard.replica_id == 0 else None
        if common is not None:
            starts = [np.int32(part.start) for part in seen_from(common, place)]
            piece = _slice(shard.data, starts, box_shape(common))
            values[seen_from(common, box)] = np.asarray(piece)
    return values


@functools.partial(jax.jit, static_argnums=2)
def _slice(values: jax.Array, starts: list[jax.Array], sizes: tuple[int, ...]) -> jax.Array:
    return lax.dynamic_slice(values, starts, sizes)


def _box_of_all(leaf: jax.Array, box: Box) -> np.ndarray:
    if not isinstance(leaf.sharding, NamedSharding) or leaf.dtype.itemsize not in _BITS:
        raise ValueError(f"a {leaf.dtype} array of {leaf.sharding} cannot be read in boxes")
    starts = np.array([part.start for part in box], np.int32)
    summed = _gatherer(leaf.sharding, leaf.shape, leaf.dtype, box_shape(box))(leaf, starts)
    # Waiting keeps a process that writes nothing from asking for more pieces than there is room for.
    bits = np.asarray(jax.block_until_ready(summed).addressable_data(0))
    return bits.astype(_BITS[leaf.dtype.itemsize], copy=False).view(leaf.dtype)


def _summed(dtype: np.dtype) -> Any:
    """Returns the integer type that the bits of a type are added up in; networks of hosts do not know short ones."""
    return _BITS[max(dtype.itemsize, 4)]


@functools.lru_cache(maxsize=256)
def _gatherer(
    sharding: NamedSharding, shape: tuple[int, ...], dtype: np.dtype, sizes: tuple[int, ...]
) -> Callable[[jax.Array, np.ndarray], jax.Array]:
    """Returns the program that gives every device the bits of a box of `sizes` that begins at `starts` [axes]."""
    mesh = sharding.mesh
    spec = tuple(sharding.spec) + (None,) * (len(shape) - len(sharding.spec))
    split = [() if names is None else names if isinstance(names, tuple) else (names,) for names in spec]
    used = tuple(name for names in split for name in names)
    local = sharding.shard_shape(shape)
    # First the axes that shrink: nothing on the way is larger than the shard or the box.
    order = sorted(range(len(shape)), key=lambda axis: sizes[axis] / local[axis])

    def part(values: jax.Array, starts: jax.Array) -> jax.Array:
        bits = lax.bitcast_convert_type(values, _BITS[dtype.itemsize])
        for axis in order:
            offset = lax.axis_index(split[axis]) * local[axis] if split[axis] else 0
            whole = sizes[axis] == shape[axis]
            if not split[axis] and not whole:
                bits = lax.dynamic_slice_in_dim(bits, starts[axis], sizes[axis], axis)
            elif split[axis]:
                bits = _taken(bits, axis, starts[axis] - offset, sizes[axis], whole)
        return lax.psum(bits.astype(_summed(dtype)), used) if used else bits.astype(_summed(dtype))

    everywhere = PartitionSpec()
    mapped = jax.shard_map(part, mesh=mesh, in_specs=(sharding.spec, everywhere), out_specs=everywhere, check_vma=False)
    return jax.jit(mapped)


def _taken(bits: jax.Array, axis: int, start: jax.Array, size: int, whole: bool) -> jax.Array:
    """Returns `size` elements of a split axis from `start` on (`whole`: all), zeros where this device has none."""
    length = bits.shape[axis]

    def zeros(count: int) -> jax.Array:
        return jnp.zeros((*bits.shape[:axis], count, *bits.shape[axis + 1 :]), bits.dtype)

    if whole:
        return lax.dynamic_update_slice_in_dim(zeros(size), bits, -start, axis)
    # A window of what is here is laid into zeros with room on both sides, where all that was not asked for is cut off.
    width = min(size, length)
    first = jnp.clip(start, 0, length - width)
    window = lax.dynamic_slice_in_dim(bits, first, width, axis)
    place = jnp.clip(first - start + width, 0, size + width)
    laid = lax.dynamic_update_slice_in_dim(zeros(size + 2 * width), window, place, axis)
    return lax.slice_in_dim(laid, width, width + size, axis=axis)


def put_shards(
    shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding, read: Callable[[Box], np.ndarray]
) -> jax.Array:
    """Returns an array on the devices of `sharding`; this process reads the shards of its own, one at a time."""
    parts, last = [], None
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        box = box_of(index or (), shape)
        if last is None or last[0] != box:
            last = box, read(box).astype(dtype, copy=False)
        # Replicas that follow each other are read once. The host's copy goes before the next shard comes.
        parts.append(jax.block_until_ready(jax.device_put(last[1], device)))
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def put_arrays(
    shapes: Mapping[str, tuple[int, ...]], shardings: Mapping[str, Sharding], read: ReadBox
) -> dict[str, jax.Array]:
    """Returns float32 parameters by path on the devices of their shardings, read shard by shard."""
    return {
        path: put_shards(shape, np.dtype(np.float32), shardings[path], functools.partial(read, path))
        for path, shape in shapes.items()
    }

"""Parameters of a checkpoint, copied from its chunks into one tensor file, so that they can be read in boxes.

A chunk is what one device of the run held of a leaf. It lies in the file as a whole, so a box that crosses chunks would
read each of them again and again; here every chunk is read once, and no more than one is in memory.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorstore as ts
from etils import epath

from apertus_jax.checkpoints.leaves import LeafPath
from apertus_jax.storage.listing import is_local
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, boxes_within, c_strides, moved
from apertus_jax.storage.tensors.reader import let_go
from apertus_jax.storage.tensors.writer import TensorSpec, lay_out


def copy_leaves(state: epath.Path, leaves: Mapping[str, LeafPath], specs: Sequence[TensorSpec], path: str) -> None:
    """Writes leaves of a checkpoint, which the caller has verified, as the tensors of one file.

    Args:
      state: the folder that Orbax wrote.
      leaves: tensor name → path of the leaf in the state.
      specs: names, shapes and types; those of the leaves.
      path: the file, local.

    Raises:
      OSError: there is no room for the file.
      ValueError: a leaf is not stored as this reader knows it.
    """
    offsets = lay_out(path, specs)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        for spec in specs:
            _copy_leaf(_open_leaf(state, leaves[spec.name]), spec, mapped, offsets[spec.name])


def _open_leaf(state: epath.Path, leaf: LeafPath) -> ts.TensorStore:
    base = f"file://{os.path.abspath(state)}" if is_local(state) else os.fspath(state)
    kvstore = {"driver": "ocdbt", "base": f"{base.rstrip('/')}/", "path": f"{'.'.join(leaf)}/"}
    return ts.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result()


def _copy_leaf(stored: ts.TensorStore, spec: TensorSpec, mapped: mmap.mmap, offset: int) -> None:
    if stored.shape != spec.shape or stored.dtype.numpy_dtype != spec.dtype:
        raise ValueError(f"{spec.name} is stored as {stored.dtype}{stored.shape}, not {spec.dtype}{spec.shape}")
    target = np.ndarray(spec.shape, spec.dtype, buffer=mapped, offset=offset)
    strides = c_strides(spec.shape, spec.dtype.itemsize)
    layout = stored.chunk_layout.read_chunk.shape or spec.shape
    grid = [chunk or size for size, chunk in zip(spec.shape, layout, strict=True)]
    for chunk in _chunks(spec.shape, grid):
        values = stored[chunk].read().result()
        for part in boxes_within(values.shape, strides, spec.dtype.itemsize, PIECE_BYTES):
            place = moved(part, [each.start for each in chunk])
            target[place] = values[part]
            let_go(mapped, offset, strides, spec.dtype.itemsize, place)
    del target  # the map cannot be closed before


def _chunks(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[Box]:
    """Returns the boxes of a grid, cut off where the array ends."""
    starts = itertools.product(*(range(0, size, step) for size, step in zip(shape, chunk, strict=True)))
    for start in starts:
        yield tuple(
            slice(first, min(first + step, size)) for first, step, size in zip(start, chunk, shape, strict=True)
        )

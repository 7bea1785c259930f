"""Safetensors files, read by ranges: of a tensor only the box that was asked for comes into memory.

Files are mapped, and the pages that were touched are let go again after each piece, so that what has been read once
does not count as memory of this process. Folders on object stores go through a local scratch copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import mmap
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import safetensors
from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.listing import is_local, regular_file
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, box_shape, boxes_within, c_strides, moved, whole_box
from apertus_jax.storage.tensors.writer import FLOAT_DTYPES, HEADER_LENGTH, INDEX_SUFFIX, SUFFIX

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Place of a tensor: the map of its file, the byte from which on it lies there, and what it is."""

    file: mmap.mmap
    offset: int
    shape: tuple[int, ...]
    code: str


def check_memory(wanted_bytes: int, what: str) -> None:
    """Checks that this machine could hold so many bytes at all, before they are allocated.

    Raises:
      UserError: it cannot.
    """
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return
    if wanted_bytes > there:
        raise UserError(
            f"{what} takes {wanted_bytes / 1e9:,.1f} GB and this machine has {there / 1e9:,.1f} GB of memory; "
            "use a machine with more, or check the sizes in its configuration"
        )


class TensorReader:
    """The tensors of a folder, read by boxes. Use as a context manager.

    Raises:
      UserError: no tensor files, an index that names a missing file, or a file that is damaged.
    """

    def __init__(self, folder: epath.PathLike, stem: str = "model"):
        self.folder = epath.Path(folder)
        self._exits = contextlib.ExitStack()
        self._stored: dict[str, _Stored] = {}
        self._said_rounded = False
        single = self.folder / (stem + SUFFIX)
        index = self.folder / (stem + INDEX_SUFFIX)
        if single.exists() and index.exists():
            raise UserError(f"{self.folder} holds both {single.name} and {index.name}; remove the one that is stale")
        if not single.exists() and not index.exists():
            raise UserError(f"{self.folder} holds neither {single.name} nor {index.name}; give a complete folder")
        self._file_of = self._read_index(index) if index.exists() else {}
        for file_name in sorted(set(self._file_of.values())) or [single.name]:
            self._open(file_name)

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stored.clear()
        self._exits.close()

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without reading its data."""
        return self._stored[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Returns the element type of a tensor.

        Raises:
          UserError: the type is not a floating type (a quantised checkpoint).
        """
        code = self._stored[name].code
        if code not in FLOAT_DTYPES:
            raise UserError(
                f"tensor {name} in {self.folder} has element type {code}; "
                f"only {', '.join(FLOAT_DTYPES)} weights can be read"
            )
        return FLOAT_DTYPES[code]

    def read(self, name: str, box: Box | None = None, axes: Sequence[int] | None = None) -> np.ndarray:
        """Returns a tensor, or what is in a box of it, as a NumPy array of the type it is stored in.

        Args:
          name: of the tensor.
          box: which part; None for all of it.
          axes: the shape that the box is of, when it is a finer one than the stored: same elements in the same order.
        """
        stored, dtype = self._stored[name], self.dtype(name)
        shape = stored.shape if axes is None else tuple(axes)
        box = whole_box(shape) if box is None else box
        mapped = np.ndarray(shape, dtype, buffer=stored.file, offset=stored.offset)
        values = np.empty(box_shape(box), dtype)
        strides = c_strides(shape, dtype.itemsize)
        for part in boxes_within(values.shape, strides, dtype.itemsize, PIECE_BYTES):
            place = moved(part, [each.start for each in box])
            values[part] = mapped[place]
            let_go(stored.file, stored.offset, strides, dtype.itemsize, place)
        return values

    def read_weights(self, name: str, box: Box | None = None, axes: Sequence[int] | None = None) -> np.ndarray:
        """Returns what `read` does as float32. Narrower types widen exactly; float64 is rounded where it must be.

        Raises:
          UserError: a value is not finite.
        """
        stored = self.read(name, box, axes)
        with np.errstate(over="ignore"):
            weights = stored.astype(np.float32, copy=False)
        # Both extremes are NaN where any element is, and infinite where one is: no second array is needed.
        if weights.size and not (math.isfinite(weights.min()) and math.isfinite(weights.max())):
            inside = tuple(map(int, np.argwhere(~np.isfinite(weights))[0]))
            place = self._place(name, inside, box, axes)
            raise UserError(
                f"tensor {name} in {self.folder} holds {float(stored[inside])!r} at {place}, which is no float32 "
                "number; the weights are damaged, or training had diverged: take an earlier checkpoint"
            )
        if stored.dtype == np.float64 and not self._said_rounded and not np.array_equal(weights, stored):
            self._said_rounded = True
            _log.warning("%s holds float64 values that float32 lacks (tensor %s); they are rounded", self.folder, name)
        return weights

    def _place(self, name: str, inside: tuple[int, ...], box: Box | None, axes: Sequence[int] | None) -> list[int]:
        """Returns the position in the stored tensor of one in a box of it."""
        shape = self.shape(name)
        finer = shape if axes is None else tuple(axes)
        first = [part.start for part in (whole_box(finer) if box is None else box)]
        flat = sum((a + b) * stride for a, b, stride in zip(first, inside, c_strides(finer, 1), strict=True))
        return [int(index) for index in np.unravel_index(flat, shape)]

    def _read_index(self, path: epath.Path) -> dict[str, str]:
        try:
            weight_map = read_json_object(path)["weight_map"]
            file_of = {str(name): str(file_name) for name, file_name in weight_map.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not a safetensors index ({error}); fetch it again") from error
        for file_name in sorted(set(file_of.values())):
            if pathlib.PurePosixPath(file_name).name != file_name or not (self.folder / file_name).exists():
                shown = file_name if len(file_name) < 99 else f"{file_name[:99]}…"
                raise UserError(f"{path} names the shard {shown!r}, which is not in the folder; fetch it again")
        return file_of

    def _open(self, file_name: str) -> None:
        path = regular_file(self.folder / file_name)
        local = self._exits.enter_context(_local_source(path))
        try:
            with safetensors.safe_open(local, framework="np") as file:
                found = set(file.keys())
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is truncated or damaged ({error}); fetch or export it again") from error
        header, repeated, start = _read_header(local)
        if repeated is not None:
            raise UserError(f"{path} describes the tensor {repeated!r} twice; fetch or export it again")
        for name in found:
            if self._file_of.setdefault(name, file_name) != file_name:
                raise UserError(f"tensor {name} is in {file_name} but the index of {self.folder} puts it elsewhere")
        missing = sorted(name for name, owner in self._file_of.items() if owner == file_name and name not in found)
        if missing:
            raise UserError(f"{path} lacks the tensor {missing[0]} that the index promises; fetch it again")
        with open(local, "rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        for name in found:
            entry = header[name]
            place = start + entry["data_offsets"][0]
            self._stored[name] = _Stored(mapped, place, tuple(entry["shape"]), entry["dtype"])


def let_go(mapped: mmap.mmap, offset: int, strides: Sequence[int], itemsize: int, box: Box) -> None:
    """Tells the system that the pages of a box are not needed in memory now; what was written to them is not lost.

    The tensor begins at byte `offset` of the map and has `strides` in bytes.
    """
    if 0 in box_shape(box) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = offset + sum(part.start * stride for part, stride in zip(box, strides, strict=True))
    last = offset + sum((part.stop - 1) * stride for part, stride in zip(box, strides, strict=True)) + itemsize
    start = first - first % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, start, last - start)


def _read_header(path: str) -> tuple[dict[str, Any], str | None, int]:
    """Returns the header of a file, a name that it gives twice (readers differ then) or None, and where data begins.

    The library has checked the rest: length of the header, and that the tensors fill the file without gap or overlap.
    """
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            repeated.append(next(name for place, name in enumerate(names) if name in names[:place]))
        return dict(pairs)

    with open(path, "rb") as file:
        (length,) = HEADER_LENGTH.unpack(file.read(HEADER_LENGTH.size))
        header = json.loads(file.read(length), object_pairs_hook=note)
    return header, repeated[0] if repeated else None, HEADER_LENGTH.size + length


@contextlib.contextmanager
def _local_source(path: epath.Path) -> Iterator[str]:
    if is_local(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = epath.Path(scratch) / path.name
        path.copy(local, overwrite=True)
        yield os.fspath(local)

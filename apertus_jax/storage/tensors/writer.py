"""Safetensors files, written in pieces: of no tensor more than a piece is in memory.

The layout is the one Hugging Face readers know: `NAME.safetensors`, or `NAME-00001-of-00003.safetensors` and so on with
`NAME.safetensors.index.json`. A tensor is never split over files. The bytes are those that the safetensors library
writes: the header in compact JSON, filled up with spaces to a multiple of eight bytes, then the tensors without gaps,
wider types first, by name among those of one type. Files for object stores are written to a local scratch copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import ml_dtypes
import numpy as np
from etils import epath

from apertus_jax.storage.listing import is_local
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, ReadBox, box_shape, consecutive_boxes

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
HEADER_LENGTH = struct.Struct("<Q")
HEADER_ALIGNMENT = 8
# In the order in which their tensors follow each other in a file.
FLOAT_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
CODES = {dtype: code for code, dtype in FLOAT_DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Name, shape and element type of a tensor that is going to be written.

    Attributes:
      name, shape, dtype: as readers see them.
      axes: the shape that boxes of it are cut in, when it is a finer one; same elements in the same order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[int, ...] | None = None

    @property
    def num_elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """The bytes of data, without the file's header."""
        return self.num_elements * self.dtype.itemsize

    def boxes(self, limit_bytes: int) -> Iterator[Box]:
        """Cuts the tensor into boxes of at most `limit_bytes`, in the order of the file."""
        return consecutive_boxes(self.shape if self.axes is None else self.axes, self.dtype.itemsize, limit_bytes)


def plan_shards(specs: Sequence[TensorSpec], shard_bytes: float) -> list[list[TensorSpec]]:
    """Splits `specs`, in order, into runs of at most `shard_bytes`; a tensor larger than that gets a run of its own."""
    shards: list[list[TensorSpec]] = [[]]
    used = 0
    for spec in specs:
        if shards[-1] and used + spec.num_bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(spec)
        used += spec.num_bytes
    return shards


def write_tensors(
    folder: epath.PathLike | None,
    specs: Sequence[TensorSpec],
    read: ReadBox,
    shard_bytes: float = 5e9,
    stem: str = "model",
    piece_bytes: int = PIECE_BYTES,
) -> list[str]:
    """Writes the tensors of `specs` to `folder` and returns the names of the files.

    Args:
      folder: an existing folder; None on a process that only takes part in the reading.
      specs: what is written.
      read: name and box → the values there, of the type promised by the spec; called in the same order everywhere.
      shard_bytes: largest number of tensor bytes in one file.
      stem: first part of the file names.
      piece_bytes: largest number of bytes that are read at a time.

    Raises:
      OSError: a file could not be written.
    """
    shards = plan_shards(specs, shard_bytes)
    if len(shards) == 1:
        names = [stem + SUFFIX]
    else:
        names = [f"{stem}-{number:05d}-of-{len(shards):05d}{SUFFIX}" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        ordered = _in_file_order(shard)
        with _local_target(epath.Path(folder) / name) if folder is not None else contextlib.nullcontext() as file:
            if file is not None:
                file.write(_header(ordered))
            for spec in ordered:
                for box in spec.boxes(piece_bytes):
                    piece = _checked(spec, box, read(spec.name, box))
                    if file is not None:
                        file.write(piece)
    if len(shards) > 1:
        if folder is not None:
            placed = {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard}
            (epath.Path(folder) / (stem + INDEX_SUFFIX)).write_text(_index(specs, placed))
        names = [*names, stem + INDEX_SUFFIX]
    return names


def lay_out(path: str, specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Makes one local file of its full size, with a header and without values; returns where each tensor begins.

    Raises:
      OSError: there is no room for it.
    """
    ordered = _in_file_order(specs)
    header = _header(ordered)
    offsets, end = {}, len(header)
    for spec in ordered:
        offsets[spec.name] = end
        end += spec.num_bytes
    with open(path, "wb") as file:
        file.write(header)
        file.flush()
        os.posix_fallocate(file.fileno(), 0, end)  # a map of a file with holes is killed where the disk is full
    return offsets


def _in_file_order(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    return sorted(specs, key=lambda spec: (list(CODES).index(spec.dtype), spec.name))


def _index(specs: Sequence[TensorSpec], weight_map: dict[str, str]) -> str:
    sizes = {
        "total_size": sum(spec.num_bytes for spec in specs),
        "total_parameters": sum(spec.num_elements for spec in specs),
    }
    return json.dumps({"metadata": sizes, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"


def _header(specs: Sequence[TensorSpec]) -> bytes:
    """Returns what a file begins with; `specs` in the order of their data."""
    fields: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        end = offset + spec.num_bytes
        fields[spec.name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return HEADER_LENGTH.pack(len(text)) + text


def _checked(spec: TensorSpec, box: Box, values: np.ndarray) -> memoryview:
    """Returns the bytes of a piece, in C order, after checking that it is what the spec promised."""
    if values.shape != box_shape(box) or values.dtype != spec.dtype:
        raise ValueError(f"{spec.name}: {values.dtype}{values.shape} was read for {spec.dtype}{box_shape(box)}")
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def _local_target(path: epath.Path) -> Iterator[IO[bytes]]:
    """Opens a new file for writing; what an error leaves half-written is removed."""
    if not is_local(path):
        with tempfile.TemporaryDirectory() as scratch:
            local = epath.Path(scratch) / path.name
            with open(local, "wb") as file:
                yield file
            local.copy(path, overwrite=True)
        return
    try:
        with open(path, "wb") as file:
            yield file
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise

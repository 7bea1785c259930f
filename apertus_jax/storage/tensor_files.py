"""Named tensors in safetensors files: written shard by shard, read one tensor at a time.

The layout is the one Hugging Face readers know: `NAME.safetensors`, or `NAME-00001-of-00003.safetensors` and so on with
`NAME.safetensors.index.json`. A tensor is never split. Only one shard is held in memory while writing and only one
tensor while reading. Folders on object stores go through a local scratch copy, because safetensors maps files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.listing import is_local, regular_file

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
HEADER_LENGTH = struct.Struct("<Q")
OS_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")
FLOAT_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Name, shape and element type of a tensor that is going to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """The bytes of data, without the file's header."""
        return self.num_elements * self.dtype.itemsize


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
    folder: epath.PathLike,
    specs: Sequence[TensorSpec],
    fetch: Callable[[str], np.ndarray],
    shard_bytes: float = 5e9,
    stem: str = "model",
) -> list[str]:
    """Writes the tensors of `specs` to `folder` and returns the names of the files.

    Args:
      folder: an existing folder.
      specs: what is written, in this order.
      fetch: name → array of exactly the shape and dtype promised by the spec; called once per tensor, shard by shard.
      shard_bytes: largest number of tensor bytes in one file.
      stem: first part of the file names.
    """
    root = epath.Path(folder)
    shards = plan_shards(specs, shard_bytes)
    if len(shards) == 1:
        names = [stem + SUFFIX]
    else:
        names = [f"{stem}-{number:05d}-of-{len(shards):05d}{SUFFIX}" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        tensors = {spec.name: _fetch_checked(spec, fetch) for spec in shard}
        with _local_target(root / name) as target:
            _save_shard(tensors, target)
    if len(shards) > 1:
        index = {
            "metadata": {
                "total_size": sum(spec.num_bytes for spec in specs),
                "total_parameters": sum(spec.num_elements for spec in specs),
            },
            "weight_map": {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard},
        }
        (root / (stem + INDEX_SUFFIX)).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
        names = [*names, stem + INDEX_SUFFIX]
    return names


def _save_shard(tensors: Mapping[str, np.ndarray], target: str) -> None:
    """Writes one file with the mode that the umask gives; the library makes its files for their owner alone.

    Raises:
      OSError: the file could not be written, as the operating system says it.
    """
    path = pathlib.Path(target)
    path.touch()
    mode = path.stat().st_mode
    try:
        safetensors.numpy.save_file(dict(tensors), target, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        path.unlink(missing_ok=True)
        number = OS_ERROR_NUMBER.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), target) from error
    path.chmod(mode)


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
    """The tensors of a folder, read one by one. Use as a context manager.

    Raises:
      UserError: no tensor files, an index that names a missing file, or a file that is damaged.
    """

    def __init__(self, folder: epath.PathLike, stem: str = "model"):
        self.folder = epath.Path(folder)
        self._exits = contextlib.ExitStack()
        self._open_files: dict[str, safetensors.safe_open] = {}
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
        self._open_files.clear()
        self._exits.close()

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without reading its data."""
        return tuple(self._file(name).get_slice(name).get_shape())

    def dtype(self, name: str) -> np.dtype:
        """Returns the element type of a tensor.

        Raises:
          UserError: the type is not a floating type (a quantised checkpoint).
        """
        code = self._file(name).get_slice(name).get_dtype()
        if code not in FLOAT_DTYPES:
            raise UserError(
                f"tensor {name} in {self.folder} has element type {code}; "
                f"only {', '.join(FLOAT_DTYPES)} weights can be read"
            )
        return FLOAT_DTYPES[code]

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor as a NumPy array of the type it is stored in."""
        return self._file(name).get_tensor(name)

    def read_weights(self, name: str) -> np.ndarray:
        """Returns one tensor as float32. Narrower types widen exactly; float64 that float32 cannot hold is rounded.

        Raises:
          UserError: a value is not finite.
        """
        stored = self.read(name)
        with np.errstate(over="ignore"):
            weights = stored.astype(np.float32, copy=False)
        # Both extremes are NaN where any element is, and infinite where one is: no second array is needed.
        if weights.size and not (math.isfinite(weights.min()) and math.isfinite(weights.max())):
            place = tuple(map(int, np.argwhere(~np.isfinite(weights))[0]))
            raise UserError(
                f"tensor {name} in {self.folder} holds {float(stored[place])!r} at {list(place)}, which is no float32 "
                "number; the weights are damaged, or training had diverged: take an earlier checkpoint"
            )
        if stored.dtype == np.float64 and not self._said_rounded and not np.array_equal(weights, stored):
            self._said_rounded = True
            _log.warning("%s holds float64 values that float32 lacks (tensor %s); they are rounded", self.folder, name)
        return weights

    def _file(self, name: str) -> safetensors.safe_open:
        return self._open_files[self._file_of[name]]

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
            file = safetensors.safe_open(local, framework="np")
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is truncated or damaged ({error}); fetch or export it again") from error
        twice = _repeated_name(local)
        if twice is not None:
            raise UserError(f"{path} describes the tensor {twice!r} twice; fetch or export it again")
        self._open_files[file_name] = file
        found = set(file.keys())
        for name in found:
            if self._file_of.setdefault(name, file_name) != file_name:
                raise UserError(f"tensor {name} is in {file_name} but the index of {self.folder} puts it elsewhere")
        missing = sorted(name for name, owner in self._file_of.items() if owner == file_name and name not in found)
        if missing:
            raise UserError(f"{path} lacks the tensor {missing[0]} that the index promises; fetch it again")


def _fetch_checked(spec: TensorSpec, fetch: Callable[[str], np.ndarray]) -> np.ndarray:
    # safetensors writes the memory of a transposed view as it lies, so the copy to C order is not an optimisation.
    array = np.asarray(fetch(spec.name), order="C")
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise ValueError(f"{spec.name}: {array.dtype}{array.shape} was fetched for {spec.dtype}{spec.shape}")
    return array


def _repeated_name(path: str) -> str | None:
    """Returns a name that the header of a file, which the library has read already, gives twice; readers differ then.

    The library has checked the rest: length of the header, and that the tensors fill the file without gap or overlap.
    """
    repeated: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            repeated.append(next(name for place, name in enumerate(names) if name in names[:place]))
        return {}

    with open(path, "rb") as file:
        (length,) = HEADER_LENGTH.unpack(file.read(HEADER_LENGTH.size))
        json.loads(file.read(length), object_pairs_hook=note)
    return repeated[0] if repeated else None


@contextlib.contextmanager
def _local_target(path: epath.Path) -> Iterator[str]:
    if is_local(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = epath.Path(scratch) / path.name
        yield os.fspath(local)
        local.copy(path, overwrite=True)


@contextlib.contextmanager
def _local_source(path: epath.Path) -> Iterator[str]:
    if is_local(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = epath.Path(scratch) / path.name
        path.copy(local, overwrite=True)
        yield os.fspath(local)

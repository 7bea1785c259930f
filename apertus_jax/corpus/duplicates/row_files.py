"""Rows uint64[n, columns] on disk, read in blocks: spooling, groups of equal keys, joins of sorted streams."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np


class RowFile:
    """A temporary file of rows that is written once and read any number of times."""

    def __init__(self, blocks: Iterable[np.ndarray], columns: int, folder: str | os.PathLike, block_rows: int):
        self.columns = columns
        self.count = 0
        self._block_rows = block_rows
        digest = hashlib.blake2b(digest_size=16)
        with tempfile.NamedTemporaryFile(dir=os.fspath(folder), prefix="rows-", delete=False) as file:
            for block in blocks:
                block = np.ascontiguousarray(block)
                digest.update(block.data)
                block.tofile(file)
                self.count += len(block)
        self._path = Path(file.name)
        self.digest = digest.digest()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the rows in the order in which they were written."""
        with self._path.open("rb") as file:
            while len(block := np.fromfile(file, np.uint64, self._block_rows * self.columns)):
                yield block.reshape(-1, self.columns)

    def delete(self) -> None:
        """Removes the file."""
        self._path.unlink()


def grouped(blocks: Iterable[np.ndarray], keys: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (block, first rows, ranks) of sorted rows; rows whose first `keys` columns are equal are a group.

    `first rows` uint64[n, columns] repeats for each row the first row of its group, `ranks` int64[n] count within the
    group from 0. Groups may be longer than blocks.
    """
    head: np.ndarray | None = None
    before = 0
    for block in blocks:
        starts = np.ones(len(block), bool)
        starts[1:] = (block[1:, :keys] != block[:-1, :keys]).any(axis=1)
        continued = head is not None and bool((block[0, :keys] == head[:keys]).all())
        starts[0] = not continued
        positions = np.arange(len(block))
        start = np.maximum.accumulate(np.where(starts, positions, -1))
        heads, ranks = block[np.maximum(start, 0)], positions - start
        if continued:
            rest = start < 0
            heads[rest] = head
            ranks[rest] = positions[rest] + before
        head, before = heads[-1], int(ranks[-1]) + 1
        yield block, heads, ranks


def group_sizes(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields rows uint64[n, 2] of (key, number of rows) for rows sorted by their first column."""
    key, size = None, 0
    for block in blocks:
        keys, counts = np.unique(block[:, 0], return_counts=True)
        if key is not None and keys[0] == key:
            counts[0] += size
        elif key is not None:
            yield np.array([[key, size]], np.uint64)
        key, size = keys[-1], int(counts[-1])
        if len(keys) > 1:
            yield np.stack([keys[:-1], counts[:-1].astype(np.uint64)], axis=1)
    if key is not None:
        yield np.array([[key, size]], np.uint64)


class SortedLookup:
    """Finds ascending keys in a stream of rows that is sorted by a first column without repetition."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = (block for block in blocks if len(block))
        self._block = next(self._blocks, None)

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (found bool[n], values uint64[n]): the second column of the row of each key, or of a lone first one.

        Keys ascend within a call and from call to call; repeated keys are allowed. Values of absent keys are 0.
        """
        found = np.zeros(len(keys), bool)
        values = np.zeros(len(keys), np.uint64)
        start = 0
        while start < len(keys) and self._block is not None:
            column = self._block[:, 0]
            stop = int(np.searchsorted(keys, column[-1], "right"))
            if stop > start:
                rows = np.searchsorted(column, keys[start:stop])
                found[start:stop] = column[rows] == keys[start:stop]
                values[start:stop] = np.where(found[start:stop], self._block[rows, -1], np.uint64(0))
                start = stop
            if start < len(keys):
                self._block = next(self._blocks, None)
        return found, values


def rebatched(blocks: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Yields the same rows in blocks of exactly `rows`, the last one shorter."""
    pending: list[np.ndarray] = []
    size = 0
    for block in blocks:
        while size + len(block) >= rows:
            cut = rows - size
            yield np.concatenate([*pending, block[:cut]])
            pending, size, block = [], 0, block[cut:]
        if len(block):
            pending.append(block)
            size += len(block)
    if size:
        yield np.concatenate(pending)

"""External merge sort: sorted runs on disk, merged in blocks, for more rows than fit in memory.

Rows are uint64[n, columns] and are ordered by all columns from the first to the last, so the result depends on the
set of rows alone: neither on the order in which they came nor on the memory.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from apertus_jax.errors import UserError

SMALLEST_MEMORY = 1 << 16
FAN_IN = 64
# Sorting a buffer needs its copy, the order and the ties beside it.
BUFFER_SHARE = 5


def sort_rows(rows: np.ndarray) -> np.ndarray:
    """Returns rows uint64[n, columns] ordered by all their columns."""
    if len(rows) < 2:
        return rows
    rows = rows[np.argsort(rows[:, 0])]
    same = rows[1:, 0] == rows[:-1, 0]
    if rows.shape[1] > 1 and same.any():
        tied = np.zeros(len(rows), bool)
        tied[1:] |= same
        tied[:-1] |= same
        group = rows[tied]
        rows[tied] = group[np.lexsort(group.T[::-1])]
    return rows


class RowSorter:
    """Sorts rows that are added in any order; holds at most about `memory_bytes`.

    `add` any number of times, then iterate once over `sorted_blocks`. With `distinct`, equal rows become one.
    """

    def __init__(self, columns: int, folder: str | os.PathLike, memory_bytes: int, distinct: bool = False):
        if memory_bytes < SMALLEST_MEMORY:
            raise UserError(f"memory_bytes is {memory_bytes}; give at least {SMALLEST_MEMORY}")
        self._columns = columns
        self._folder = folder
        self._distinct = distinct
        self._memory = memory_bytes
        self._buffer = np.empty((max(memory_bytes // BUFFER_SHARE // (8 * columns), 1024), columns), np.uint64)
        self._filled = 0
        self._runs: list[Path] = []

    def add(self, rows: np.ndarray) -> None:
        """Adds rows uint64[n, columns]."""
        start = 0
        while start < len(rows):
            count = min(len(rows) - start, len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = rows[start : start + count]
            self._filled += count
            start += count
            if self._filled == len(self._buffer):
                self._spill()

    def sorted_blocks(self) -> Iterator[np.ndarray]:
        """Yields all rows in order, in blocks, and deletes the runs behind it."""
        if not self._runs:
            rows = self._ordered(self._buffer[: self._filled])
            del self._buffer
            if len(rows):
                yield rows
            return
        if self._filled:
            self._spill()
        del self._buffer
        try:
            while len(self._runs) > FAN_IN:
                merged = self._write_run(self._merge(self._runs[:FAN_IN]))
                for run in self._runs[:FAN_IN]:
                    run.unlink()
                self._runs = [*self._runs[FAN_IN:], merged]
            yield from self._merge(self._runs)
        finally:
            for run in self._runs:
                with contextlib.suppress(FileNotFoundError):
                    run.unlink()

    def _ordered(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows sorted, and each once when rows are to be distinct."""
        rows = sort_rows(rows)
        if self._distinct and len(rows) > 1:
            rows = rows[np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1)))]
        return rows

    def _spill(self) -> None:
        """Writes the buffer as a run."""
        self._runs.append(self._write_run([self._ordered(self._buffer[: self._filled])]))
        self._filled = 0

    def _write_run(self, blocks: Iterable[np.ndarray]) -> Path:
        """Writes sorted blocks to a new file of the work folder and returns its path."""
        with tempfile.NamedTemporaryFile(dir=os.fspath(self._folder), prefix="run-", delete=False) as file:
            for block in blocks:
                np.ascontiguousarray(block).tofile(file)
        return Path(file.name)

    def _merge(self, runs: list[Path]) -> Iterator[np.ndarray]:
        """Yields the rows of sorted runs in order.

        Each round takes from every run the rows up to the smallest last row in memory: at least one run is used up
        and read further, and nothing that is still on disk can come before what was taken.
        """
        block_rows = max(self._memory // BUFFER_SHARE // (8 * self._columns * len(runs)), 64)
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(run.open("rb")) for run in runs]
            buffers = [self._read(file, block_rows) for file in files]
            while any(len(buffer) for buffer in buffers):
                bound = min(tuple(buffer[-1].tolist()) for buffer in buffers if len(buffer))
                taken = []
                for number, buffer in enumerate(buffers):
                    count = rows_up_to(buffer, bound)
                    taken.append(buffer[:count])
                    buffers[number] = buffer[count:] if count < len(buffer) else self._read(files[number], block_rows)
                yield self._ordered(np.concatenate(taken))

    def _read(self, file, block_rows: int) -> np.ndarray:
        """Reads the next rows of a run; none at its end."""
        return np.fromfile(file, np.uint64, block_rows * self._columns).reshape(-1, self._columns)


def rows_up_to(rows: np.ndarray, bound: tuple[int, ...]) -> int:
    """Returns how many of the sorted rows are not larger than `bound`."""
    low, high = 0, len(rows)
    for column, value in enumerate(bound):
        part, sought = rows[low:high, column], np.uint64(value)
        low, high = low + int(np.searchsorted(part, sought, "left")), low + int(np.searchsorted(part, sought, "right"))
    return high

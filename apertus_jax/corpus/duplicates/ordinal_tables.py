"""Parquet tables that are sorted by document ordinal, and their joins with the documents of a unit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from apertus_jax.corpus.duplicates.row_files import rebatched
from apertus_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_GROUP = 1 << 16
YES_OR_NO = ("exact", "survives")


def write_ordinal_table(path: str | os.PathLike, columns: Sequence[str], blocks: Iterable[np.ndarray]) -> int:
    """Writes rows uint64[n, columns], sorted by their first column, as int64 and bool columns; returns how many.

    The bytes depend on the rows alone, not on the blocks in which they come.
    """
    import pyarrow
    import pyarrow.parquet

    kinds = [pyarrow.bool_() if name in YES_OR_NO else pyarrow.int64() for name in columns]
    schema = pyarrow.schema(list(zip(columns, kinds, strict=True)))
    count = 0
    with pyarrow.parquet.ParquetWriter(os.fspath(path), schema, compression="zstd") as writer:
        for block in rebatched(blocks, ROWS_PER_GROUP):
            arrays = [
                pyarrow.array(block[:, number].astype(bool if name in YES_OR_NO else np.int64))
                for number, name in enumerate(columns)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), row_group_size=ROWS_PER_GROUP)
            count += len(block)
    return count


class OrdinalTable:
    """Reads a table sorted by `ordinal`: a range of it touches only the row groups that can hold it."""

    def __init__(self, path: str | os.PathLike):
        import pyarrow.parquet

        if not os.path.exists(path):
            raise UserError(f"{path} does not exist; run the aggregation of `prepare` again")
        self._file = pyarrow.parquet.ParquetFile(os.fspath(path))
        metadata = self._file.metadata
        self.num_rows = metadata.num_rows
        statistics = [metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups)]
        self._first = np.array([entry.min for entry in statistics], np.int64)
        self._last = np.array([entry.max for entry in statistics], np.int64)

    def between(self, first: int, stop: int) -> pyarrow.Table:
        """Returns the rows whose ordinals are in [first, stop)."""
        groups = np.flatnonzero((self._last >= first) & (self._first < stop)).tolist()
        table = self._file.read_row_groups(groups)
        ordinals = table.column("ordinal").to_numpy()
        low, high = np.searchsorted(ordinals, [first, stop])
        return table.slice(low, high - low)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the whole table as rows uint64[n, columns] in order."""
        # One row group at a time: an iterator over all of them keeps what it has read in memory.
        for group in range(len(self._first)):
            columns = self._file.read_row_group(group).columns
            yield np.stack([column.to_numpy().astype(np.uint64) for column in columns], axis=1)

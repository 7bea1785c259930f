"""Deterministic Parquet tables, written and read row by row: the same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from etils import epath

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_GROUP = 8192


class TableWriter:
    """Writes rows to one Parquet file in groups of a fixed size, so that batching does not show in the bytes."""

    def __init__(self, path: epath.PathLike, schema: pyarrow.Schema):
        """Opens the file."""
        import pyarrow.parquet

        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._file = epath.Path(path).open("wb")
        self._writer = pyarrow.parquet.ParquetWriter(self._file, schema, compression="zstd")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Appends rows and returns how many they were."""
        self._rows.extend(rows)
        while len(self._rows) >= ROWS_PER_GROUP:
            self._flush(ROWS_PER_GROUP)
        return len(rows)

    def write_group(self, table: pyarrow.Table) -> None:
        """Writes a whole row group at once; not to be mixed with `write`."""
        self._writer.write_table(table.cast(self._schema), row_group_size=ROWS_PER_GROUP)

    def _flush(self, count: int) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows[:count], schema=self._schema))
        del self._rows[:count]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what is left and closes the file."""
        try:
            if self._rows:
                self._flush(len(self._rows))
        finally:
            self._writer.close()
            self._file.close()


def row_groups(path: epath.PathLike, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
    """Streams the row groups of a Parquet file, all columns or those of these that it has."""
    import pyarrow.parquet

    with epath.Path(path).open("rb") as file:
        parquet = pyarrow.parquet.ParquetFile(file)
        # Group by group: reading in batches holds on to all that was read (measured, pyarrow 25).
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=None if columns is None else list(columns))


def read_rows(path: epath.PathLike, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Streams the rows of a Parquet file, all columns or some."""
    for group in row_groups(path, columns):
        yield from group.to_pylist()


def column_arrays(path: epath.PathLike, columns: Sequence[str]) -> Iterator[tuple[list[Any], ...]]:
    """Streams a Parquet file in row groups, one list for each of these columns."""
    for group in row_groups(path, columns):
        yield tuple(group.column(name).to_pylist() for name in columns)

"""Snapshot table: Parquet parts sorted by (authority, scheme) in small row groups, and a sparse index.

One row group is what a look-up reads: at most ROWS_PER_GROUP rows and about BYTES_PER_GROUP of bodies. The index holds
the first key of each row group, so that it is a hundredth of the table and finds any host with one read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.corpus.robots_snapshot.responses import RobotsRecord

if TYPE_CHECKING:
    import pyarrow

KIND = "robots_snapshot"
INDEX_FILE = "index.parquet"
ROWS_PER_GROUP = 128
BYTES_PER_GROUP = 1 << 20
GROUPS_PER_PART = 256


def part_name(part: int) -> str:
    """Returns the file name of a part of the table."""
    return f"robots-{part:05d}.parquet"


def snapshot_schema() -> pyarrow.Schema:
    """Returns the columns of a snapshot table.

    Source: docs/reference/data.md §1.5.
    """
    import pyarrow

    return pyarrow.schema(
        [
            ("authority", pyarrow.string()),
            ("scheme", pyarrow.string()),
            ("fetched_at", pyarrow.timestamp("ms", tz="UTC")),
            ("http_status", pyarrow.int32()),
            ("redirects", pyarrow.list_(pyarrow.string())),
            ("final_url", pyarrow.string()),
            ("body_sha256", pyarrow.string()),
            ("body", pyarrow.binary()),
            ("truncated", pyarrow.bool_()),
            ("error_kind", pyarrow.string()),
        ]
    )


def index_schema() -> pyarrow.Schema:
    """Returns the columns of the sparse index: the first key of each row group, and where the group lies."""
    import pyarrow

    keys = [("authority", pyarrow.string()), ("scheme", pyarrow.string())]
    return pyarrow.schema([*keys, ("part", pyarrow.int32()), ("row_group", pyarrow.int32())])


class TableWriter:
    """Writes records, given in the order of (authority, scheme), as parts and index into a folder."""

    def __init__(
        self, folder: epath.Path, rows_per_group: int = ROWS_PER_GROUP, groups_per_part: int = GROUPS_PER_PART
    ):
        self._folder = folder
        self._rows_per_group, self._groups_per_part = rows_per_group, groups_per_part
        self._rows: list[RobotsRecord] = []
        self._bytes = 0
        self._index: list[tuple[str, str, int, int]] = []  # authority, scheme, part, row group
        self._file: Any = None
        self._writer: Any = None
        self._previous = ("", "")

    def write(self, records: Iterable[RobotsRecord]) -> None:
        """Writes all records and the index.

        Raises:
          ValueError: two records have one key, or they are out of order.
        """
        try:
            for record in records:
                self._add(record)
            self._flush()
        finally:
            self._close_part()
        self._write_index()

    def _add(self, record: RobotsRecord) -> None:
        key = record.authority, record.scheme
        if key <= self._previous:
            raise ValueError(f"robots records are out of order at {key}")
        self._previous = key
        self._rows.append(record)
        self._bytes += len(record.body)
        if len(self._rows) >= self._rows_per_group or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        part, group = divmod(len(self._index), self._groups_per_part)
        if group == 0:
            self._open_part(part)
        table = _as_table(self._rows)
        self._writer.write_table(table, row_group_size=len(self._rows))
        self._index.append((self._rows[0].authority, self._rows[0].scheme, part, group))
        self._rows, self._bytes = [], 0

    def _open_part(self, part: int) -> None:
        import pyarrow.parquet

        self._close_part()
        self._file = (self._folder / part_name(part)).open("wb")
        self._writer = pyarrow.parquet.ParquetWriter(
            self._file,
            snapshot_schema(),
            compression="zstd",
            use_dictionary=["scheme", "error_kind"],
            write_statistics=["authority"],
        )

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
        self._writer = self._file = None

    def _write_index(self) -> None:
        import pyarrow
        import pyarrow.parquet

        schema = index_schema()
        columns = zip(*self._index, strict=True) if self._index else [()] * len(schema)
        arrays = [pyarrow.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
        with (self._folder / INDEX_FILE).open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.table(arrays, schema=schema), file, compression="zstd")


def _as_table(rows: list[RobotsRecord]) -> pyarrow.Table:
    import pyarrow

    columns = {name: [getattr(row, name) for row in rows] for name in snapshot_schema().names}
    columns["fetched_at"] = [None if seconds is None else seconds * 1000 for seconds in columns["fetched_at"]]
    return pyarrow.table(
        [pyarrow.array(columns[field.name], field.type) for field in snapshot_schema()], schema=snapshot_schema()
    )

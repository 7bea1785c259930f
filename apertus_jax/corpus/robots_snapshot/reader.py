"""Reader of a snapshot by host, without loading the table."""

from __future__ import annotations

import bisect
import collections
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.corpus.robots_snapshot.responses import RobotsRecord
from apertus_jax.corpus.robots_snapshot.table import INDEX_FILE, KIND, index_schema, part_name, snapshot_schema
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.parquet_columns import require_columns, require_values

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

OPEN_PARTS = 16
NEVER_EMPTY = ("authority", "scheme", "redirects", "body", "truncated")
KEPT_GROUPS = 32  # about 1 MiB each at most


class RobotsSnapshot:
    """A committed snapshot folder, open for look-ups. Holds the sparse index and a bounded number of row groups.

    Look-ups in the order of (authority, scheme) read each row group once. `row_groups_read` counts the reads.
    """

    def __init__(self, folder: epath.PathLike):
        """Opens a snapshot.

        Raises:
          UserError: the folder is not a complete snapshot, or a file of it is damaged.
        """
        import pyarrow.parquet

        self.folder = epath.Path(folder)
        # Read whole and checked: a damaged body could change a verdict without being noticed.
        self.manifest: dict[str, Any] = artifacts.verify(self.folder, KIND)
        self.as_of: str = self.manifest["summary"]["as_of"]
        self.digest: str = self.manifest["digest"]
        self.row_groups_read = 0
        try:
            with (self.folder / INDEX_FILE).open("rb") as file:
                index = pyarrow.parquet.read_table(file).combine_chunks()
            require_columns(index.schema, index_schema(), self.folder / INDEX_FILE)
            require_values(index, index_schema().names, self.folder / INDEX_FILE)
            self._keys = _Keys(index["authority"], index["scheme"])
            self._parts, self._groups = index["part"], index["row_group"]
        except (OSError, KeyError, pyarrow.ArrowException) as error:
            raise UserError(f"{self.folder / INDEX_FILE} cannot be read ({error}); build the snapshot again") from error
        self._open: collections.OrderedDict[int, pyarrow.parquet.ParquetFile] = collections.OrderedDict()
        self._kept: collections.OrderedDict[int, tuple[list[str], list[str], pyarrow.Table]] = collections.OrderedDict()

    def record(self, authority: str, scheme: str) -> RobotsRecord | None:
        """Returns the row of an authority as `parse_web_address` spells it, or None.

        Raises:
          UserError: the row group cannot be read.
        """
        position = bisect.bisect_right(self._keys, (authority, scheme)) - 1
        if position < 0:
            return None
        authorities, schemes, table = self._group(position)
        row = bisect.bisect_left(authorities, authority)
        while row < len(authorities) and authorities[row] == authority:
            if schemes[row] == scheme:
                return _as_record(table.slice(row, 1).to_pylist()[0])
            row += 1
        return None

    def _group(self, position: int) -> tuple[list[str], list[str], pyarrow.Table]:
        """Returns the authorities, the schemes and the rows of one row group."""
        import pyarrow

        if position in self._kept:
            self._kept.move_to_end(position)
            return self._kept[position]
        part, group = self._parts[position].as_py(), self._groups[position].as_py()
        try:
            table = self._part(part).read_row_group(group)
        except (OSError, IndexError, pyarrow.ArrowException) as error:
            raise UserError(
                f"{self.folder / part_name(part)}, row group {group} cannot be read ({error}); build the snapshot again"
            ) from error
        require_values(table, NEVER_EMPTY, self.folder / part_name(part))
        self.row_groups_read += 1
        found = table["authority"].to_pylist(), table["scheme"].to_pylist(), table
        self._kept[position] = found
        if len(self._kept) > KEPT_GROUPS:
            self._kept.popitem(last=False)
        return found

    def _part(self, part: int) -> pyarrow.parquet.ParquetFile:
        import pyarrow.parquet

        if part not in self._open:
            if len(self._open) >= OPEN_PARTS:
                self._open.popitem(last=False)[1].close(force=True)
            path = self.folder / part_name(part)
            opened = pyarrow.parquet.ParquetFile(path.open("rb"))
            require_columns(opened.schema_arrow, snapshot_schema(), path)
            self._open[part] = opened
        self._open.move_to_end(part)
        return self._open[part]


class _Keys:
    """The first keys of all row groups as a sequence that binary search can index; they stay packed in Arrow."""

    def __init__(self, authorities: pyarrow.ChunkedArray, schemes: pyarrow.ChunkedArray):
        self._authorities, self._schemes = authorities, schemes

    def __len__(self) -> int:
        return len(self._authorities)

    def __getitem__(self, position: int) -> tuple[str, str]:
        return self._authorities[position].as_py(), self._schemes[position].as_py()


def _as_record(row: dict[str, Any]) -> RobotsRecord:
    fetched_at = row["fetched_at"]
    return RobotsRecord(
        authority=row["authority"],
        scheme=row["scheme"],
        fetched_at=None if fetched_at is None else int(fetched_at.timestamp()),
        http_status=row["http_status"],
        redirects=tuple(row["redirects"]),
        final_url=row["final_url"],
        body=row["body"],
        truncated=row["truncated"],
        error_kind=row["error_kind"],
    )

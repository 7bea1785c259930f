"""Verification notes: what `verify` has found to hold, and progress of long work.

Each package says how its own folders are checked: a function of a folder and `Notes` that raises UserError at the
first thing that is damaged, and notes what it has seen to be whole.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json_lines, read_json
from apertus_jax.storage.listing import list_files, regular_file

Item = TypeVar("Item")
LARGEST_JSON = 1 << 30
TEXT_SUFFIXES = (".html", ".md", ".gin", ".txt", ".csv", ".jinja")
RECORDED_AFTERWARDS = ("operative_config.gin",)


@dataclasses.dataclass
class Notes:
    """Rows (folder, what was checked, how much of it), in the order of checking."""

    rows: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    track: Callable[[Iterable[Any], str, int | None], Iterator[Any]] = lambda items, what, total: iter(items)

    def add(self, folder: epath.PathLike, what: str, amount: str) -> None:
        """Notes that `what` of a folder holds."""
        self.rows.append((os.fspath(folder), what, amount))


def check_digests(
    root: epath.Path,
    manifest: dict[str, Any],
    notes: Notes,
    without: tuple[str, ...] = (),
    open_to_more: bool = False,
) -> None:
    """Reads every committed file of a folder, compares its digest, and looks for files that were never committed.

    Args:
      root: the folder.
      manifest: its marker's content.
      notes: what is told of it.
      without: folders in it that have markers of their own.
      open_to_more: files that were added are noted, not refused.

    Raises:
      UserError: a file is missing, of another size, or has changed; or a file that is no record was added.
    """
    files, total = manifest["files"], 0
    for name in notes.track(sorted(files), f"reading {root.name}", len(files)):
        total += artifacts.check_committed(root / name, files[name], manifest["kind"])
    notes.add(root, "digests", f"{len(files)} files, {total:,} bytes")
    for name in RECORDED_AFTERWARDS:
        if os.path.lexists(root / name) and name not in files:
            _read_text(root / name)
    added = [name for name in list_files(root, every_name=True) if name not in files]
    added = [name for name in added if name.partition("/")[0] not in without and name not in RECORDED_AFTERWARDS]
    if added and open_to_more:
        notes.add(root, "not committed", ", ".join(added[:5]) + (f" and {len(added) - 5} more" if added[5:] else ""))
    elif added:
        raise UserError(f"{root / added[0]} was added after the folder was committed; move it elsewhere")


def check_contents(root: epath.Path, names: Iterable[str], notes: Notes) -> None:
    """Reads files by what their names say they are: JSON, JSON lines, Parquet, text.

    Raises:
      UserError: a file is not what its name says.
    """
    counts = {"JSON": 0, "lines of JSON": 0, "rows of Parquet": 0, "texts": 0}
    for name in names:
        path = root / name
        if name.endswith(".json"):
            read_json(path, max_bytes=LARGEST_JSON, allow_nan=True)
            counts["JSON"] += 1
        elif name.endswith(".jsonl"):
            with path.open("rb") as lines:
                counts["lines of JSON"] += sum(1 for _ in parse_json_lines(lines, str(path), allow_nan=True))
        elif name.endswith(".parquet"):
            counts["rows of Parquet"] += sum(batch.num_rows for batch in parquet_batches(path))
        elif name.endswith(TEXT_SUFFIXES):
            _read_text(path)
            counts["texts"] += 1
    notes.add(root, "contents", ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "none")


def parquet_batches(path: epath.Path, columns: list[str] | None = None) -> Iterator[Any]:
    """Streams the record batches of a Parquet file.

    Raises:
      UserError: it cannot be read, or lacks one of the columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with regular_file(path).open("rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            missing = sorted(set(columns or ()) - set(parquet.schema_arrow.names))
            if missing:
                raise UserError(f"{path} lacks the column {missing[0]}; restore it, or build the folder again")
            yield from parquet.iter_batches(columns=columns)
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not readable as Parquet ({reason}); restore it") from error


def _read_text(path: epath.Path) -> None:
    try:
        regular_file(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}; restore it") from error

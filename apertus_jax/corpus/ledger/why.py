"""The `why` command: the story of one document."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax import artifacts
from apertus_jax.corpus.documents import DOCUMENT_ID
from apertus_jax.corpus.ledger.records import KIND, LEDGER_FILE, QUARANTINE_FILE, parts_of, url_digest
from apertus_jax.errors import UserError
from apertus_jax.printable import printable

FIRST = ("decision", "reason", "detail", "kept_id", "document_id", "url", "source", "file", "row")
PLACE = re.compile(r"(?P<file>.+):(?P<row>\d+)")


@dataclasses.dataclass(frozen=True)
class Story:
    """One document of the ledger or of the quarantine, and the statistics that were in force."""

    row: Mapping[str, Any]
    quarantined: bool


def why(prepared: epath.PathLike, document: str) -> list[dict[str, Any]]:
    """Prints why a document stayed or went: every consent verdict, every score, the rule that decided.

    Args:
      prepared: folder that `prepare` wrote.
      document: its address, its identity (32 hexadecimal digits), or `FILE:ROW` as error lines name it.

    Returns:
      The ledger's rows; several when several documents had this address.

    Raises:
      UserError: the folder is no prepared corpus, or no input document matches.
    """
    manifest = artifacts.read_manifest(prepared, KIND)
    stories = list(find(prepared, document))
    if not stories:
        raise UserError(
            f"{document!r} is not in the ledger of {prepared}; give an address, 32 hexadecimal digits, or FILE:ROW"
        )
    for story in stories:
        _show(story, manifest["summary"])
    return [dict(story.row) for story in stories]


def find(prepared: epath.PathLike, document: str) -> Iterator[Story]:
    """Yields the ledger rows of a document named by address, identity or place; only the columns asked are scanned.

    Raises:
      UserError: the folder is no prepared corpus.
    """
    column, value = _question(document)
    for part in parts_of(prepared):
        yield from (Story(row, False) for row in _matching(part / LEDGER_FILE, {column: value}))
    if place := PLACE.fullmatch(document):
        wanted = {"file": place["file"], "row": int(place["row"])}
        for part in parts_of(prepared):
            yield from (Story(row, False) for row in _matching(part / LEDGER_FILE, wanted))
            yield from (Story(row, True) for row in _matching(part / QUARANTINE_FILE, wanted))


def _question(document: str) -> tuple[str, str]:
    """Returns the column to look into and the value to look for."""
    if DOCUMENT_ID.fullmatch(document):
        return "document_id", document
    return "url_digest", url_digest(document)


def _matching(path: epath.Path, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file whose columns have these values."""
    import pyarrow.parquet

    filters = [(name, "==", value) for name, value in wanted.items()]
    columns = list(wanted)
    parquet = pyarrow.parquet.ParquetFile(os.fspath(path))
    for group in range(parquet.num_row_groups):
        narrow = parquet.read_row_group(group, columns=columns)
        rows = [number for number, row in enumerate(narrow.to_pylist()) if all(row[c] == v for c, _, v in filters)]
        if rows:
            yield from parquet.read_row_group(group).take(rows).to_pylist()


def _show(story: Story, summary: Mapping[str, Any]) -> None:
    """Prints one story as a table; markup in documents is shown, not obeyed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    row = story.row
    if story.quarantined:
        title = f"quarantined: {row['reason']}"
    else:
        title = "kept" if not row["reason"] else f"dropped: {row['reason']}"
    table = Table(title=Text(printable(title)), show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    absent = "none" if row.get("content_evaluated", True) else "not evaluated"
    for name in sorted(row, key=lambda name: name not in FIRST):
        shown = absent if row[name] in (None, "", []) else printable(row[name])
        table.add_row(Text(name), Text(shown))
    for name in ("plan", "as_of"):
        if name in summary:
            table.add_row(Text(name), Text(printable(summary[name])))
    Console().print(table)

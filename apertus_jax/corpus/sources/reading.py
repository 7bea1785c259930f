"""Unit reader: the documents of a unit, and in their place the rows that cannot become documents."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import tables, web_archives
from apertus_jax.corpus.sources.parquet import changed, read_parquet
from apertus_jax.corpus.sources.parts import Part, Unit
from apertus_jax.corpus.sources.quarantine import FILE_REASONS, QuarantinedRow, QuarantineReason
from apertus_jax.corpus.sources.source import BUNDLED, Source, locate
from apertus_jax.corpus.sources.streams import CheckedFile
from apertus_jax.errors import UserError

# Repetitions lie close together, or in other files, where sorting finds them; memory stays flat.
REMEMBERED_IDS = 1 << 14


def read_unit(
    source: Source, unit: Unit, *, today: str, ignored: collections.Counter[str] | None = None
) -> Iterator[RawDocument | QuarantinedRow]:
    """Streams the documents of a unit in a fixed order, each bad row in its place; memory does not grow.

    Of rows with one id among the last 16,384 of a file the first stays. A file that changed after planning is noticed
    when its part was read to the end at the latest.

    Args:
      source: the one that the unit was planned from.
      unit: from `plan_units`.
      today: YYYY-MM-DD; a document crawled later is quarantined.
      ignored: kind of record → how many records of web archives are no documents; added to.

    Raises:
      UserError: the unit is of another source, or a file is missing or has changed since planning.
    """
    if unit.source != source.name:
        raise UserError(f"a unit of source {unit.source} was to be read as source {source.name}; plan again")
    counter = collections.Counter() if ignored is None else ignored
    for part in unit.parts:
        if part.defect:
            yield _defect(source, part)
        else:
            yield from _first_of_each_id(_read(source, part, today, counter))


def _read(source: Source, part: Part, today: str, ignored: collections.Counter[str]) -> tables.Rows:
    """Streams one part."""
    if part.format == BUNDLED:
        if part.digest != tables.bundled_digest(part.start, part.stop):
            raise UserError("the packages of the bundled corpus have changed since the work was planned; plan again")
        return tables.read_bundled(source, part, today)
    path = locate(source, part.file)
    # Cheap, and before the first document is looked at.
    if not path.exists() or path.stat().length != part.file_size:
        raise changed(path)
    if part.format == "parquet":
        return read_parquet(source, part, today)
    if part.format in ("warc", "wet"):
        return web_archives.read_web_archive(source, part, today, ignored)
    return (tables.read_text if part.format == "text" else tables.read_jsonl)(source, part, today)


def _defect(source: Source, part: Part) -> QuarantinedRow:
    """Returns the one line about a part that planning found unusable, if it still is what it was."""
    if part.format != "parquet" or part.stop == 0:
        CheckedFile(locate(source, part.file)).finish(part.digest)
    return QuarantinedRow(source.name, part.file, 0, QuarantineReason(part.defect), part.detail)


def _first_of_each_id(rows: tables.Rows) -> tables.Rows:
    """Quarantines documents whose identity was seen shortly before."""
    seen: dict[str, int] = {}
    for each in rows:
        if isinstance(each, RawDocument):
            first = seen.get(each.document_id)
            if first is not None:
                detail = f"the id of row {first}"
                yield QuarantinedRow(each.source, each.file, each.row, QuarantineReason.DUPLICATE_ID, detail)
                continue
            seen[each.document_id] = each.row
            if len(seen) > REMEMBERED_IDS:
                del seen[next(iter(seen))]
        yield each


def concerns_file(row: QuarantinedRow) -> bool:
    """Returns whether a quarantined row stands for a file, or all that was left of it, and not for one document."""
    return row.reason in FILE_REASONS

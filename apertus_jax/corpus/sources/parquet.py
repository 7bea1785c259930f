"""Parquet reader: by row groups, in small batches, each column type checked before a row is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.corpus.sources.parts import Part
from apertus_jax.corpus.sources.quarantine import QuarantinedRow, QuarantineReason, Unusable
from apertus_jax.corpus.sources.rows import make_document
from apertus_jax.corpus.sources.source import Source, column_key, locate
from apertus_jax.corpus.sources.tables import Rows, attempt
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet


ROWS_PER_BATCH = 256
BYTES_PER_BATCH = 32 << 20
BUFFER_BYTES = 1 << 20
FOOTER_TAIL_BYTES = 8
READ_BYTES = 1 << 22


class Table:
    """An open Parquet file.

    Raises:
      Unusable: it is damaged, or has no column of text under the name that the source gives.
      UserError: it cannot be read at all.
    """

    def __init__(self, source: Source, name: str):
        import pyarrow
        import pyarrow.parquet

        self.path = locate(source, name)
        try:
            self._file = self.path.open("rb")
            self.metadata = pyarrow.parquet.read_metadata(self._file)
            schema = self.metadata.schema.to_arrow_schema()
            self.columns = _usable_columns(source, schema)
            # A dictionary keeps a value that stands in a million rows from being written out a million times.
            self.parquet = pyarrow.parquet.ParquetFile(
                self._file,
                metadata=self.metadata,
                read_dictionary=[source.text_field],
                pre_buffer=False,
                buffer_size=BUFFER_BYTES,
            )
        except (pyarrow.ArrowException, OSError) as error:
            raise _damage(self.path, error) from None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def compressed_bytes(self, group: int) -> int:
        """Returns how many bytes a row group takes in the file."""
        return sum(stop - start for start, stop in self.spans(group, group + 1))

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Returns the places in the file of the columns of row groups `start` to `stop`."""
        found = []
        for group in range(start, stop):
            row_group = self.metadata.row_group(group)
            for index in range(row_group.num_columns):
                column = row_group.column(index)
                begin = column.data_page_offset
                if column.has_dictionary_page and column.dictionary_page_offset:
                    begin = min(begin, column.dictionary_page_offset)
                found.append((begin, begin + column.total_compressed_size))
        return found

    def is_bomb(self, group: int, source: Source) -> bool:
        """Returns whether a column of a row group says that it expands beyond the source's limits."""
        row_group, limits = self.metadata.row_group(group), source.limits
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            expanded = column.total_uncompressed_size
            if column.path_in_schema.split(".")[0] not in self.columns or expanded <= limits.expansion_free_bytes:
                continue
            if expanded > limits.expansion * max(column.total_compressed_size, 1) or expanded > limits.file_bytes:
                return True
        return False

    def digest(self, start: int, stop: int) -> str:
        """Returns the digest of the footer and of row groups `start` to `stop`."""
        digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
        size = self.path.stat().length
        footer = self.metadata.serialized_size + FOOTER_TAIL_BYTES
        with self.path.open("rb") as file:
            for begin, end in [*self.spans(start, stop), (max(size - footer, 0), size)]:
                file.seek(max(begin, 0))
                left = end - begin
                while left > 0 and (piece := file.read(min(left, READ_BYTES))):
                    digest.update(piece)
                    left -= len(piece)
        return digest.hexdigest()


def read_parquet(source: Source, part: Part, today: str) -> Rows:
    """Yields the documents of row groups `part.start` to `part.stop`; a damaged group ends with one line about it.

    Raises:
      UserError: the file has changed since it was planned, or cannot be read.
    """
    import pyarrow

    try:
        table = Table(source, part.file)
        if table.metadata.num_row_groups < part.stop or table.digest(part.start, part.stop) != part.digest:
            raise changed(locate(source, part.file))
    except Unusable:
        raise changed(locate(source, part.file)) from None
    first_row = part.first_row
    for group in range(part.start, part.stop):
        row = first_row
        try:
            for fields in _rows(table, group, source):
                yield attempt(source, part.file, row, _document, source, part.file, row, today, fields)
                row += 1
        except (pyarrow.ArrowException, OSError) as error:
            problem = _damage(table.path, error)
            detail = f"row group {group} is damaged, after row {row - 1}; {problem.detail}"
            yield QuarantinedRow(source.name, part.file, row, problem.reason, detail)
        first_row += table.metadata.row_group(group).num_rows
    table.close()


def changed(path: epath.Path) -> UserError:
    """Returns the error about a file that is not what was planned."""
    return UserError(f"{path} has changed since the work was planned; restore it, or start a new output")


def _usable_columns(source: Source, schema: pyarrow.Schema) -> list[str]:
    """Returns the columns of a table that a source names.

    Raises:
      Unusable: there is no column of strings for the text.
    """
    import pyarrow

    count = schema.names.count(source.text_field)
    if count != 1:
        detail = f"no column {source.text_field}" if count == 0 else f"{count} columns {source.text_field}"
        raise Unusable(QuarantineReason.MISSING_COLUMN, detail)
    found = schema.field(source.text_field).type
    text = found.value_type if pyarrow.types.is_dictionary(found) else found
    if not (pyarrow.types.is_string(text) or pyarrow.types.is_large_string(text)):
        raise Unusable(QuarantineReason.COLUMN_TYPE, f"column {source.text_field} is {text}, not string")
    about_consent = {*source.consent_columns, column_key(source.metadata_field)}
    wanted = [each for each in dict.fromkeys(schema.names) if column_key(each) in about_consent]
    for name in wanted:
        if (count := schema.names.count(name)) > 1:  # of two columns of one name nobody can say which holds
            raise Unusable(QuarantineReason.MISSING_COLUMN, f"{count} columns {name}")
    return [each for each in dict.fromkeys((*source.columns, *wanted)) if schema.names.count(each) == 1]


def _document(source: Source, file: str, row: int, today: str, fields: dict[str, Any] | Unusable) -> Any:
    """Makes a document of a row, or passes on why its values could not be read."""
    if isinstance(fields, Unusable):
        raise fields
    return make_document(source, file, row, today, fields)


def _rows(table: Table, group: int, source: Source) -> Iterator[dict[str, Any] | Unusable]:
    """Yields the rows of a row group, or why one has none."""
    for batch in table.parquet.iter_batches(ROWS_PER_BATCH, row_groups=[group], columns=table.columns):
        pieces = [batch] if _text_bytes(batch, source) <= BYTES_PER_BATCH else _single_rows(batch)
        for piece in pieces:
            too_large = len(piece) == 1 and _text_bytes(piece, source) > source.limits.text_bytes
            if too_large:
                yield Unusable(QuarantineReason.TEXT_TOO_LARGE, f"more than {source.limits.text_bytes} bytes")
                continue
            try:
                yield from piece.to_pylist()
            except (ValueError, OverflowError):
                yield from map(_decoded, _single_rows(piece))


def _decoded(row: pyarrow.RecordBatch) -> dict[str, Any] | Unusable:
    """Returns the one row of a batch, or why it has none."""
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Unusable(QuarantineReason.INVALID_ENCODING, f"not UTF-8 at byte {error.start}")
    except (ValueError, OverflowError):
        return Unusable(QuarantineReason.WRONG_TYPE, "a value that has no counterpart, such as a date beyond year 9999")


def _single_rows(batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
    """Yields the rows of a batch as batches."""
    return (batch.slice(number, 1) for number in range(len(batch)))


def _text_bytes(batch: pyarrow.RecordBatch, source: Source) -> int:
    """Returns how many bytes the texts of a batch take when they are written out."""
    import pyarrow.compute

    texts = batch.column(source.text_field)
    if isinstance(texts, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(texts.dictionary).take(texts.indices)
    else:
        lengths = pyarrow.compute.binary_length(texts)
    return pyarrow.compute.sum(lengths.cast(pyarrow.int64())).as_py() or 0


def _damage(path: epath.Path, error: Exception) -> Unusable:
    """Returns what an error of the Parquet library means; one of the disk is an error of ours to report.

    Raises:
      UserError: the file cannot be read.
    """
    if isinstance(error, OSError) and error.errno:
        raise UserError(f"{path} cannot be read ({error.strerror or error.errno}); restore it") from error
    return Unusable(QuarantineReason.DAMAGED_FILE, "not readable as Parquet")

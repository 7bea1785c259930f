"""Row readers: JSONL (plain, gzip, zstandard), Parquet, text files, and the bundled corpus."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from apertus_jax.corpus.bundled import bundled_documents, bundled_versions
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources.parts import Part
from apertus_jax.corpus.sources.quarantine import QuarantinedRow, QuarantineReason, Unusable
from apertus_jax.corpus.sources.rows import make_document
from apertus_jax.corpus.sources.source import BUNDLED, Source, locate
from apertus_jax.corpus.sources.streams import CheckedFile, Damage, cut_lines, expand
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import JSONError, parse_json

Rows = Iterator[RawDocument | QuarantinedRow]
Made = TypeVar("Made")
# Lists and objects of one row: each costs some 60 bytes of memory where the file needs two.
MAX_JSON_CONTAINERS = 1_000_000


def attempt(source: Source, file: str, row: int, make: Callable[..., Made], *arguments: Any) -> Made | QuarantinedRow:
    """Returns what `make` returns, or the quarantined row when it raises Unusable."""
    try:
        return make(*arguments)
    except Unusable as problem:
        return QuarantinedRow(source.name, file, row, problem.reason, problem.detail)


def quarantine_damage(source: Source, file: str, row: int, damage: Damage) -> QuarantinedRow:
    """Returns the one line about bytes that were lost before row `row` was whole."""
    where = f"after row {row - 1}" if row > 1 else "before the first row"
    return QuarantinedRow(source.name, file, row, damage.reason, f"{damage.detail}, {where}")


def read_jsonl(source: Source, part: Part, today: str) -> Rows:
    """Yields the documents of a part of a JSONL file; rows are lines, blank ones are passed over but counted.

    Raises:
      UserError: the file has changed since it was planned, or cannot be read.
    """
    file = CheckedFile(locate(source, part.file), part.start, part.stop)
    lines = cut_lines(expand(file, part.file, source.limits), source.limits.record_bytes)
    for row, line in enumerate(lines, start=part.first_row):
        if isinstance(line, Damage):
            yield quarantine_damage(source, part.file, row, line)
        elif line is None:
            detail = f"more than {source.limits.record_bytes} bytes"
            yield QuarantinedRow(source.name, part.file, row, QuarantineReason.RECORD_TOO_LARGE, detail)
        elif line and not line.isspace():
            yield attempt(source, part.file, row, _json_document, source, part.file, row, today, line)
    file.finish(part.digest)


def _json_document(source: Source, file: str, row: int, today: str, line: bytes) -> RawDocument:
    """Returns the document of a line."""
    return make_document(source, file, row, today, parse_line(line, is_first=row == 1))


def parse_line(line: bytes, is_first: bool = False) -> dict[str, Any]:
    """Returns the JSON object of a line.

    Raises:
      Unusable: it is none, or would need much more memory than its length.
    """
    if is_first:
        line = line.removeprefix(codecs.BOM_UTF8)
    if len(line) > MAX_JSON_CONTAINERS and line.count(b"[") + line.count(b"{") > MAX_JSON_CONTAINERS:
        raise Unusable(QuarantineReason.JSON_TOO_COMPLEX, f"more than {MAX_JSON_CONTAINERS} lists and objects")
    try:
        row = parse_json(line, "row", allow_nan=True, allow_surrogates=True)
    except JSONError as error:
        raise _unusable_json(error.__cause__) from None
    if not isinstance(row, dict):
        raise Unusable(QuarantineReason.NOT_AN_OBJECT, f"found {type(row).__name__}")
    return row


def _unusable_json(cause: BaseException | None) -> Unusable:
    """Returns why a line is no JSON, without quoting it."""
    if isinstance(cause, UnicodeDecodeError):
        return Unusable(QuarantineReason.INVALID_ENCODING, f"not UTF-8 at byte {cause.start}")
    if isinstance(cause, json.JSONDecodeError):
        return Unusable(QuarantineReason.INVALID_JSON, f"{cause.msg} at character {cause.pos}")
    if isinstance(cause, RecursionError):
        return Unusable(QuarantineReason.JSON_TOO_COMPLEX, "lists or objects inside each other too deeply")
    return Unusable(QuarantineReason.INVALID_JSON, "a number that is too long or too large")


def read_text(source: Source, part: Part, today: str) -> Rows:
    """Yields the document of a text file: the whole of it, in UTF-8."""
    file = CheckedFile(locate(source, part.file))
    limit = source.limits.text_bytes
    content = file.read(limit + len(codecs.BOM_UTF8) + 1)
    yield attempt(source, part.file, 1, _text_document, source, part.file, today, content)
    file.finish(part.digest)


def _text_document(source: Source, file: str, today: str, content: bytes) -> RawDocument:
    """Returns the document of a text file."""
    body = content.removeprefix(codecs.BOM_UTF8)
    if len(body) > source.limits.text_bytes:
        raise Unusable(QuarantineReason.TEXT_TOO_LARGE, f"more than {source.limits.text_bytes} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Unusable(QuarantineReason.INVALID_ENCODING, f"not UTF-8 at byte {error.start}") from None
    return make_document(source, file, 1, today, {source.text_field: text, source.id_field: file})


def bundled_digest(start: int, stop: int) -> str:
    """Returns the digest of documents `start` to `stop` of the bundled corpus: of the packages' versions."""
    return artifacts.digest_json({"packages": bundled_versions(), "start": start, "stop": stop})


def read_bundled(source: Source, part: Part, today: str) -> Rows:
    """Yields documents `part.start` to `part.stop` of the bundled corpus; they keep their own identities."""
    for number, document in enumerate(bundled_documents()[part.start : part.stop], part.start):
        yield RawDocument(
            document_id=document.document_id,
            text=document.text,
            source=document.source,
            file=BUNDLED,
            row=number + 1,
            url=document.url,
            crawl_date=source.crawl_date,
            licence=document.licence or source.licence,
            language=document.language,
        )

"""WARC and WET reader: responses, resources and conversions that are text become documents."""

from __future__ import annotations

import collections

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import evidence, pages
from apertus_jax.corpus.sources.parts import Part
from apertus_jax.corpus.sources.quarantine import QuarantinedRow, QuarantineReason, Unusable
from apertus_jax.corpus.sources.rows import make_document
from apertus_jax.corpus.sources.source import Source, locate
from apertus_jax.corpus.sources.streams import CheckedFile, Damage, expand
from apertus_jax.corpus.sources.tables import Rows, attempt, quarantine_damage
from apertus_jax.corpus.sources.warc_records import Record, cut_records
from apertus_jax.corpus.web import content_codings
from apertus_jax.corpus.web.http_messages import charset_of, parse_response

DOCUMENT_RECORDS = ("response", "resource", "conversion")
OTHER_RECORDS = ("warcinfo", "request", "metadata", "revisit", "continuation")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_BEFORE_MARKUP = b"\xef\xbb\xbf\xfe\xff\0 \t\r\n\f"  # byte order marks and blanks, in UTF-16 too


def read_web_archive(source: Source, part: Part, today: str, ignored: collections.Counter[str]) -> Rows:
    """Yields the documents of a WARC or WET file; rows are records, those that are no documents are counted.

    Documents are `conversion` and `resource` records of text and `response` records with status 200 of pages or text.

    Args:
      ignored: kind of record → how many were passed over; added to.

    Raises:
      UserError: the file has changed since it was planned, or cannot be read.
    """
    file = CheckedFile(locate(source, part.file))
    chunks = expand(file, part.file, source.limits, resumes=True)
    for row, record in enumerate(cut_records(chunks, source.limits.record_bytes), start=1):
        if isinstance(record, Damage):
            yield quarantine_damage(source, part.file, row, record)
        elif isinstance(record, Unusable):
            yield QuarantinedRow(source.name, part.file, row, record.reason, record.detail)
        else:
            yield from _documents(source, part.file, row, today, record, ignored)
    file.finish(part.digest)


def _documents(
    source: Source, file: str, row: int, today: str, record: Record, ignored: collections.Counter[str]
) -> Rows:
    """Yields the one document of a record, the quarantined row, or nothing when the record is of another kind."""
    if record.kind not in DOCUMENT_RECORDS:
        ignored[f"record_{record.kind}" if record.kind in OTHER_RECORDS else "record_unknown"] += 1
        return
    document = attempt(source, file, row, _document, source, file, row, today, record, ignored)
    if document is not None:
        yield document


def _document(
    source: Source, file: str, row: int, today: str, record: Record, ignored: collections.Counter[str]
) -> RawDocument | None:
    """Returns the document of a record, or None when it is counted as ignored.

    Raises:
      Unusable: it should be a document but cannot.
    """
    fields: tuple[tuple[str, str], ...] = ()
    body, content_type = record.block, record.field("content-type")
    if record.is_http:
        response = parse_response(record.block)
        if response is None:
            raise Unusable(QuarantineReason.DAMAGED_RECORD, "no HTTP response")
        if response.status != 200:
            ignored[f"status_{response.status}"] += 1
            return None
        fields, body = response.fields, response.body
        content_type = dict(fields).get("content-type", "")
    kind = content_type.replace(",", ";").partition(";")[0].strip().partition(" ")[0].lower()
    if kind in ("", "text/plain", *_HTML_TYPES):
        body = _undo_codings(body, fields, source, stored=record.length)
    is_page = kind in _HTML_TYPES or (not kind and body.lstrip(_BEFORE_MARKUP)[:1] == b"<")
    if not is_page and kind != "text/plain":
        ignored["content_type"] += 1
        return None
    charset = charset_of(content_type)
    if is_page:
        page = pages.read_page(body, charset, source.main_content)
    elif record.kind == "conversion":
        page = pages.Page(_utf8(body).strip(), {}, ())
    else:
        page = pages.Page(pages.decode(body, charset, is_html=False).strip(), {}, ())
    link_headers = (value for name, value in fields if name == "link")
    links = (*page.licence_links, *(link for value in link_headers for link in pages.header_licence_links(value)))
    values = {
        source.text_field: page.text,
        source.id_field: record.field("warc-record-id"),
        source.url_field: record.target,
        source.date_fields[0] if source.date_fields else "date": record.field("warc-date"),
        source.header_field: evidence.join_values(fields),
        source.meta_field: page.meta_tags,
        source.licence_link_field: list(dict.fromkeys(links)),
    }
    return make_document(source, file, row, today, values)


def _undo_codings(body: bytes, fields: tuple[tuple[str, str], ...], source: Source, stored: int) -> bytes:
    """Returns the body of a page with the codings undone that are really there; of one that was cut, what came of it.

    Raises:
      Unusable: it is damaged, or larger than the source's limits.
    """
    limits = source.limits
    undone = content_codings.undo_codings(body, content_codings.announced_codings(fields), limits.record_bytes)
    if undone.is_cut or len(undone.body) > limits.record_bytes:
        if limits.record_bytes > limits.expansion * stored:
            raise Unusable(QuarantineReason.DECOMPRESSION_BOMB, f"expands more than {limits.expansion} times")
        raise Unusable(QuarantineReason.RECORD_TOO_LARGE, f"more than {limits.record_bytes} bytes")
    if undone.defect and not (undone.is_truncated and undone.body):
        raise Unusable(QuarantineReason.DAMAGED_RECORD, f"the HTTP response: {undone.defect}")
    return undone.body


def _utf8(body: bytes) -> str:
    """Returns the text of a converted record, which is always UTF-8.

    Raises:
      Unusable: it is not.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(QuarantineReason.INVALID_ENCODING, f"not UTF-8 at byte {error.start}") from None

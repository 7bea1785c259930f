"""Reader of web archives (WARC, WET): records are framed here, so that a damaged one does not take the rest with it."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import evidence, pages
from apertus_jax.corpus.sources.quarantine import QuarantinedRow, QuarantineReason, Unusable
from apertus_jax.corpus.sources.rows import make_document
from apertus_jax.corpus.sources.source import Source, locate
from apertus_jax.corpus.sources.streams import CheckedFile, Damage, expand
from apertus_jax.corpus.sources.tables import Rows, attempt, quarantine_damage

if TYPE_CHECKING:
    from fastwarc.warc import HeaderMap, WarcRecord

    from apertus_jax.corpus.sources.units import Part

LONGEST_HEADER = 1 << 16
MARKER = b"WARC/1."
DOCUMENT_RECORDS = ("response", "resource", "conversion")
OTHER_RECORDS = ("warcinfo", "request", "metadata", "revisit", "continuation")
END_OF_HEADER = b"\r\n\r\n"
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_NEXT = re.compile(rb"[\r\n]WARC/1\.\d\r\n")
_HTML_TYPES = ("text/html", "application/xhtml+xml")


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


class _Buffer:
    """The bytes of a stream that were not looked at yet; `damage` is what keeps more from coming for now."""

    def __init__(self, chunks: Iterator[bytes | Damage]):
        self._chunks = chunks
        self.content = bytearray()
        self.damage: Damage | None = None

    def fill(self, size: int) -> bool:
        """Reads until `size` bytes are there; returns whether they are."""
        while len(self.content) < size and self.damage is None:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            if isinstance(chunk, Damage):
                self.damage = chunk
            else:
                self.content += chunk
        return len(self.content) >= size

    def pass_damage(self) -> Damage | None:
        """Forgets what stands before the damage that was met, so that reading goes on behind it; returns the damage."""
        damage, self.damage = self.damage, None
        if damage is not None:
            self.content.clear()
        return damage

    def skip(self, size: int) -> bool:
        """Passes over `size` bytes without holding them; returns whether there were so many."""
        while size > len(self.content):
            size -= len(self.content)
            self.content.clear()
            if not self.fill(1):
                return False
        del self.content[:size]
        return True

    def skip_to_record(self, start: int) -> bool:
        """Passes over bytes until a record begins, looking from `start` on; returns whether one does."""
        while True:
            match = _NEXT.search(self.content, start)
            if match is not None:
                del self.content[: match.start() + 1]
                return True
            del self.content[: max(len(self.content) - len(MARKER) - 4, 0)]
            start = 0
            if not self.fill(len(self.content) + 1):
                self.content.clear()
                return False


def cut_records(chunks: Iterator[bytes | Damage], longest: int) -> Iterator[bytes | Damage | Unusable]:
    """Yields whole records, header and block; in the place of a record that is not whole, what is wrong with it.

    A record must be followed by another or by the end; if not, its length is wrong and reading goes on at the next
    thing that looks like a beginning.
    """
    buffer = _Buffer(chunks)
    while True:
        record = _next_record(buffer, longest)
        if record is not None:
            yield record
        elif damage := buffer.pass_damage():
            yield damage
            buffer.content += b"\n"
            buffer.skip_to_record(0)
        else:
            return


def _next_record(buffer: _Buffer, longest: int) -> bytes | Unusable | None:
    """Returns the next record, what is wrong with it, or None where the stream ends or is damaged."""
    while buffer.fill(1) and buffer.content[0] in b"\r\n":
        del buffer.content[: len(buffer.content) - len(buffer.content.lstrip(b"\r\n"))]
    if not buffer.content:
        return None
    buffer.fill(LONGEST_HEADER)
    end = buffer.content.find(END_OF_HEADER, 0, LONGEST_HEADER)
    length = _LENGTH.search(buffer.content, 0, end + 2) if end >= 0 else None
    if end < 0 and len(buffer.content) < LONGEST_HEADER and MARKER.startswith(buffer.content[: len(MARKER)]):
        # A header that the end, or the damage, cuts off.
        buffer.content.clear()
        return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "the file ends inside a header")
    if not buffer.content.startswith(MARKER) or length is None:
        buffer.skip_to_record(1)
        return Unusable(QuarantineReason.DAMAGED_RECORD, "no header of a record with a length")
    header = end + len(END_OF_HEADER)
    size = header + int(length.group(1))
    if size > longest + LONGEST_HEADER:
        if not buffer.skip(size):
            return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "ends inside a large record")
        return Unusable(QuarantineReason.RECORD_TOO_LARGE, f"more than {longest} bytes")
    if not buffer.fill(size):
        # Either the file ends too early or the length is wrong and the next records stand inside.
        if buffer.skip_to_record(header):
            return Unusable(QuarantineReason.DAMAGED_RECORD, "shorter than it says")
        return None if buffer.damage else Unusable(QuarantineReason.TRUNCATED_FILE, "the file ends inside a record")
    if not _is_followed_well(buffer, size):
        buffer.skip_to_record(header)
        return Unusable(QuarantineReason.DAMAGED_RECORD, "not as long as it says")
    record = bytes(buffer.content[:size])
    del buffer.content[:size]
    return record


def _is_followed_well(buffer: _Buffer, size: int) -> bool:
    """Returns whether behind `size` bytes there is the end of the file or of a record."""
    buffer.fill(size + len(END_OF_HEADER) + len(MARKER))
    rest = bytes(buffer.content[size : size + len(END_OF_HEADER) + len(MARKER)])
    behind = rest.lstrip(b"\r\n")
    # Two line ends are what the standard wants; some writers leave one.
    return rest.startswith(END_OF_HEADER) or not behind or (behind != rest and behind.startswith(MARKER))


def _documents(
    source: Source, file: str, row: int, today: str, content: bytes, ignored: collections.Counter[str]
) -> Rows:
    """Yields the one document of a record, the quarantined row, or nothing when the record is of another kind."""
    from fastwarc.warc import WarcRecord

    try:
        record = WarcRecord.from_bytes(content)
        kind = (record.headers.get("WARC-Type") or "").lower()
    except (OSError, ValueError):
        yield QuarantinedRow(source.name, file, row, QuarantineReason.DAMAGED_RECORD, "the header is not readable")
        return
    if kind not in DOCUMENT_RECORDS:
        ignored[f"record_{kind}" if kind in OTHER_RECORDS else "record_unknown"] += 1
        return

    document = attempt(source, file, row, _document, source, file, row, today, record, content, ignored)
    if document is not None:
        yield document


def _document(
    source: Source,
    file: str,
    row: int,
    today: str,
    record: WarcRecord,
    content: bytes,
    ignored: collections.Counter[str],
) -> RawDocument | None:
    """Returns the document of a record, or None when it is counted as ignored.

    Raises:
      Unusable: it should be a document but cannot.
    """
    from fastwarc.warc import WarcRecordType

    headers: list[tuple[str, str]] = []
    content_type = record.headers.get("Content-Type") or ""
    if record.is_http:
        response, body = _http_response(record, content, source)
        if response.status_code != 200:
            ignored[f"status_{response.status_code}"] += 1
            return None
        headers = [(name.strip().lower(), value.strip()) for name, value in response.items()]
        content_type = dict(headers).get("content-type", "")
    else:
        body = _read_within(record, source, stored=len(content))
    kind = content_type.partition(";")[0].strip().lower()
    is_page = kind in _HTML_TYPES or (not kind and body.lstrip()[:1] == b"<")
    if not is_page and kind != "text/plain":
        ignored["content_type"] += 1
        return None
    charset = _charset(content_type)
    if is_page:
        page = pages.read_page(body, charset, source.main_content)
    elif record.record_type == WarcRecordType.conversion:
        page = pages.Page(_utf8(body).strip(), {}, ())
    else:
        page = pages.Page(pages.decode(body, charset, is_html=False).strip(), {}, ())
    link_headers = (value for name, value in headers if name == "link")
    links = (*page.licence_links, *(link for value in link_headers for link in pages.header_licence_links(value)))
    fields = {
        source.text_field: page.text,
        source.id_field: record.record_id,
        source.url_field: (record.headers.get("WARC-Target-URI") or "").strip("<> "),
        source.date_fields[0] if source.date_fields else "date": record.headers.get("WARC-Date"),
        source.header_field: evidence.join_values(headers),
        source.meta_field: page.meta_tags,
        source.licence_link_field: list(dict.fromkeys(links)),
    }
    return make_document(source, file, row, today, fields)


def _http_response(record: WarcRecord, content: bytes, source: Source) -> tuple[HeaderMap, bytes]:
    """Returns headers and body of an HTTP response, its codings undone.

    Raises:
      Unusable: it is damaged, or larger than the source's limits.
    """
    from fastwarc.warc import WarcRecord

    damaged = Unusable(QuarantineReason.DAMAGED_RECORD, "the HTTP response cannot be decoded")
    try:
        record.parse_http(auto_decode="all")
        if record.http_headers is None or record.http_headers.status_code is None:
            raise damaged
        body = _read_within(record, source, stored=len(content))
        if not body and "Content-Encoding" in record.http_headers:
            raise damaged
        return record.http_headers, body
    except OSError:
        # Many crawlers undo the codings and leave the headers that announce them.
        plain = WarcRecord.from_bytes(content)
        plain.parse_http(auto_decode="none")
        body = _read_within(plain, source, stored=len(content))
        if body.lstrip()[:1] != b"<":
            raise damaged from None
        return plain.http_headers, body


def _read_within(record: WarcRecord, source: Source, stored: int) -> bytes:
    """Returns the rest of a record's content.

    Raises:
      Unusable: it is larger than the source's limits.
    """
    limits = source.limits
    pieces: list[bytes] = []
    left = limits.record_bytes + 1
    while left > 0 and (piece := record.reader.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left > 0:
        return b"".join(pieces)
    if limits.record_bytes > limits.expansion * stored:
        raise Unusable(QuarantineReason.DECOMPRESSION_BOMB, f"expands more than {limits.expansion} times")
    raise Unusable(QuarantineReason.RECORD_TOO_LARGE, f"more than {limits.record_bytes} bytes")


def _charset(content_type: str) -> str:
    """Returns the charset parameter of a content type, or nothing."""
    match = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    return match.group(1) if match else ""


def _utf8(body: bytes) -> str:
    """Returns the text of a converted record, which is always UTF-8.

    Raises:
      Unusable: it is not.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(QuarantineReason.INVALID_ENCODING, f"not UTF-8 at byte {error.start}") from None

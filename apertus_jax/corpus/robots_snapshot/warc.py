"""Answers to requests for robots.txt out of WARC files, as Common Crawl archives them (its `robotstxt` subset)."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from apertus_jax.corpus.robots import BODY_LIMIT
from apertus_jax.corpus.robots_snapshot.responses import ANSWER_NOT_UNDERSTOOD, Response, parse_time
from apertus_jax.errors import UserError

_GZIP_MAGIC = b"\x1f\x8b"
_READ_LIMIT = 4 * BODY_LIMIT  # an encoded body may be longer than what it decodes to


def read_warc(path: epath.PathLike) -> Iterator[Response]:
    """Yields every HTTP response of a WARC file, plain or gzip, in its order.

    Requests, metadata and revisits (the body of an older answer, which is there itself) are passed over. A body is
    read up to BODY_LIMIT bytes, decoded when its headers say that it is compressed or chunked and it really is.

    Raises:
      UserError: the file is damaged or ends early; a snapshot of half a file would forget refusals.
    """
    source = epath.Path(path)
    with source.open("rb") as file:
        stream = io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file
        magic = stream.read(2)
        stream.seek(0)
        yield from _read_stream(gzip.GzipFile(fileobj=stream) if magic == _GZIP_MAGIC else stream, source)


def _read_stream(stream: BinaryIO, source: epath.Path) -> Iterator[Response]:
    # FastWARC ends quietly at a truncated file, so the stream is decompressed here and every length is checked.
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    count = 0
    try:
        for count, record in enumerate(ArchiveIterator(stream, parse_http=False, stream_detect=False), start=1):
            block = record.reader.read(_READ_LIMIT)
            rest = _drain(record.reader)
            declared = record.headers.get("Content-Length") or ""
            if not declared.isdigit() or len(block) + rest != int(declared):
                raise UserError(f"{source}, record {count}: the file ends early or is damaged; fetch it again")
            if record.record_type == WarcRecordType.response:
                yield _response(record.headers, block, len(block) + rest, source, count)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(
            f"{source}, after record {count}: not a readable WARC file ({error}); fetch it again"
        ) from error


def _drain(reader) -> int:
    passed = 0
    while piece := reader.read(1 << 16):
        passed += len(piece)
    return passed


def _response(headers, block: bytes, length: int, source: epath.Path, count: int) -> Response:
    """Returns a response record; the WARC headers must name an address and a time."""
    url, fetched_at = headers.get("WARC-Target-URI") or "", parse_time(headers.get("WARC-Date") or "")
    if not url or fetched_at is None:
        raise UserError(f"{source}, record {count}: a response without WARC-Target-URI or WARC-Date; fetch it again")
    url = url.strip().removeprefix("<").removesuffix(">")
    head, separator, body = block.partition(b"\r\n\r\n")
    if not separator:
        head, _, body = block.partition(b"\n\n")
    status, fields = _parse_head(head)
    if status is None:
        return Response(url=url, fetched_at=fetched_at, error_kind=ANSWER_NOT_UNDERSTOOD)
    cut = length > len(block) or headers.get("WARC-Truncated") is not None
    body, decoded_cut = _decode(body, fields)
    return Response(
        url=url,
        fetched_at=fetched_at,
        http_status=status,
        location=fields.get("location", ""),
        body=body[:BODY_LIMIT],
        truncated=cut or decoded_cut or len(body) > BODY_LIMIT,
    )


def _parse_head(head: bytes) -> tuple[int | None, dict[str, str]]:
    """Returns the status and the lower-case header fields of an HTTP response; None when it is not one."""
    lines = head.decode("latin-1").splitlines()
    words = lines[0].split(None, 2) if lines else []
    if len(words) < 2 or not words[0].upper().startswith("HTTP/") or not words[1].isdecimal() or len(words[1]) != 3:
        return None, {}
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return int(words[1]), fields


def _decode(body: bytes, fields: dict[str, str]) -> tuple[bytes, bool]:
    """Returns the decoded body and whether it was cut; what does not decode is returned as it is.

    Archives differ: many store decoded bodies under the headers of the wire.
    """
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _unchunk(body)
    if fields.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
        decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            decoded = decoder.decompress(body, BODY_LIMIT + 1)
        except zlib.error:
            return body, False
        return decoded, not decoder.eof
    return body, False


def _unchunk(body: bytes) -> bytes:
    pieces, position = [], 0
    while True:
        end = body.find(b"\r\n", position, position + 64)
        digits = body[position:end].split(b";")[0].strip() if end >= 0 else b""
        try:
            size = int(digits, 16)
        except ValueError:
            return b"".join(pieces) if pieces else body
        if size <= 0:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        position = end + 2 + size + 2

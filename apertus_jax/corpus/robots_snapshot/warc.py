"""robots.txt responses from WARC files, as Common Crawl archives them (its `robotstxt` subset)."""

from __future__ import annotations

from collections.abc import Iterator

from etils import epath

from apertus_jax.corpus.robots import BODY_LIMIT
from apertus_jax.corpus.robots_snapshot.responses import ANSWER_NOT_UNDERSTOOD, Response, parse_time
from apertus_jax.corpus.sources.quarantine import Unusable
from apertus_jax.corpus.sources.source import Limits
from apertus_jax.corpus.sources.streams import GZIP_MAGIC, CheckedFile, Damage, expand
from apertus_jax.corpus.sources.warc_records import Record, cut_records
from apertus_jax.corpus.web.content_codings import announced_codings, undo_codings
from apertus_jax.corpus.web.http_messages import HTTPResponse, parse_response
from apertus_jax.errors import UserError

_ZSTANDARD_MAGIC = b"\x28\xb5\x2f\xfd"
_READ_LIMIT = 4 * BODY_LIMIT  # an encoded body may be longer than what it decodes to


def read_warc(path: epath.PathLike) -> Iterator[Response]:
    """Yields every HTTP response and resource of a WARC file (plain, gzip or zstandard), in its order.

    Requests, metadata and revisits (the body of an older answer, which is there itself) are passed over. A body is
    read up to BODY_LIMIT bytes, with the codings undone that are really there.

    Raises:
      UserError: the file is damaged or ends early; a snapshot of half a file would forget refusals.
    """
    source = epath.Path(path)
    with source.open("rb") as file:
        magic = file.read(len(_ZSTANDARD_MAGIC))
    suffix = ".gz" if magic.startswith(GZIP_MAGIC) else ".zst" if magic == _ZSTANDARD_MAGIC else ""
    chunks = expand(CheckedFile(source), suffix, Limits())
    for count, record in enumerate(cut_records(chunks, longest=_READ_LIMIT, kept=_READ_LIMIT), start=1):
        if isinstance(record, Damage):
            raise UserError(f"{source}, after record {count - 1}: {record.detail}; fetch it again")
        if isinstance(record, Unusable):
            raise UserError(f"{source}, record {count}: not a readable WARC file ({record.detail}); fetch it again")
        if record.kind in ("response", "resource"):
            yield _response(record, f"{source}, record {count}")


def _response(record: Record, where: str) -> Response:
    """Returns a response record; the WARC headers must name an address and a time."""
    url, fetched_at = record.target, parse_time(record.field("warc-date"))
    if not url or fetched_at is None:
        raise UserError(f"{where}: a response without WARC-Target-URI or WARC-Date; fetch it again")
    # A resource is what was stored of an answer whose status nobody wrote down.
    is_bare = record.kind == "resource" and not record.is_http
    response = HTTPResponse(0, (), record.block) if is_bare else parse_response(record.block)
    if response is None:
        return Response(url=url, fetched_at=fetched_at, error_kind=ANSWER_NOT_UNDERSTOOD)
    undone = undo_codings(response.body, announced_codings(response.fields), _READ_LIMIT)
    body = undone.body
    is_short = record.length > len(record.block) or _says_that_more_came(record) or _is_short(response)
    return Response(
        url=url,
        fetched_at=fetched_at,
        http_status=None if is_bare else response.status,
        location=response.field("location"),
        body=body[:BODY_LIMIT],
        truncated=is_short or undone.is_cut or undone.defect != "" or len(body) > BODY_LIMIT,
    )


def _says_that_more_came(record: Record) -> bool:
    """Returns whether an archive did not keep all of an answer in this record."""
    return any(record.field(name) != "" for name in ("warc-truncated", "warc-segment-number"))


def _is_short(response: HTTPResponse) -> bool:
    """Returns whether fewer bytes came than were announced; of a body that was coded nobody knows what was meant."""
    announced = response.field("content-length")
    return announced.isdecimal() and not announced_codings(response.fields) and len(response.body) < int(announced)

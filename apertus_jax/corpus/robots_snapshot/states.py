"""What an answer to the request for robots.txt amounts to."""

from __future__ import annotations

import re

from apertus_jax.corpus.robots_snapshot.responses import (
    REDIRECT_NOT_ARCHIVED,
    REDIRECT_WITHOUT_TARGET,
    TOO_MANY_REDIRECTS,
    RobotsRecord,
)

FOUND = "found"
MISSING = "missing"  # nothing is known
UNAVAILABLE = "unavailable"  # the host said that there is no file: RFC 9309 §2.3.1.3
UNREACHABLE = "unreachable"  # the host failed: RFC 9309 §2.3.1.4
HTML = "html"
MALFORMED = "malformed"
NO_URL = "no_url"
STATES = (FOUND, MISSING, UNAVAILABLE, UNREACHABLE, HTML, MALFORMED, NO_URL)

_BLANK = b" \t\r\n\v\f\x00"
_BOM = b"\xef\xbb\xbf"
_RECORD = re.compile(
    rb"^[ \t]*(?:(?:user[ _-]?agents?|dis?s?all?ow|allow)[ \t]*[: \t]"  # these also without their colon
    rb"|(?:site-?maps?|crawl-?delay|request-rate|visit-time|host|clean-param|noindex|content-(?:usage|signal))[ \t]*:)",
    re.IGNORECASE | re.MULTILINE,
)
_STATEMENT = re.compile(rb"^[ \t]*[^#\s]", re.MULTILINE)


def robots_state(record: RobotsRecord | None) -> str:
    """Returns the state of a snapshot row, one of STATES.

    An empty file and one of comments alone are `found`: they forbid nothing. `malformed` is a file with statements of
    which none is a known record, `html` one that begins with a tag.
    """
    if record is None or record.error_kind == REDIRECT_NOT_ARCHIVED:
        return MISSING
    if record.error_kind in (REDIRECT_WITHOUT_TARGET, TOO_MANY_REDIRECTS):
        return UNAVAILABLE
    status = 200 if record.http_status is None else record.http_status
    if record.error_kind or not 200 <= status < 500:
        return UNREACHABLE
    if status >= 300:
        return UNAVAILABLE
    body = record.body.replace(b"\r", b"\n").removeprefix(_BOM).lstrip(_BLANK)
    if body.startswith(b"<"):
        return HTML
    return MALFORMED if _STATEMENT.search(body) and not _RECORD.search(body) else FOUND

"""States of a robots.txt response: found, unavailable, unreachable, and their kin."""

from __future__ import annotations

import re

from apertus_jax.corpus.robots.body_text import utf8_body
from apertus_jax.corpus.robots.robots_file import BODY_LIMIT, parse_robots_file
from apertus_jax.corpus.robots_snapshot.responses import (
    REDIRECT_NOT_ARCHIVED,
    REDIRECT_WITHOUT_TARGET,
    TOO_MANY_REDIRECTS,
    RobotsRecord,
)
from apertus_jax.corpus.web.content_codings import looks_like_text

FOUND = "found"
MISSING = "missing"  # nothing is known
UNAVAILABLE = "unavailable"  # the host said that there is no file: RFC 9309 §2.3.1.3
UNREACHABLE = "unreachable"  # the host failed: RFC 9309 §2.3.1.4
HTML = "html"
MALFORMED = "malformed"  # text, but not of a robots.txt, or more is meant than can be heard
UNDECODABLE = "undecodable"  # no text, whatever codings and encodings are tried
INCOMPLETE = "incomplete"  # a part of the answer is missing
NO_URL = "no_url"
# Answers whose rules are read as far as they go, and of which nobody can say what else the host meant.
NOT_UNDERSTOOD = (HTML, MALFORMED, UNDECODABLE, INCOMPLETE)
STATES = (FOUND, MISSING, UNAVAILABLE, UNREACHABLE, *NOT_UNDERSTOOD, NO_URL)

_WHOLE_ANSWERS = (200, 201, 203, 204, 205)  # 202 promises one for later, 206 is a part of one
_BLANK = b" \t\r\n\v\f\x1a"
_RECORD = re.compile(
    rb"^[ \t]*(?:(?:user[ _-]?agents?|dis?s?all?ow|allow)[ \t]*[: \t]"  # these also without their colon
    rb"|(?:site-?maps?|crawl-?delay|request-rate|visit-time|host|clean-param|noindex|content-(?:usage|signal))[ \t]*:)",
    re.IGNORECASE | re.MULTILINE,
)
_CLOSED_ADDRESS = re.compile(rb"dis?s?all?ow[ \t]*:[ \t]*https?://([^\s/#]+)/?\*?[ \t]*(?:[\r\n#]|\Z)", re.IGNORECASE)
_STATEMENT = re.compile(rb"^[ \t]*[^#\s]", re.MULTILINE)


def robots_state(record: RobotsRecord | None) -> str:
    """Returns the state of a snapshot row, one of STATES.

    An empty file and one of comments alone are `found`: they forbid nothing. `malformed` is a file with statements of
    which none is a known record, or with a refusal that nobody can hear (rules of no group, lines that were meant as
    rules and are none), `html` one that begins with a tag; a body that was cut before BODY_LIMIT, and a
    status that announces no whole answer, are `incomplete`.
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
    text, is_sound = utf8_body(record.body)
    body = text.replace(b"\r", b"\n").lstrip(_BLANK)
    if not (is_sound and looks_like_text(text)):
        return UNDECODABLE
    if body.startswith(b"<"):
        return HTML
    if status not in _WHOLE_ANSWERS or (record.truncated and len(record.body) < BODY_LIMIT):
        return INCOMPLETE
    if _STATEMENT.search(body) and not _RECORD.search(body):
        return MALFORMED
    return MALFORMED if _closes_by_address(record, text) or parse_robots_file(text).has_unheard else FOUND


def _closes_by_address(record: RobotsRecord, text: bytes) -> bool:
    """Returns whether a rule names this very host by its whole address, which as a path matches nothing."""
    host = record.authority.removeprefix("www.").encode()
    return any(named[1].lower().removeprefix(b"www.") == host for named in _CLOSED_ADDRESS.finditer(text))

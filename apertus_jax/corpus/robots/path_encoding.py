"""One spelling for every path, so that robots rules and URLs can be compared character by character (RFC 9309 §2.2.2).

In the canonical spelling unreserved characters and the delimiters `/ ? = &` stand for themselves, everything else is
percent-encoded with upper-case digits. Two delimiters keep their meaning apart from their encoding: `%2F` is not `/`
and `%3F` is not `?`. After the first `?` they are data, and a rule with a query means the same either way: the RFC's
own example encodes them there. Such text therefore has a second spelling, see `decoded_query`.
"""

from __future__ import annotations

import re

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_VERBATIM = _UNRESERVED + b"/?=&"  # a raw octet that stays as it is
_DECODED = _UNRESERVED + b"=&"  # an encoded octet that loses its encoding

_PLAIN_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*)?(/[A-Za-z0-9\-._~/?=&]*)").fullmatch
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*").match
_PLAIN_PATTERN = re.compile(rb"[A-Za-z0-9\-._~/?=&*]*").fullmatch
_ODD_URL = re.compile(rb"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~/?=&]")
_ODD_PATTERN = re.compile(rb"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~/?=&*]")


def _spellings() -> dict[bytes, bytes]:
    """Returns the canonical spelling of each raw octet and of each percent-encoded octet in any case."""
    table = {bytes([octet]): b"%%%02X" % octet for octet in range(256) if octet not in _VERBATIM}
    for octet in range(256):
        canonical = bytes([octet]) if octet in _DECODED else b"%%%02X" % octet
        upper = b"%02X" % octet
        high, low = upper[:1], upper[1:]
        for digits in (upper, upper.lower(), high + low.lower(), high.lower() + low):
            table[b"%" + digits] = canonical
    return table


_SPELLING = _spellings()


def _respell(match: re.Match[bytes]) -> bytes:
    return _SPELLING[match[0]]


def canonical_pattern(pattern: bytes) -> str:
    """Returns the canonical ASCII spelling of a rule's path; `*` stays, `$` is encoded (take a final one off first)."""
    if not _PLAIN_PATTERN(pattern):
        pattern = _ODD_PATTERN.sub(_respell, pattern)
    return pattern.decode("ascii")


def canonical_path(url: str) -> str:
    """Returns path and query of a URL in the canonical spelling: ASCII, starting with `/`, without the fragment.

    A string that starts with `/` is a path already (`//a` too); anything else is a URL with or without a scheme.
    """
    plain = _PLAIN_URL(url)
    if plain:
        return plain[1]
    rest = url.partition("#")[0]
    origin = _ORIGIN(rest)
    if origin:
        rest = rest[origin.end() :]
    if not rest.startswith("/"):
        rest = "/" + rest
    return _ODD_URL.sub(_respell, rest.encode("utf-8", "surrogatepass")).decode("ascii")


def decoded_query(path: str) -> str:
    """Returns a canonical path with `%2F` and `%3F` decoded after the first `?`, where they are plain data."""
    head, mark, query = path.partition("?")
    if "%" not in query:
        return path
    return head + mark + query.replace("%2F", "/").replace("%3F", "?")

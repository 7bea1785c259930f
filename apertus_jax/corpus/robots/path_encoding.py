"""Canonical percent-encoding of paths, so that rules and URLs compare octet by octet (RFC 9309 §2.2.2).

In the canonical spelling unreserved characters and the delimiters `/ ? = &` stand for themselves. Every other octet is
an escape: one character of its own (U+0800 + octet), so that neither a literal of a rule nor its `*` can begin or end
inside one, as they could inside the three characters of `%3A`. Two delimiters keep their meaning apart from their
encoding: `%2F` is not `/` and `%3F` is not `?`. After the first `?` they are data, and a rule with a query means the
same either way: the RFC's own example encodes them there. Such text therefore has a second spelling, see
`decoded_query`.
"""

from __future__ import annotations

import re

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_VERBATIM = _UNRESERVED + b"/?=&"  # a raw octet that stays as it is
_DECODED = _UNRESERVED + b"=&"  # an encoded octet that loses its encoding
# Three octets long in UTF-8, as an escape is in a file: the length of a spelling in UTF-8 is its length in octets.
_FIRST_ESCAPE = 0x0800

_PLAIN_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*)?(/[A-Za-z0-9\-._~/?=&]*)").fullmatch
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*").match
_ODD_URL = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~/?=&]")
_ODD_PATTERN = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~/?=&*]")


def _escape(octet: int) -> str:
    return chr(_FIRST_ESCAPE + octet)


def _spellings() -> dict[str, str]:
    """Returns the canonical spelling of each raw octet (as latin-1) and of each percent-encoded octet in any case."""
    table = {chr(octet): _escape(octet) for octet in range(256) if octet not in _VERBATIM}
    for octet in range(256):
        canonical = chr(octet) if octet in _DECODED else _escape(octet)
        high, low = list(f"{octet:02X}")
        for digits in (high + low, high.lower() + low.lower(), high + low.lower(), high.lower() + low):
            table["%" + digits] = canonical
    return table


_SPELLING = _spellings()
_ENCODED_SLASH, _ENCODED_MARK = _escape(ord("/")), _escape(ord("?"))


def _respell(match: re.Match[str]) -> str:
    return _SPELLING[match[0]]


def canonical_pattern(pattern: bytes) -> str:
    """Returns the canonical spelling of a rule's path; `*` stays, `$` is escaped (take a final one off first)."""
    return _ODD_PATTERN.sub(_respell, pattern.decode("latin-1"))


def canonical_path(url: str) -> str:
    """Returns path and query of a URL in the canonical spelling, starting with `/`, without the fragment.

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
    return _ODD_URL.sub(_respell, rest.encode("utf-8", "surrogatepass").decode("latin-1"))


def octets_of(spelling: str) -> int:
    """Returns how many octets a canonical spelling has when its escapes are written with `%`."""
    return len(spelling) if spelling.isascii() else len(spelling.encode())


def decoded_query(path: str) -> str:
    """Returns a canonical path with an encoded `/` and `?` decoded after the first `?`, where they are plain data."""
    if path.isascii():
        return path
    head, mark, query = path.partition("?")
    return head + mark + query.replace(_ENCODED_SLASH, "/").replace(_ENCODED_MARK, "?")

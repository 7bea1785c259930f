"""PII in URLs: in path, query and fragment, percent-encoded or plain."""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.policy import MARKERS, PersonalDataPolicy
from apertus_jax.corpus.personal_data.rewriting import rewrite

MAX_DECODINGS = 3  # an address inside an address inside an address
_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//[^/\\?#]*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?!//)")
_COMPONENT = re.compile(r"[^/\\?#&;=]+")
# Every kind of personal data has a digit or an at sign in it, plain or escaped.
_PLAIN = re.compile(r"[A-Za-z_.~\-]*+")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def rewrite_url(url: str, policy: PersonalDataPolicy) -> str:
    """Returns a URL whose path, query and fragment show markers in the place of personal data.

    Every part between separators is decoded (up to three times, UTF-8) and searched; `+` counts as itself and as a
    space. Scheme, host and port stay, for they name a server and decide about robots.txt; user information before the
    host is dropped. Markers are written plainly: angle brackets cannot occur in a URL, so nothing else looks like one.
    Rewriting twice is rewriting once.
    """
    authority = _AUTHORITY.match(url)
    if authority:
        begin, at, host = authority.group().rpartition("@")
        prefix = begin[: begin.index("//") + 2] + host if at else authority.group()
        rest = url[authority.end() :]
    else:
        scheme = _SCHEME.match(url)
        prefix = scheme.group() if scheme else ""
        rest = url[len(prefix) :]
    return prefix + _COMPONENT.sub(lambda part: _rewrite_component(part.group(), policy), rest)


def _rewrite_component(component: str, policy: PersonalDataPolicy) -> str:
    """Returns one part of a URL with markers; escapes outside them stay as they were written."""
    if _PLAIN.fullmatch(component):
        return component
    decoded = list(component)
    starts = list(range(len(component) + 1))
    spans: list[tuple[int, int, str]] = []
    for _ in range(MAX_DECODINGS + 1):
        text = "".join(decoded)
        for reading in {text, text.replace("+", " ")}:
            found = rewrite(reading, policy).spans
            spans += [(starts[span.start], starts[span.end], span.kind) for span in found]
        if not _ESCAPES.search(text):
            break
        decoded, starts = _decode(text, starts)
    return _replace(component, sorted(spans, key=lambda span: (span[0], -span[1], span[2])))


def _decode(text: str, starts: list[int]) -> tuple[list[str], list[int]]:
    """Decodes percent escapes once; `starts[i]` is where character i (or the end) begins in the component."""
    decoded: list[str] = []
    origins: list[int] = []
    position = 0
    for match in _ESCAPES.finditer(text):
        decoded += text[position : match.start()]
        origins += starts[position : match.start()]
        offset = match.start()
        # Bytes that are not UTF-8 become one surrogate each, so that lengths can be counted back.
        for character in bytes.fromhex(match.group().replace("%", "")).decode(errors="surrogateescape"):
            decoded.append(character)
            origins.append(starts[offset])
            offset += 3 * len(character.encode(errors="surrogateescape"))
        position = match.end()
    decoded += text[position:]
    origins += starts[position:]
    return decoded, origins


def _replace(component: str, spans: list[tuple[int, int, str]]) -> str:
    """Replaces sorted spans; those that overlap become one, of the first one's kind."""
    pieces: list[str] = []
    position = 0
    for start, end, kind in spans:
        if start >= position:
            pieces += (component[position:start], MARKERS[kind])
        position = max(position, end)
    pieces.append(component[position:])
    return "".join(pieces)

"""E-mail addresses, internationalised ones included (RFC 5321, RFC 6531), found from their at signs.

The search jumps from at sign to at sign and looks at a bounded window around each, so its time is linear in the text.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.boundaries import MARKER, ends_with_marker
from apertus_jax.corpus.personal_data.spans import Span

WINDOW = 256  # RFC 5321 grants 64 octets before the at sign and 255 after; forwarding services use more before it
# Names that follow the at sign in picture files for dense screens and in packages, not in addresses.
NO_TOP_LEVEL_DOMAINS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "css", "js", "mjs", "json", "html", "htm", "php")
)

# Scripts that put no space between words: there an address would swallow the sentence around it, so they count as
# parts of an address only when it has no other letters (and Hangul, which writes particles behind the name).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u318f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
# Vowel signs and other marks that \w leaves out.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0980-\u0983\u09bc-\u09cd"
_SPACED = f"(?:(?![{_UNSPACED}])[\\w{_MARKS}])"
_ANY = f"[\\w{_MARKS}]"
_PUNCTUATION = "!#$%&'*+/=?^`{|}~-"  # `_` is in \w

_AT = re.compile(r"@(?<=[\w!#$%&'*+/=?^`{|}~.\-]@)(?=\[|[^\s@.]{1,63}+\.)")
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f:.]{3,45}\]", re.IGNORECASE)
_DOMAIN_RUN_REST = re.compile(rf"[\w{_MARKS}.\-]*+")


def _local_run(letter: str) -> re.Pattern[str]:
    """Compiles what may stand before an at sign, to be matched against reversed text."""
    return re.compile(rf"(?:{letter}|[{re.escape(_PUNCTUATION)}.])++")


def _domain(letter: str) -> re.Pattern[str]:
    """Compiles a domain: labels that neither begin nor end with a hyphen, the last one letters or Punycode."""
    alphanumeric = f"(?:(?!_){letter})"
    label = f"{alphanumeric}(?:(?:{alphanumeric}|-){{0,61}}{alphanumeric})?"
    top = f"(?:xn--[A-Za-z0-9\\-]{{1,58}}[A-Za-z0-9]|(?:(?![\\d_]){letter}){{2,63}})"
    return re.compile(rf"(?:{label}\.){{1,32}}{top}(?!{alphanumeric})", re.IGNORECASE)


_ALPHABETS = ((_local_run(_SPACED), _domain(_SPACED)), (_local_run(_ANY), _domain(_ANY)))


def find_emails(text: str) -> list[Span]:
    """Returns the e-mail addresses of a text, in order and disjoint."""
    found: list[Span] = []
    previous_end = 0
    for match in _AT.finditer(text):
        at = match.start()
        if at < previous_end:
            continue
        span = _address_around(text, at, previous_end)
        if span is not None:
            found.append(span)
            previous_end = span.end
    return found


def _address_around(text: str, at: int, earliest: int) -> Span | None:
    """Returns the address whose at sign stands at `at`, not beginning before `earliest`; None when it is none."""
    start = end = None
    reversed_window = text[max(earliest, at - WINDOW) : at][::-1]
    for local_run, _ in _ALPHABETS:
        if start is None and (run := local_run.match(reversed_window)):
            start = _local_start(text, at, at - run.end())
    if start is None:
        return None
    for _, domain in _ALPHABETS:
        if end is None and (name := domain.match(text, at + 1, at + 1 + WINDOW)):
            end = name.end()
    if end is not None and text[text.rfind(".", at, end) + 1 : end].lower() in NO_TOP_LEVEL_DOMAINS:
        return None
    if end is None and (literal := _LITERAL.match(text, at + 1)):
        end = literal.end()
    if end is None or MARKER.match(text, _DOMAIN_RUN_REST.match(text, end, end + WINDOW).end()):
        return None
    return Span(start, end, "email")


def _local_start(text: str, at: int, run_start: int) -> int | None:
    """Returns where the local part begins inside its run; None when nothing is left or a marker precedes the run.

    An ellipsis, quotation marks and the separators of markup and queries are not taken for its beginning.
    """
    if ends_with_marker(text, run_start):
        return None
    ellipsis = text.rfind("..", run_start, at)
    start = ellipsis + 2 if ellipsis >= 0 else run_start
    while start < at and (text[start] in _PUNCTUATION or text[start] == "."):
        start += 1
    return start if start < at else None

"""E-mail address detection, internationalised ones included (RFC 5321, RFC 6531), from the at signs.

The search jumps from at sign to at sign and looks at a bounded window around each, so its time is linear in the text.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.boundaries import MARKER, ends_with_marker
from apertus_jax.corpus.personal_data.checks import is_ip
from apertus_jax.corpus.personal_data.ip_addresses import names_package, numeric_host_end
from apertus_jax.corpus.personal_data.spans import Span, end_of
from apertus_jax.unspaced_scripts import EMAIL_CHARACTERS_1

WINDOW = 256  # RFC 5321 grants 64 octets before the at sign and 255 after; forwarding services use more before it
# Names that follow the at sign in picture files for dense screens and in packages, not in addresses.
NO_TOP_LEVEL_DOMAINS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "css", "js", "mjs", "json", "html", "htm", "php")
)

# Vowel signs and other marks that \w leaves out.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0980-\u0983\u09bc-\u09cd"
# In scripts without spaces an address would swallow the sentence around it, so their letters count as parts of one only
# when it has no others.
_SPACED = f"(?:(?![{EMAIL_CHARACTERS_1}])[\\w{_MARKS}])"
_ANY = f"[\\w{_MARKS}]"
_PUNCTUATION = "!#$%&'*+/=?^`{|}~-"  # `_` is in \w

_AT = re.compile(r"@(?<=[\w!#$%&'*+/=?^`{|}~.\-\"]@)(?=\[|[^\s@.]{1,63}+\.|[0-9A-Fa-f]{0,4}:)")
_LITERAL = re.compile(r"\[(?:IPv6:)?(?P<address>[0-9A-Fa-f:.]{2,45})(?:%[0-9A-Za-z]{1,15})?\]", re.IGNORECASE)
_QUOTED = re.compile(r"\"(?:[^\"\\\r\n]|\\[^\r\n]){1,64}\"")
# Where sources and files lie on another machine: the account is the service's, and a path follows the host.
# Not where another address follows: its marker would stand in the place of the path.
_REMOTE_PATH = re.compile(
    rf":(?!(?:(?!{MARKER.pattern})[^\s@]){{0,256}}@)"
    rf"(?:(?:[\w.~+/\-]|{MARKER.pattern}){{0,200}}\.git\b"
    rf"|(?!/|[0-9]+/)(?:[\w.~+\-]|{MARKER.pattern}){{0,200}}/|/(?!/))"
)
_REMOTE_SCHEME = re.compile(r"(?<![\w.\-])(?:git\+ssh|svn\+ssh|hg\+ssh|ssh|git|sftp|rsync)://\Z", re.IGNORECASE)
_DOMAIN_RUN_REST = re.compile(rf"[\w{_MARKS}.\-]*+")


def _local_run(letter: str) -> re.Pattern[str]:
    """Compiles what may stand before an at sign, to be matched against reversed text."""
    return re.compile(rf"(?:{letter}|[{re.escape(_PUNCTUATION)}.])++")


def _domain(letter: str) -> re.Pattern[str]:
    """Compiles a domain: labels that neither begin nor end with a hyphen, the last one letters or Punycode.

    Underscores are no part of host names by RFC 1123, and of existing ones they are.
    """
    alphanumeric = f"(?:(?!_){letter})"
    label = f"{alphanumeric}(?:(?:{letter}|-){{0,61}}{alphanumeric})?"
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
    start = _quoted_start(text, at, earliest) if text[at - 1] == '"' else None
    end = None
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
    if end is not None and _is_remote(text, start, end):
        return None
    if end is None and (literal := _LITERAL.match(text, at + 1)) and is_ip(literal["address"]):
        end = literal.end()
    if end is None and not names_package(text, at + 1):
        end = numeric_host_end(text, at + 1)
    if end is None or MARKER.match(text, end_of(_DOMAIN_RUN_REST, text, end, end + WINDOW)):
        return None
    return Span(start, end, "email")


def _quoted_start(text: str, at: int, earliest: int) -> int | None:
    """Returns where a local part in quotation marks begins; None when it is none or holds a marker."""
    opening = text.find('"', max(earliest, at - WINDOW // 2), at - 1)
    while opening >= 0:
        quoted = _QUOTED.match(text, opening)
        if quoted and quoted.end() == at:
            return None if MARKER.search(text, opening, at) else opening
        opening = text.find('"', opening + 1, at - 1)
    return None


def _is_remote(text: str, start: int, end: int) -> bool:
    """Returns whether an address is that of files or sources on a machine: `git@host:a/b.git`, `ssh://git@host/`."""
    if text.startswith(":", end) and _REMOTE_PATH.match(text, end):
        return True
    return text.endswith("://", 0, start) and bool(_REMOTE_SCHEME.search(text, max(0, start - 16), start))


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

"""Boundaries of personal data: what may stand beside a value, decided by two characters on each side.

A number that begins in the middle of a longer one is another number. A marker beside a candidate refuses it as well
whenever some text in the marker's place could have: a text that was rewritten must not look like a new one, so that
rewriting twice is rewriting once.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.policy import MARKERS

MARKER = re.compile("|".join(map(re.escape, MARKERS.values())))
_MARKER_END = "-pii>"
_HEX_OR_COLON = frozenset("0123456789abcdefABCDEF:")


def stands_alone(text: str, start: int, end: int, joining: str, joined: frozenset[str] | None = None) -> bool:
    """Returns whether characters `start` to `end` are not part of something longer.

    Refused are ASCII letters, digits of any script and markers directly beside them, and the same (or only `joined`)
    behind one `joining` character. Letters of other scripts may touch: many languages put no space there.
    """
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before:
        if _is_wordlike(before[-1]) or ends_with_marker(text, start):
            return False
        if before[-1] in joining:
            if len(before) == 2 and (before[0] in joined if joined else before[0].isdecimal()):
                return False
            if ends_with_marker(text, start - 1):
                return False
    if after:
        if _is_wordlike(after[0]) or MARKER.match(text, end):
            return False
        if after[0] in joining:
            if len(after) == 2 and (after[1] in joined if joined else after[1].isdecimal()):
                return False
            if MARKER.match(text, end + 1):
                return False
    return True


def stands_alone_as_ipv6(text: str, start: int, end: int) -> bool:
    """As `stands_alone`, for addresses: neither further groups behind a colon nor an IPv4 tail behind a dot."""
    return stands_alone(text, start, end, ":", _HEX_OR_COLON) and stands_alone(text, start, end, ".")


def ends_with_marker(text: str, position: int) -> bool:
    """Returns whether a marker ends at a position."""
    if not text.endswith(_MARKER_END, 0, position):
        return False
    opened = text.rfind("<", max(0, position - 16), position)
    return opened >= 0 and MARKER.fullmatch(text, opened, position) is not None


def _is_wordlike(character: str) -> bool:
    """Returns whether a character continues a number: an ASCII letter or a digit of any script."""
    return character.isdecimal() or (character.isascii() and character.isalpha())

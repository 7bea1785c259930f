"""Telephone number detection: international numbers with a known country code, and Swiss national ones.

There is no check digit, so the shape decides; this kind has to be asked for.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.personal_data.boundaries import MARKER, stands_alone
from apertus_jax.corpus.personal_data.spans import Span, end_of

MIN_DIGITS, MAX_DIGITS = 8, 15

# Country codes of one and two digits, and the tens whose codes have three (ITU-T E.164, annex of 2016).
_ONE_DIGIT = ("1", "7")
_TWO_DIGITS = re.compile("2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]")
_THREE_DIGITS = re.compile("2[1-69]|3[578]|42|5[09]|6[789]|8[0578]|9[679]")
_GAP = " \u00a0\u202f"
_GROUP = re.compile(rf"[{_GAP}.\-/]?\(?[0-9]{{1,4}}\)?")
# The next group of a number, were there one: a marker in its place may have hidden digits of a longer number.
_NEXT_GROUP = re.compile(rf"[{_GAP}.\-/]?\(?")
_PLUS = re.compile(r"\+(?=[1-9(])")
_ZEROS = re.compile(rf"00(?<![0-9]00)(?=[{_GAP}]?[1-9])")
_SWISS = re.compile(rf"0(?<![0-9]0)[1-9][0-9][{_GAP}./\-][0-9]{{3}}([{_GAP}.\-]?)[0-9]{{2}}\1[0-9]{{2}}(?![0-9])")
_NOT_DIGITS = re.compile(r"[^0-9]+")


def find_phones(text: str) -> list[Span]:
    """Returns the telephone numbers of a text: `+` or `00` and 8 to 15 digits, or Swiss ten-digit ones in groups."""
    found = []
    for prefix in (_PLUS, _ZEROS):
        for match in prefix.finditer(text):
            end = _international_end(text, match.end())
            if end is not None and stands_alone(text, match.start(), end, ".-"):
                found.append(Span(match.start(), end, "phone"))
    for match in _SWISS.finditer(text):
        if stands_alone(text, *match.span(), ".-"):
            found.append(Span(*match.span(), "phone"))
    return found


def _international_end(text: str, start: int) -> int | None:
    """Returns where a number ends whose country code begins at `start`: the most groups that E.164 permits."""
    digits, end = "", start
    while group := _GROUP.match(text, end):
        more = digits + _NOT_DIGITS.sub("", group.group())
        if len(more) > MAX_DIGITS:
            break
        digits, end = more, group.end()
    code_known = digits.startswith(_ONE_DIGIT) or _TWO_DIGITS.match(digits) or _THREE_DIGITS.match(digits)
    if not code_known or len(digits) < MIN_DIGITS or MARKER.match(text, end_of(_NEXT_GROUP, text, end)):
        return None
    return end

"""Normalisation against disguised PII: drops invisible characters, maps look-alikes to ASCII.

An address with a soft hyphen in it, `anna＠example．org`, digits of other scripts or groups between thin spaces are
read by people as what they are. Folding is by character, so a text in which everything was replaced folds to one in
which nothing is left to find. Texts without such characters near an at sign or a number are not folded.
"""

from __future__ import annotations

import bisect
import re
import sys
import unicodedata

import numpy as np

from apertus_jax.corpus.personal_data.spans import Span

# Soft hyphen, joiners, marks of direction, fillers, variation selectors, tags.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb"
)
_INVISIBLE_BEYOND = "\U000e0000-\U000e007f\U000e0100-\U000e01ef"
_DASHES = "\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_OWN_GAPS, _SPACES = "\u00a0\u202f", "\u1680\u2000-\u200a\u205f\u3000"
_FULL_STOPS = "\u3002\uff61"  # of the ends of sentences too
_DOTS = f"\u2024\ufe52\uff0e{_FULL_STOPS}"
_AT_SIGNS = "\ufe6b\uff20"
_WIDE = "\uff01-\uff5e"
_ESCAPED_AT = r"%40|&#0*64;|&#[xX]0*40;|&commat;"


def _digits(first: int, last: int) -> str:
    """Returns the decimal digits of every script between two code points as the inside of a class.

    At every start of a worker: one search through a text of all characters, not a million calls.
    """
    codes = np.arange(first, last + 1, dtype="<u4").tobytes()
    runs = re.findall(r"\d+", codes.decode("utf-32-le", "surrogatepass"))
    return "".join(f"{run[0]}-{run[-1]}" for run in runs)


# Classes within the basic plane are one table for the matcher; what lies beyond would make it compare range by range.
_DIGITS = _digits(0x80, 0xFFFF)
_DIGITS_BEYOND = _digits(0x10000, sys.maxunicode)
_SUSPECT_ESCAPE = re.compile(rf"(?<=\S)(?:{_ESCAPED_AT})(?=\S)")
_SUSPECT_BEYOND = re.compile(f"[{_DIGITS_BEYOND}{_INVISIBLE_BEYOND}]")
_ODD = re.compile(
    f"{_ESCAPED_AT}|[{_FULL_STOPS}](?=[0-9A-Za-z{_WIDE}{_DIGITS}\u00c0-\u05ff])"
    f"|[{_INVISIBLE}{_INVISIBLE_BEYOND}{_DASHES}{_OWN_GAPS}{_SPACES}\u2024\ufe52\ufe6b{_WIDE}{_DIGITS}{_DIGITS_BEYOND}]"
)
_HIDDEN = re.compile(f"[{_INVISIBLE}{_INVISIBLE_BEYOND}]")

_RARE = re.compile(f"[{_INVISIBLE}{_DASHES}{_OWN_GAPS}{_SPACES}{_DOTS}{_AT_SIGNS}\uff0b{_DIGITS}]")

_OF_NUMBER = rf"0-9{_DIGITS}.:\-_ \uff0e\uff1a\uff0d{_FULL_STOPS}\u2024"
# Each begins with a rare character or an at sign, so that a text without them is passed over quickly.
_SUSPECT = tuple(
    map(
        re.compile,
        (
            rf"[{_AT_SIGNS}](?<=\S.)(?=\S)",
            rf"@(?=[^\s@]{{0,80}}?[{_INVISIBLE}{_DOTS}])",
            rf"[{_INVISIBLE}](?=[^\s@]{{0,64}}@)"
            rf"|[{_INVISIBLE}](?<=[0-9A-Za-z.:+\- ()].)(?=[{_INVISIBLE}]*\ ?[0-9.:+])"
            rf"|[{_INVISIBLE}](?<=[0-9.:].)(?=[{_INVISIBLE}]*[A-Fa-f])"
            rf"|[{_INVISIBLE}](?<=[A-Za-z].)(?=[{_INVISIBLE}]*[A-Za-z][{_INVISIBLE}]*[0-9])",
            rf"[{_DIGITS}](?=[{_OF_NUMBER}]{{4}})",
            rf"[{_DOTS}](?<=[0-9].)(?=[0-9])",
            rf"\uff0b(?=[ (]?[0-9{_DIGITS}])",
            rf"[{_DASHES}{_SPACES}{_OWN_GAPS}](?<=[0-9].)(?=[0-9]{{4,6}}[{_DASHES}{_SPACES}{_OWN_GAPS} \-][0-9])",
            rf"[{_DASHES}{_SPACES}](?<=[0-9].)(?=\(?[0-9]{{2,4}}\)?[{_DASHES}{_SPACES} ][0-9]{{2}})",
        ),
    )
)


def may_hide_something(text: str) -> bool:
    """Returns whether a text has a disguised character where a value could be."""
    if ("%40" in text or "&#" in text or "&commat;" in text) and _SUSPECT_ESCAPE.search(text):
        return True
    if text.isascii():
        return False
    reaches_beyond = len(text.encode("utf-16-le", "surrogatepass")) > 2 * len(text)  # faster than to search
    if reaches_beyond and _SUSPECT_BEYOND.search(text):
        return True
    first = _RARE.search(text)
    return first is not None and any(pattern.search(text) for pattern in _SUSPECT)


class FoldedText:
    """A text without disguises; `span` leads back to the text."""

    def __init__(self, text: str):
        self._starts: list[int] = []  # of the pieces in the folded text
        self._origins: list[tuple[int, int, bool]] = []  # where each begins and ends in the text, and if it was changed
        pieces: list[str] = []
        length = position = 0
        for odd in (*_ODD.finditer(text), None):
            here = (position, odd.start() if odd else len(text))
            for piece, (start, end), changed in (
                (text[slice(*here)], here, False),
                (_plain(odd.group()) if odd else "", odd.span() if odd else here, True),
            ):
                if piece:
                    self._starts.append(length)
                    self._origins.append((start, end, changed))
                    pieces.append(piece)
                    length += len(piece)
            position = odd.end() if odd else position
        self.text = "".join(pieces)

    def span(self, found: Span) -> Span:
        """Returns where in the text a span of the folded one lies; characters that were left out only inside it."""
        first, last = self._piece(found.start), self._piece(found.end - 1)
        start, _, changed = self._origins[first]
        if not changed:
            start += found.start - self._starts[first]
        begin, end, changed = self._origins[last]
        if not changed:
            end = begin + found.end - self._starts[last]
        return Span(start, end, found.kind)

    def _piece(self, position: int) -> int:
        return bisect.bisect_right(self._starts, position) - 1


def _plain(odd: str) -> str:
    """Returns what a disguised character looks like, nothing for one that cannot be seen."""
    if len(odd) > 1 or odd in _AT_SIGNS:
        return "@"
    if odd.isdecimal():
        return str(unicodedata.decimal(odd))
    if _HIDDEN.match(odd):
        return ""
    if odd in "\u3002\uff61\u2024\ufe52":
        return "."
    if "\uff01" <= odd <= "\uff5e":
        return chr(ord(odd) - 0xFEE0)
    return " " if odd.isspace() else "-"

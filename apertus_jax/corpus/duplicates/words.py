"""Normalised words: the form of a text that deduplication and decontamination compare.

A text is cut at white space and each piece is folded on its own, in this order:
1. compatibility decomposition (NFKD), case folding, decomposition again;
2. diacritics go: marks above, below and attached (canonical combining class 200 and more), Hebrew, Arabic and Syriac
   points (10 to 36), and invisible characters (soft hyphen, joiners, variation selectors). Vowel signs, viramas and
   tone marks of Indic and South-East Asian scripts are letters for their readers and stay;
3. composition (NFC), so that Hangul syllables and voiced kana are one character again;
4. separators between digits go (1,000.5 → 10005); everything else that is neither letter, mark nor number separates;
5. a run of letters, marks and digits is one word. In scripts that are written without spaces every character with its
   marks is one word, whatever the language, so no dictionary is needed.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping

import regex

from apertus_jax.unspaced_scripts import DUPLICATE_WORDS_1, script_pattern

CACHED_WORDS = 1 << 16
LONGEST_CACHED = 32
PIECE_CHARACTERS = 1 << 20
ASCII_WORDS = re.compile(r"[0-9a-z]+")
SPACE = re.compile(r"\s")
DIGIT_SEPARATORS = re.compile(r"(?<=\d)[.,'\u2019\u066b\u066c](?=\d)")
DIGITS = re.compile(r"\d+")
FIRST_SPACELESS = "\u0e01"  # the lowest character of these scripts, Thai
_SPACELESS = script_pattern(DUPLICATE_WORDS_1)
UNICODE_WORDS = regex.compile(
    rf"[[{_SPACELESS}]&&[\p{{L}}\p{{N}}]]\p{{M}}*+|[[\p{{L}}\p{{N}}\p{{M}}]--[{_SPACELESS}]]++", regex.VERSION1
)
INVISIBLE = "\u00ad\u034f\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"


def unicode_versions() -> Mapping[str, str]:
    """Returns what decides the folding besides this file: the versions of the character tables."""
    return {"unicodedata": unicodedata.unidata_version, "regex": regex.__version__}


@functools.cache
def _diacritics() -> re.Pattern[str]:
    """Returns the pattern of runs of characters that step 2 removes."""
    marks = [chr(point) for point in range(0x300, 0x20000) if _is_diacritic(unicodedata.combining(chr(point)))]
    return re.compile(f"[{INVISIBLE}{''.join(marks)}]+")


def _is_diacritic(combining_class: int) -> bool:
    """Returns whether marks of a canonical combining class are folded away."""
    return 10 <= combining_class <= 36 or combining_class >= 200 or combining_class == 1


def fold(piece: str) -> str:
    """Returns the normalised words of a piece of text without white space, joined by single spaces; may be empty."""
    if piece.isascii():
        lowered = piece.lower()
        if lowered.isalnum():
            return lowered
        return " ".join(ASCII_WORDS.findall(DIGIT_SEPARATORS.sub("", lowered)))
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", piece).casefold())
    bare = _diacritics().sub("", decomposed)
    # Most pieces are one word of letters; what the general way below would make of them is known (and tested).
    if bare.isascii() and bare.isalnum():
        return bare
    composed = unicodedata.normalize("NFC", bare)
    if composed.isalpha() and max(composed) < FIRST_SPACELESS:
        return composed
    return " ".join(UNICODE_WORDS.findall(DIGIT_SEPARATORS.sub("", composed)))


class _FoldedPieces(dict[str, str]):
    """A bounded memory of folded pieces; forgetting changes nothing but the time."""

    def __missing__(self, piece: str) -> str:
        folded = fold(piece)
        if len(piece) <= LONGEST_CACHED:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[piece] = folded
        return folded


_folded_pieces = _FoldedPieces()


def normalized_words(text: str) -> str:
    """Returns the normalised words of a text, joined by single spaces; empty when there are none."""
    lookup = _folded_pieces.__getitem__
    return " ".join(filter(None, [" ".join(filter(None, map(lookup, piece.split()))) for piece in _pieces(text)]))


def fold_numbers(words: str) -> str:
    """Returns normalised words with every run of digits written 0, unless more than half of the words are numbers.

    Without the exception all tables of numbers would be one text.
    """
    folded = DIGITS.sub("0", words)
    if folded == words:
        return words
    numbers = folded.split(" ").count("0")
    return words if 2 * numbers > folded.count(" ") + 1 else folded


def _pieces(text: str) -> Iterator[str]:
    """Yields a text in parts of about a million characters, cut at white space: long documents stay cheap."""
    start = 0
    while start < len(text):
        space = SPACE.search(text, start + PIECE_CHARACTERS) if len(text) - start > PIECE_CHARACTERS else None
        stop = space.start() if space else len(text)
        yield text[start:stop]
        start = stop

"""Word 13-grams: the unit in which two texts share a passage.

A unit is a word: letters, marks and digits in NFKC form without case. In scripts that do not put spaces between words
each character is a unit, and so is each character of a run too long to be a word. A text with fewer than 13 units has
no 13-gram. Grams are compared by 64-bit hash: equal grams always meet, and a chance meeting can only make the check
stricter.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata

import numpy as np

from apertus_jax.corpus.language.scripts import character_table, code_points
from apertus_jax.mix64 import GOLDEN_RATIO_64
from apertus_jax.unspaced_scripts import NGRAM_UNITS_1, script_pattern

GRAM_LENGTH = 13
LONGEST_WORD = 24
BETWEEN, OF_A_WORD, UNIT_BY_ITSELF = 0, 1, 2


def text_units(text: str) -> list[str]:
    """Returns the units of a text, in order."""
    points = code_points(unicodedata.normalize("NFKC", text).casefold())
    kinds = unit_table()[points]
    by_itself = kinds == UNIT_BY_ITSELF
    # Blanks in place of what is no unit and around a unit by itself: then splitting at blanks gives the units.
    spaced = np.full(len(points) + 2 * int(by_itself.sum()), ord(" "), "<u4")
    places = np.arange(len(points)) + 2 * np.cumsum(by_itself) - by_itself
    units = kinds != BETWEEN
    spaced[places[units]] = points[units]
    words = spaced.tobytes().decode("utf-32-le", "surrogatepass").split()
    if all(len(word) <= LONGEST_WORD for word in words):
        return words
    return [unit for word in words for unit in ([word] if len(word) <= LONGEST_WORD else word)]


@functools.cache
def unit_table() -> np.ndarray:
    """Returns uint8[0x110000]: what each code point is in `text_units`."""
    alone, words = script_pattern(NGRAM_UNITS_1), r"\p{L}\p{M}\p{N}"
    patterns = {
        "between": rf"[^{words}{alone}]+",  # first, so that most of Unicode is passed over in a few runs
        "alone": rf"[{alone}]+",
        "word": rf"[[{words}]--[{alone}]]+",
    }
    return character_table(patterns, {"between": BETWEEN, "word": OF_A_WORD, "alone": UNIT_BY_ITSELF})


def text_ngram_hashes(text: str) -> np.ndarray:
    """Returns uint64[max(0, units − 12)], one hash per 13-gram of the text, in order."""
    units = np.fromiter(map(_hash_unit, text_units(text)), dtype=np.uint64)
    count = len(units) - GRAM_LENGTH + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    grams = np.zeros(count, dtype=np.uint64)
    for offset in range(GRAM_LENGTH):
        grams = grams * GOLDEN_RATIO_64 + units[offset : offset + count]
    return grams


@functools.lru_cache(maxsize=1 << 18)
def _hash_unit(unit: str) -> int:
    return int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=8).digest(), "little")

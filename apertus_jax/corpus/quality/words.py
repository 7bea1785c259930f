"""Word segmentation for quality heuristics: one rule for every language, many documents at once.

- In scripts with spaces a word is a run of letters and numbers with their marks; a single apostrophe, hyphen, full
  stop and the like between two of them belongs to the word.
- In scripts without spaces (Han, kana, Thai, Khmer, …) every letter with its marks is half a word: two letters count
  as one word, and an n-gram of words there is 2n letters, beginning at any letter. No dictionary, no language needed.
- A run of symbols that stands free between spaces is a word without letters; punctuation that touches a word is not.

A word has `units`: 2, or 1 for a letter of a script without spaces. Everything is linear in the text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apertus_jax.corpus.language.scripts import code_points
from apertus_jax.corpus.quality.characters import (
    ATTACHED,
    INNER,
    KIND,
    LETTER,
    SPACE,
    SYMBOL,
    UNSPACED,
    WORD,
    kinds_and_flags,
)
from apertus_jax.corpus.quality.fingerprints import Fingerprints

UNITS_PER_WORD = 2


@dataclasses.dataclass(frozen=True)
class Words:
    """Documents laid end to end, a newline before, between and after them, and their words in order.

    Attributes:
      codes: uint32[characters]. kinds: uint8[characters], before marks are attached; with flags.
      document_start, document_end: int64[documents], bounds of each text in `codes`.
      start, end: int64[words], bounds of each word in `codes`.
      units: int64[words], 2 or 1. symbol: bool[words], free runs of symbols. letter: bool[words], has a letter.
      first: int64[documents + 1], index of each document's first word.
      fingerprints: of the characters.
    """

    codes: np.ndarray
    kinds: np.ndarray
    document_start: np.ndarray
    document_end: np.ndarray
    start: np.ndarray
    end: np.ndarray
    units: np.ndarray
    symbol: np.ndarray
    letter: np.ndarray
    first: np.ndarray
    fingerprints: Fingerprints

    def document_of(self, positions: np.ndarray) -> np.ndarray:
        """Returns the index of the document in which each position of `codes` lies, int64[positions]."""
        return np.searchsorted(self.document_start, positions, side="right") - 1

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of one value per word over each document's words, int64[documents]."""
        total = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))[self.first]
        return total[1:] - total[:-1]


def segment(texts: Sequence[str]) -> Words:
    """Finds the words of every text."""
    codes = code_points("\n" + "\n".join(texts) + "\n")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    document_end = np.cumsum(lengths + 1)
    document_start = document_end - lengths
    kinds = kinds_and_flags()[codes]
    resolved, base = _resolve(kinds & KIND)
    boundary = resolved[1:] != resolved[:-1]
    boundary |= base[1:] == UNSPACED
    bounds = np.concatenate(([0], np.flatnonzero(boundary) + 1, [len(codes)]))
    kind = resolved[bounds[:-1]]
    # The text begins and ends with a space, so a run of symbols has a neighbour on each side.
    free = np.zeros(len(kind), bool)
    free[1:-1] = (kind[1:-1] == SYMBOL) & (kind[:-2] == SPACE) & (kind[2:] == SPACE)
    chosen = np.flatnonzero((kind == WORD) | (kind == UNSPACED) | free)
    start, end, kind = bounds[chosen], bounds[chosen + 1], kind[chosen]
    letters = np.concatenate(([0], np.cumsum((kinds & LETTER) != 0, dtype=np.int64)))
    return Words(
        codes=codes,
        kinds=kinds,
        document_start=document_start,
        document_end=document_end,
        start=start,
        end=end,
        units=np.where(kind == UNSPACED, 1, UNITS_PER_WORD),
        symbol=kind == SYMBOL,
        letter=letters[end] > letters[start],
        first=np.append(np.searchsorted(start, document_start), len(start)),
        fingerprints=Fingerprints(codes),
    )


def _resolve(base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each character's kind with marks and inner punctuation given to their words, and the kinds before."""
    resolved = base
    attached = base == ATTACHED
    if attached.any():
        carrier = np.arange(len(base))
        carrier[attached] = 0
        resolved = base[np.maximum.accumulate(carrier)]
    inner = np.flatnonzero(base == INNER)
    joined = inner[(resolved[inner - 1] == WORD) & (base[inner + 1] == WORD)]
    if resolved is base:
        resolved = base.copy()
    resolved[resolved == INNER] = SYMBOL
    resolved[joined] = WORD
    return resolved, base

"""Hashed n-grams of characters and words: an embedder for every script that needs only NumPy.

A chunk is normalised (NFKC, case folded, runs of anything but letters, marks and digits kept as they are), and each
n-gram of its characters and each word and pair of words adds +1 or −1 to one of D cells, both chosen by a 64-bit hash
(feature hashing, arXiv 0902.2206). A cell holding count c becomes sign(c)·(1 + ln |c|), and the vector is scaled to
length 1. Work is linear in the text. Integer arithmetic decides every cell, so machines agree.

It knows spellings, not meanings: a head over it says little about languages and scripts that it was not trained on
(`experiments/toxicity_and_quality.py` measures how little).
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.mix64 import GOLDEN_RATIO_64, mix64
from apertus_jax.validation import fields_by_annotation

FORMAT = 1
CHARACTER_LENGTHS = (1, 2, 3, 4)
SMALLEST, LARGEST = 64, 1 << 16
# A cut may move back this share of a chunk to find white space, so that words stay whole.
LATEST_CUT = 8
CLASSIFIED = 0x20000
WORD_SALT, PAIR_SALT = np.uint64(0x5851F42D4C957F2D), np.uint64(0x14057B7EF767814F)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class HashedNgramEmbedding:
    """Options of the hashed embedder: cells D (a power of two) and the longest chunk in characters."""

    dimensions: int = 4096
    chunk_characters: int = 2000

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
          UserError: one is out of range.
        """
        size = self.dimensions
        if not SMALLEST <= size <= LARGEST or size & (size - 1):
            raise UserError(
                f"HashedNgramEmbedding.dimensions {size} must be a power of two from {SMALLEST} to {LARGEST}"
            )
        if self.chunk_characters < 64:
            raise UserError(f"HashedNgramEmbedding.chunk_characters {self.chunk_characters} must be at least 64")

    def build(self) -> HashedNgramEmbedder:
        """Returns the embedder."""
        return HashedNgramEmbedder(self)


class HashedNgramEmbedder:
    """See the module."""

    def __init__(self, options: HashedNgramEmbedding):
        self._options = options

    @property
    def dimensions(self) -> int:
        """The number of cells."""
        return self._options.dimensions

    def identity(self) -> Mapping[str, Any]:
        """Returns options and the version of the character tables that normalisation follows."""
        return {
            "implementation": "hashed_ngrams",
            "format": FORMAT,
            **dataclasses.asdict(self._options),
            "character_lengths": list(CHARACTER_LENGTHS),
            "unicode": unicodedata.unidata_version,
        }

    def chunks(self, text: str) -> Sequence[str]:
        """Cuts a text into pieces of at most `chunk_characters`, at white space where there is some near the end."""
        size = self._options.chunk_characters
        pieces, start = [], 0
        while len(text) - start > size:
            end = start + size
            longest_cut = size // LATEST_CUT
            end -= (longest_cut - _after_last_space(text[end - longest_cut : end])) % longest_cut
            pieces.append(text[start:end])
            start = end
        if start < len(text) or not pieces:
            pieces.append(text[start:])
        return pieces

    def embed(self, chunks: Sequence[str]) -> np.ndarray:
        """Returns float16 [number of chunks, D], every row of length 1 (or 0 where a chunk has no character)."""
        rows = np.zeros((len(chunks), self.dimensions), np.float16)
        for row, chunk in zip(rows, chunks, strict=True):
            row[:] = self._embed(chunk)
        return rows

    def _embed(self, chunk: str) -> np.ndarray:
        points = _code_points(chunk)
        if not len(points):
            return np.zeros(self.dimensions)
        hashes = np.concatenate([*_character_ngrams(points), *_word_ngrams(points)])
        cells = (hashes >> np.uint64(1)).astype(np.int64) & (self.dimensions - 1)
        positive = np.bincount(cells[hashes & np.uint64(1) == 1], minlength=self.dimensions)
        counts = 2 * positive - np.bincount(cells, minlength=self.dimensions)
        size = np.abs(counts)
        values = np.sign(counts) * (1.0 + _logarithms()[np.minimum(size, len(_logarithms()) - 1)])
        # Two n-grams can cancel in every cell of a tiny text.
        length = np.sqrt(np.sum(values * values))
        return values / length if length else values


def _after_last_space(text: str) -> int:
    """Returns the position after the last white space of a text, 0 without any."""
    for position in range(len(text), 0, -1):
        if text[position - 1].isspace():
            return position
    return 0


@functools.cache
def _logarithms() -> np.ndarray:
    """Returns ln(count) of the counts that a chunk can hold, with 0 at 0; larger counts use the last entry."""
    return np.log(np.maximum(np.arange(1 << 16), 1))


@functools.cache
def _word_characters() -> np.ndarray:
    """Returns bool [CLASSIFIED]: letters, marks and digits, marks because Indic vowels are marks."""
    return np.array([unicodedata.category(chr(point))[0] in "LMN" for point in range(CLASSIFIED)])


def _code_points(chunk: str) -> np.ndarray:
    """Returns the normalised characters of a chunk as uint64, one space at either end, runs of white space as one."""
    text = chunk if chunk.isascii() else unicodedata.normalize("NFKC", chunk)
    words = text.casefold().split()
    if not words:
        return np.zeros(0, np.uint64)
    padded = f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass")
    return np.frombuffer(padded, np.uint32).astype(np.uint64)


def _character_ngrams(points: np.ndarray) -> list[np.ndarray]:
    """Returns one array of hashes for each length of character n-grams."""
    found, rolling = [], np.zeros(len(points), np.uint64)
    for length in range(1, max(CHARACTER_LENGTHS) + 1):
        if length > len(points):
            break
        rolling = rolling[: len(points) - length + 1] * GOLDEN_RATIO_64 + points[length - 1 :] + np.uint64(1)
        if length in CHARACTER_LENGTHS:
            found.append(mix64(rolling ^ np.uint64(length << 56)))
    return found


def _word_ngrams(points: np.ndarray) -> list[np.ndarray]:
    """Returns the hashes of words, and of pairs of neighbouring words."""
    in_word = _word_characters()[np.minimum(points, CLASSIFIED - 1).astype(np.int64)] | (points >= CLASSIFIED)
    edges = np.flatnonzero(np.diff(in_word.astype(np.int8)))
    starts, ends = edges[0::2] + 1, edges[1::2] + 1
    if not len(starts):
        return []
    lengths = ends - starts
    inside = np.flatnonzero(in_word)
    first_of_word = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    place = np.arange(len(inside)) - np.repeat(first_of_word, lengths)
    letters = mix64(points[inside] * GOLDEN_RATIO_64 + place.astype(np.uint64))
    words = mix64(np.add.reduceat(letters, first_of_word) ^ WORD_SALT)
    pairs = mix64(words[:-1] * GOLDEN_RATIO_64 + words[1:] ^ PAIR_SALT)
    return [words, pairs]

"""Ratcliff-Obershelp matching blocks of a document and a benchmark item, as `difflib` without junk.

Only blocks of a least length count, and every part of the comparison whose longest match is shorter holds none. So the
comparison starts from the n-grams of that length that both texts share: they are few, and the time is bounded by
their number instead of the product of the lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apertus_jax.mix64 import GOLDEN_RATIO_64, mix64


class WorkLimitError(Exception):
    """A comparison would take more steps than it may; what the caller reports as unresolved."""


class Work:
    """The steps that may still be spent on a document."""

    def __init__(self, steps: int):
        self.left = steps

    def spend(self, steps: int) -> None:
        """Subtracts steps from the budget.

        Raises:
          WorkLimitError: there are not as many; none is taken then.
        """
        if steps > self.left:
            raise WorkLimitError
        self.left -= steps


class Segments(NamedTuple):
    """Common runs of tokens: where they start in the document and in the item, and their lengths, int64[segments]."""

    document: np.ndarray
    item: np.ndarray
    length: np.ndarray


def token_ngram_hashes(tokens: np.ndarray, size: int) -> np.ndarray:
    """Returns hashes uint64[tokens - size + 1] of all runs of `size` tokens uint64[tokens]; empty if there are none."""
    count = len(tokens) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashes = tokens[:count].copy()
    for offset in range(1, size):
        hashes *= GOLDEN_RATIO_64
        hashes += tokens[offset : offset + count]
    return mix64(hashes)


class DocumentGrams:
    """The n-grams of one document, sorted once and compared with any number of items."""

    def __init__(self, tokens: np.ndarray, size: int):
        hashes = token_ngram_hashes(tokens, size)
        self.size = size
        self._positions = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._positions]

    def ranges(self, item_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns for each n-gram of the item the range of the sorted n-grams of the document equal to it."""
        hashes = token_ngram_hashes(item_tokens, self.size)
        first = np.searchsorted(self._hashes, hashes, "left")
        return first, np.searchsorted(self._hashes, hashes, "right")

    def covered(self, item_tokens: np.ndarray) -> int:
        """Returns how many tokens of the item lie in an n-gram that the document has too: no block reaches beyond."""
        first, stop = self.ranges(item_tokens)
        changes = np.zeros(len(item_tokens) + 1, np.int64)
        starts = np.flatnonzero(stop > first)
        changes[starts] += 1
        changes[starts + self.size] -= 1
        return int((np.cumsum(changes) > 0).sum())

    def segments(self, item_tokens: np.ndarray, work: Work) -> Segments:
        """Returns all common runs of at least `size` tokens that cannot be made longer; a pair of n-grams is a step.

        Raises:
          WorkLimitError: there is not enough work left for all pairs of equal n-grams.
        """
        first, stop = self.ranges(item_tokens)
        counts = stop - first
        total = int(counts.sum())
        work.spend(total)
        item = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        document = self._positions[np.repeat(first, counts) + within]
        order = np.lexsort((item, document - item))
        document, item = document[order], item[order]
        starts = np.ones(total, bool)
        starts[1:] = (np.diff(document - item) != 0) | (np.diff(item) != 1)
        heads = np.flatnonzero(starts)
        length = np.diff(heads, append=total) + self.size - 1
        return Segments(document[heads], item[heads], length)


def matching_blocks(segments: Segments, shortest: int, work: Work) -> list[tuple[int, int, int]]:
    """Returns the blocks (document start, item start, length) of at least `shortest` tokens, in order.

    The longest common run is a block (the first in the document, then in the item, among equals), and the parts left
    and right of it are compared in the same way. `segments` are the common runs of at least `shortest` tokens.

    Raises:
      WorkLimitError: there is not enough work left to look at all segments.
    """
    blocks = []
    infinite = np.iinfo(np.int64).max
    pending = [(segments, 0, infinite, 0, infinite)]
    while pending:
        part, document_from, document_to, item_from, item_to = pending.pop()
        work.spend(len(part.length))
        part = _clipped(part, document_from, document_to, item_from, item_to, shortest)
        if not len(part.length):
            continue
        longest = np.flatnonzero(part.length == part.length.max())
        best = longest[np.lexsort((part.item[longest], part.document[longest]))[0]]
        document, item, length = int(part.document[best]), int(part.item[best]), int(part.length[best])
        blocks.append((document, item, length))
        pending.append((part, document_from, document, item_from, item))
        pending.append((part, document + length, document_to, item + length, item_to))
    return sorted(blocks)


def _clipped(
    segments: Segments, document_from: int, document_to: int, item_from: int, item_to: int, shortest: int
) -> Segments:
    """Returns the parts of segments inside a rectangle of the comparison that are at least `shortest` long."""
    skipped = np.maximum(np.maximum(document_from - segments.document, item_from - segments.item), 0)
    stop = np.minimum(np.minimum(document_to - segments.document, item_to - segments.item), segments.length)
    kept = np.flatnonzero(stop - skipped >= shortest)
    skipped = skipped[kept]
    return Segments(segments.document[kept] + skipped, segments.item[kept] + skipped, stop[kept] - skipped)

"""Best-fit packing index: whole documents share a sample; only documents longer than one are cut.

Long documents are cut into windows of T + 1 tokens that overlap by one, as in the stored stream, so that each of their
labels is trained once. What remains of a cut document opens a sample of its own: it stands first there, where its left
context can be given. Whole documents are then placed, longest first, into the fullest sample that still holds them.
"""

from __future__ import annotations

import numpy as np

from apertus_jax.data.sample_order.sample_index import Spans, TokenSource
from apertus_jax.errors import UserError


class BestFitIndex:
    """Samples of whole documents, at most T + 1 tokens each. Tables of one entry per piece; the same on every run."""

    def __init__(self, source: TokenSource, sequence_length: int, name: str = "source"):
        """Packs all documents of `source`. Raises UserError when it has no tokens or `sequence_length` is below 1."""
        if sequence_length < 1:
            raise UserError(f"sequence_length is {sequence_length}; it must be at least 1")
        if source.num_tokens < 1:
            raise UserError(f"source {name!r} has no tokens to pack; add documents to it")
        self.sequence_length = sequence_length
        lengths = np.diff(np.asarray(source.document_starts)).astype(np.int64)
        document, start, length = cut_documents(lengths, sequence_length)
        sample = best_fit(length, start > 0, sequence_length + 1)
        by_sample = np.lexsort((document, start == 0, sample))
        self._document, self._start, self._length = document[by_sample], start[by_sample], length[by_sample]
        self._sample = sample[by_sample]
        self.num_samples = int(self._sample[-1]) + 1
        self._sample_offsets = np.searchsorted(self._sample, np.arange(self.num_samples + 1))
        self._by_document = np.argsort(self._document, kind="stable")
        self._document_offsets = np.searchsorted(self._document[self._by_document], np.arange(len(lengths) + 1))

    def spans(self, sample: int) -> Spans:
        """Returns the spans of sample `sample`; their lengths sum to at most T + 1. O(1)."""
        pieces = slice(self._sample_offsets[sample], self._sample_offsets[sample + 1])
        return Spans(self._document[pieces], self._start[pieces], self._length[pieces])

    def samples_of_document(self, document: int) -> np.ndarray:
        """Returns int64[n]: the samples that hold a piece of `document`. O(1) and the size of the answer."""
        pieces = self._by_document[self._document_offsets[document] : self._document_offsets[document + 1]]
        return np.unique(self._sample[pieces])


def cut_documents(lengths: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts documents int64[N] of these lengths into pieces of at most T + 1 tokens: document, start, length, int64[n].

    Pieces of one document overlap by one token (the last label of one is the first input of the next), so a document
    of more than T + 1 tokens gives ceil((length - 1) / T) pieces. Empty documents give none.
    """
    pieces = np.where(lengths > 0, np.maximum(1, -(-(lengths - 1) // sequence_length)), 0)
    document = np.repeat(np.arange(len(lengths), dtype=np.int64), pieces)
    first_piece = np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = (np.arange(len(document), dtype=np.int64) - first_piece) * sequence_length
    return document, start, np.minimum(lengths[document] - start, sequence_length + 1)


def best_fit(lengths: np.ndarray, must_open: np.ndarray, capacity: int) -> np.ndarray:
    """Returns the sample int64[n] that each piece int64[n] is packed into: best fit, longest first, ties in order.

    Pieces with `must_open` open a sample of their own before any other is placed. Each round places as many pieces of
    one length as the fullest fitting samples hold, so the Python loop counts distinct lengths, not pieces.
    """
    sample = np.empty(len(lengths), dtype=np.int64)
    openers = np.flatnonzero(must_open)
    sample[openers] = np.arange(len(openers))
    num_samples = len(openers)
    free = _SamplesByFreeSpace(capacity)
    for space in np.unique(capacity - lengths[openers]):
        free.add(int(space), np.flatnonzero(capacity - lengths[openers] == space))

    rest = np.flatnonzero(~np.asarray(must_open))
    rest = rest[np.argsort(-lengths[rest], kind="stable")]
    group_starts = np.flatnonzero(np.diff(lengths[rest], prepend=-1))
    for group in np.split(rest, group_starts[1:]) if len(rest) else []:
        length, placed = int(lengths[group[0]]), 0
        while placed < len(group):
            space = free.smallest(length)
            if space is None:
                per_sample = capacity // length
                count = -(-(len(group) - placed) // per_sample)
                free.add(capacity, np.arange(num_samples, num_samples + count))
                num_samples += count
                continue
            per_sample = space // length
            taken = free.take(space, -(-(len(group) - placed) // per_sample))
            slots = np.repeat(taken, per_sample)[: len(group) - placed]
            sample[group[placed : placed + len(slots)]] = slots
            placed += len(slots)
            in_last = len(slots) - per_sample * (len(taken) - 1)
            free.add(space - per_sample * length, taken[:-1])
            free.add(space - in_last * length, taken[-1:])
    return sample


class _SamplesByFreeSpace:
    """Open samples grouped by the space left in them; within a group, first in, first out."""

    def __init__(self, capacity: int):
        self._groups: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]
        self._filled = np.zeros(capacity + 1, dtype=bool)

    def add(self, space: int, samples: np.ndarray) -> None:
        if len(samples) and space > 0:
            self._groups[space].append(samples)
            self._filled[space] = True

    def smallest(self, at_least: int) -> int | None:
        """Returns the least space of `at_least` or more that some sample has, or None."""
        offset = int(np.argmax(self._filled[at_least:]))
        return at_least + offset if self._filled[at_least + offset] else None

    def take(self, space: int, count: int) -> np.ndarray:
        """Removes and returns up to `count` samples with exactly this space, oldest first."""
        samples = np.concatenate(self._groups[space])
        self._groups[space] = [samples[count:]] if len(samples) > count else []
        self._filled[space] = bool(self._groups[space])
        return samples[:count]

"""Document index: one document a sample, without packing. Each has a row of its own, padded or cut at its end."""

from __future__ import annotations

import numpy as np

from apertus_jax.data.sample_order.sample_index import Spans, TokenSource
from apertus_jax.errors import UserError


class DocumentIndex:
    """Samples of one document each, its first T + 1 tokens; what is longer is cut, not continued.

    Of a source with loss weights a document stands in no sample when none of its labels there has one: a conversation
    whose first answer lies behind the cut teaches nothing (docs/reference/evaluation_and_release.md §5.2).
    """

    def __init__(self, source: TokenSource, sequence_length: int, name: str = "source"):
        """Raises UserError when no document has a label to learn, or `sequence_length` is below 1."""
        if sequence_length < 1:
            raise UserError(f"sequence_length is {sequence_length}; it must be at least 1")
        self.sequence_length = sequence_length
        starts = np.asarray(source.document_starts, dtype=np.int64)
        self._lengths = np.minimum(np.diff(starts), sequence_length + 1)
        learnt = self._lengths > 1
        weights = getattr(source, "weights", None)
        if weights is not None:
            learnt &= weigh_spans(weights, starts[:-1] + 1, starts[:-1] + self._lengths) > 0
        self._documents = np.flatnonzero(learnt)
        self._sample_of_document = np.cumsum(learnt) - 1
        self._learnt = learnt
        self.num_samples = len(self._documents)
        if not self.num_samples:
            raise UserError(
                f"source {name!r} has no document with a label to learn in its first {sequence_length + 1} tokens; add "
                "documents or raise sequence_length"
            )

    def spans(self, sample: int) -> Spans:
        """Returns the one span of sample `sample`. O(1)."""
        document = self._documents[sample : sample + 1]
        return Spans(document, np.zeros(1, dtype=np.int64), self._lengths[document])

    def samples_of_document(self, document: int) -> np.ndarray:
        """Returns int64[n]: the sample that holds `document`, none for one that was left out. O(1)."""
        found = [self._sample_of_document[document]] if self._learnt[document] else []
        return np.array(found, dtype=np.int64)


def weigh_spans(weights: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the sum of weights float32[N] over each span starts[i] .. ends[i] - 1; spans ascend and are disjoint."""
    if not len(starts):
        return np.zeros(0)
    edges = np.stack([starts, np.maximum(ends, starts)], axis=1).reshape(-1)
    # The sum from the last edge on would begin behind the array; a zero stands there.
    sums = np.add.reduceat(np.append(weights, np.float32(0)), np.minimum(edges, len(weights)), dtype=np.float64)[::2]
    return np.where(ends > starts, sums, 0)

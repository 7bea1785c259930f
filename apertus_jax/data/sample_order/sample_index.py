"""Sample index: sample number ↔ the spans of documents that it is made of.

A `SampleIndex` knows documents only by their lengths. `WindowIndex`, the default, needs no table: sample k is tokens
k·T .. k·T+T of the stored stream, so both directions are arithmetic and one binary search. `megatron_index` and
`best_fit_index` hold the other two implementations; provenance and loading treat all three alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from apertus_jax.errors import UserError


class TokenSource(Protocol):
    """One source of a token store: its documents one after another, read in place."""

    document_starts: np.ndarray  # int64[num_documents + 1], offsets in tokens

    @property
    def num_documents(self) -> int:
        """How many documents it has."""

    @property
    def num_tokens(self) -> int:
        """How many tokens they have."""

    @property
    def documents(self) -> Any:
        """A pyarrow.Table with at least document_id and document_key."""

    def tokens(self, start: int, length: int) -> np.ndarray:
        """Returns int32[length]: the stored tokens from offset `start`."""
        ...


class Spans(NamedTuple):
    """The pieces of documents in one sample, in order: three int64[n] arrays, `start` counted within the document."""

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


class SampleIndex(Protocol):
    """sample number → spans, and document → sample numbers."""

    sequence_length: int  # T: a sample holds at most T + 1 tokens
    num_samples: int

    def spans(self, sample: int) -> Spans:
        """Returns the spans of one sample; their lengths sum to at most T + 1."""
        ...

    def samples_of_document(self, document: int) -> np.ndarray:
        """Returns int64[n]: every sample that holds a token of `document`, ascending, each once."""
        ...


def spans_of_stream(boundaries: np.ndarray, begin: int, length: int) -> Spans:
    """Returns the spans of stream tokens begin .. begin+length-1 where item i is boundaries[i] .. boundaries[i+1]-1.

    `boundaries` is a non-decreasing int64[n + 1]; empty items are passed over.
    """
    end = begin + length
    first = int(np.searchsorted(boundaries, begin, side="right")) - 1
    last = int(np.searchsorted(boundaries, end, side="left"))
    edges = np.clip(boundaries[first : last + 1], begin, end)
    lengths = np.diff(edges)
    items = np.arange(first, last, dtype=np.int64)
    starts = edges[:-1] - boundaries[first:last]
    if lengths.all():
        return Spans(items, starts, lengths)
    filled = lengths > 0
    return Spans(items[filled], starts[filled], lengths[filled])


def windows_of_range(begin: int, end: int, sequence_length: int, num_samples: int) -> np.ndarray:
    """Returns int64[n]: the windows k·T .. k·T+T that hold a stream token of begin .. end-1.

    Neighbouring windows share one token, so a token at a multiple of T belongs to two of them.
    """
    if end <= begin:
        return np.empty(0, dtype=np.int64)
    first = max(0, -((sequence_length - begin) // sequence_length))
    last = min((end - 1) // sequence_length, num_samples - 1)
    return np.arange(first, last + 1, dtype=np.int64)


def count_windows(num_tokens: int, sequence_length: int, name: str) -> int:
    """Returns (num_tokens - 1) // T, the number of whole windows.

    Raises:
      UserError: there is not one; `name` says whose tokens they are.
    """
    if sequence_length < 1:
        raise UserError(f"sequence_length is {sequence_length}; it must be at least 1")
    num_samples = (num_tokens - 1) // sequence_length
    if num_samples < 1:
        raise UserError(
            f"source {name!r} has {num_tokens} tokens, too few for one sample of {sequence_length + 1}; "
            "add documents or lower sequence_length"
        )
    return num_samples


class WindowIndex:
    """Closed-form windows over the stored stream: sample k holds tokens k·T .. k·T+T. No tables of its own."""

    def __init__(self, source: TokenSource, sequence_length: int, name: str = "source"):
        """Raises UserError when the source is shorter than one window."""
        self.sequence_length = sequence_length
        self.num_samples = count_windows(source.num_tokens, sequence_length, name)
        self._document_starts = source.document_starts

    def spans(self, sample: int) -> Spans:
        """Returns the spans of sample `sample`; their lengths sum to T + 1. O(log documents)."""
        return spans_of_stream(self._document_starts, int(sample) * self.sequence_length, self.sequence_length + 1)

    def samples_of_document(self, document: int) -> np.ndarray:
        """Returns int64[n]: the samples that hold a token of `document`. O(1) and the size of the answer."""
        begin, end = int(self._document_starts[document]), int(self._document_starts[document + 1])
        return windows_of_range(begin, end, self.sequence_length, self.num_samples)

"""Batching of scoring requests: rows that several requests share, sorted by length, in fixed shapes.

A row's bucket depends on its own length only and the shape of a batch on the bucket only, so a request is computed by
the same program whatever comes with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from apertus_jax.evaluation.scoring.requests import ScoringRequest, model_input

SMALLEST_BUCKET = 16
# Last tokens that one row can be asked about at once: the letters of a multiple-choice question share a forward pass.
ALTERNATIVES = 8


@dataclasses.dataclass
class Row:
    """One sequence that the model reads, and the requests that read their answer off it.

    Attributes:
      tokens: int32[T].
      first: the first position whose next token is scored; positions `first … T - 1` are.
      last_labels: candidates for the token after the last; the tokens before it are `tokens` themselves.
      readers: (request, length of its continuation, place of its last token in `last_labels`).
    """

    tokens: np.ndarray
    first: int
    last_labels: list[int] = dataclasses.field(default_factory=list)
    readers: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)

    @property
    def num_scored(self) -> int:
        """How many positions are scored."""
        return len(self.tokens) - self.first

    def labels(self) -> np.ndarray:
        """Returns the tokens to predict: int32[num_scored, ALTERNATIVES], the second axis filled at the last only."""
        labels = np.zeros((self.num_scored, ALTERNATIVES), np.int32)
        labels[:-1, 0] = self.tokens[self.first + 1 :]
        labels[-1, : len(self.last_labels)] = self.last_labels
        return labels


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """The fixed shape of the batches of one bucket: C shards of R rows of `length` tokens, scored in tiles."""

    shards: int
    rows: int
    length: int
    tile: int

    @property
    def capacity(self) -> int:
        """Scored positions of one shard, rounded up to whole tiles."""
        return -(-self.rows * self.length // self.tile) * self.tile


@dataclasses.dataclass(frozen=True)
class Batch:
    """A padded batch.

    Attributes:
      shape: see `BatchShape`.
      rows: the rows in it, at most C × R.
      tokens: int32[C × R, length], padded on the right.
      places: int32[C, capacity], where the scored positions stand in a shard's rows laid end to end.
      labels: int32[C, capacity, ALTERNATIVES].
      num_tiles: tiles that have a scored position, at the shard that has most.
      spans: for each row its shard and the range of its positions in `places`.
    """

    shape: BatchShape
    rows: Sequence[Row]
    tokens: np.ndarray
    places: np.ndarray
    labels: np.ndarray
    num_tiles: int
    spans: Sequence[tuple[int, slice]]


def bucket_length(length: int, longest: int, smallest: int = SMALLEST_BUCKET) -> int:
    """Returns the padded length of a row: `smallest` × 1, 2, 3, 4, 6, 8, 12, 16, 24, … that holds `length` tokens.

    It is `longest` where that is smaller and a multiple of `smallest`, as kernels of accelerators want it.
    """
    bucket = smallest
    while bucket < length:
        if bucket + bucket // 2 >= length and bucket > smallest:
            bucket += bucket // 2
        else:
            bucket *= 2
    return longest if length <= longest < bucket and longest % smallest == 0 else bucket


def make_rows(requests: Sequence[ScoringRequest], longest: int, vocab_size: int) -> list[Row]:
    """Returns the rows that answer all requests; requests whose model inputs are equal share one.

    Raises:
      UserError: see `model_input`.
    """
    rows: list[Row] = []
    newest: dict[bytes, Row] = {}
    for number, request in enumerate(requests):
        tokens, last = model_input(request, number, longest, vocab_size)
        first = len(tokens) - len(request.continuation)
        key = tokens.tobytes()
        row = newest.get(key)
        if row is None or (last not in row.last_labels and len(row.last_labels) == ALTERNATIVES):
            row = newest[key] = Row(tokens, first)
            rows.append(row)
        if last not in row.last_labels:
            row.last_labels.append(last)
        row.first = min(row.first, first)
        row.readers.append((number, len(request.continuation), row.last_labels.index(last)))
    return rows


def make_batches(
    rows: Sequence[Row], longest: int, batch_tokens: int, shards: int, tile: int, smallest: int = SMALLEST_BUCKET
) -> Iterator[Batch]:
    """Yields the batches of all rows, longest first; those of one bucket have one shape."""
    buckets: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: -len(row.tokens)):
        buckets.setdefault(bucket_length(len(row.tokens), longest, smallest), []).append(row)
    for length, members in buckets.items():
        shape = BatchShape(shards, max(1, batch_tokens // (length * shards)), length, tile)
        size = shape.rows * shards
        for start in range(0, len(members), size):
            yield fill_batch(shape, members[start : start + size])


def fill_batch(shape: BatchShape, rows: Sequence[Row]) -> Batch:
    """Lays rows out in a batch, dealt to the shards in turn so that each has about as much to score."""
    tokens = np.zeros((shape.shards, shape.rows, shape.length), np.int32)
    places = np.zeros((shape.shards, shape.capacity), np.int32)
    labels = np.zeros((shape.shards, shape.capacity, ALTERNATIVES), np.int32)
    used = [0] * shape.shards
    spans = []
    for number, row in enumerate(rows):
        shard, local = number % shape.shards, number // shape.shards
        tokens[shard, local, : len(row.tokens)] = row.tokens
        span = slice(used[shard], used[shard] + row.num_scored)
        used[shard] = span.stop
        places[shard, span] = local * shape.length + np.arange(row.first, len(row.tokens))
        labels[shard, span] = row.labels()
        spans.append((shard, span))
    num_tiles = -(-max(used) // shape.tile)
    return Batch(shape, rows, tokens.reshape(-1, shape.length), places, labels, num_tiles, spans)

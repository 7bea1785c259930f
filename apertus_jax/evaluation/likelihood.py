"""Log-likelihoods of documents: length-bucketed, one compilation per bucket, float32 sums."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.objectives import token_losses

SMALLEST_BUCKET = 32
NUM_TILES = 4


@functools.partial(jax.jit, static_argnames=("config",))
def _losses_per_token(config: ModelConfig, params: Any, tokens: jax.Array) -> jax.Array:
    """`int32[B, T+1] -> float32[B, T]`: cross-entropy of each next token."""
    hidden = Transformer(config).apply({"params": params}, tokens[:, :-1], method="hidden_states")
    return token_losses(hidden, params["lm_head"]["kernel"], tokens[:, 1:], num_tiles=NUM_TILES)


def bucket_length(length: int, longest: int) -> int:
    """Returns the padded length of a row of `length` labels: the next power of two, at most `longest`."""
    bucket = SMALLEST_BUCKET
    while bucket < length:
        bucket *= 2
    return min(bucket, longest)


def cut_into_rows(documents: Sequence[np.ndarray], sequence_length: int) -> list[tuple[int, np.ndarray]]:
    """Cuts documents into rows of at most `sequence_length` labels; neighbours of one document share one token."""
    return [
        (index, tokens[start : start + sequence_length + 1])
        for index, tokens in enumerate(documents)
        for start in range(0, len(tokens) - 1, sequence_length)
    ]


def _batches(
    rows: Sequence[tuple[int, np.ndarray]], sequence_length: int, tokens_per_batch: int
) -> Iterator[tuple[int, list[tuple[int, np.ndarray]]]]:
    """Groups rows of one bucket into batches of about `tokens_per_batch`; yields `(bucket, rows)`."""
    buckets: dict[int, list[tuple[int, np.ndarray]]] = {}
    for row in rows:
        buckets.setdefault(bucket_length(len(row[1]) - 1, sequence_length), []).append(row)
    for bucket in sorted(buckets):
        rows_per_batch = max(1, tokens_per_batch // bucket)
        for start in range(0, len(buckets[bucket]), rows_per_batch):
            yield bucket, buckets[bucket][start : start + rows_per_batch]


def document_losses(
    config: ModelConfig,
    params: Any,
    documents: Sequence[np.ndarray],
    sequence_length: int,
    tokens_per_batch: int = 4096,
) -> list[np.ndarray]:
    """Returns the cross-entropy of every token but the first of each document in nats, float32[length - 1] each.

    A document longer than `sequence_length` is cut into windows that do not see each other, so its losses are upper
    bounds of those under a longer context.

    Args:
      config: the model's shape.
      params: its parameter tree.
      documents: token ids, `<s> … </s>`, int32 each of its own length.
      sequence_length: the longest window.
      tokens_per_batch: size of one forward pass.
    """
    pieces: list[list[np.ndarray]] = [[] for _ in documents]
    rows = cut_into_rows(documents, sequence_length)
    found: dict[int, np.ndarray] = {}
    numbered = [(number, tokens) for number, (_, tokens) in enumerate(rows)]
    for bucket, batch in _batches(numbered, sequence_length, tokens_per_batch):
        padded = np.zeros((max(1, tokens_per_batch // bucket), bucket + 1), np.int32)
        for place, (_, tokens) in enumerate(batch):
            padded[place, : len(tokens)] = tokens
        losses = np.asarray(_losses_per_token(config, params, jnp.asarray(padded)))
        for place, (number, tokens) in enumerate(batch):
            found[number] = losses[place, : len(tokens) - 1]
    for number, (document, _) in enumerate(rows):
        pieces[document].append(found[number])
    return [np.concatenate(parts) if parts else np.zeros(0, np.float32) for parts in pieces]

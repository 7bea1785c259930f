"""Losses of documents of any length, through the scoring engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apertus_jax.evaluation.scoring import LikelihoodScorer, rolling_windows
from apertus_jax.evaluation.scoring.requests import join_scored
from apertus_jax.model import ModelConfig


def document_losses(
    config: ModelConfig,
    params: Any,
    documents: Sequence[np.ndarray],
    sequence_length: int,
    tokens_per_batch: int | None = None,
) -> list[np.ndarray]:
    """Returns the cross-entropy of every token but the first of each document in nats, float32[length - 1] each.

    A document longer than `sequence_length` is read in rolling windows (see `rolling_windows`), so its losses are upper
    bounds of those under a longer context.

    Args:
      config: the model's shape.
      params: its parameter tree.
      documents: token ids, `<s> … </s>`, int32 each of its own length.
      sequence_length: the longest window.
      tokens_per_batch: size of one forward pass; None means what `LikelihoodScorer` finds good.
    """
    scorer = LikelihoodScorer(config, params, longest=sequence_length, batch_tokens=tokens_per_batch)
    return score_documents(scorer, documents)


def score_documents(
    scorer: LikelihoodScorer, documents: Sequence[np.ndarray], progress: bool = True
) -> list[np.ndarray]:
    """Returns the losses of documents as `document_losses` does, with a scorer that exists already."""
    windows = [
        rolling_windows(tokens[1:], int(tokens[0]), scorer.longest) if len(tokens) else [] for tokens in documents
    ]
    scored = iter(scorer.score([request for each in windows for request in each], progress=progress))
    return [-join_scored([next(scored) for _ in each]).log_probabilities for each in windows]

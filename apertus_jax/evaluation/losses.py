"""Document losses of any length: cross-entropy under the model, and under the unigram baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apertus_jax.data.tokenizer.special_tokens import EOD_ID
from apertus_jax.evaluation.scoring import LikelihoodScorer, ScoringRequest, rolling_windows
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
    windows = [document_windows(tokens, scorer.longest) for tokens in documents]
    scored = iter(scorer.score([request for each in windows for request in each], progress=progress))
    return [-join_scored([next(scored) for _ in each]).log_probabilities for each in windows]


def document_windows(tokens: np.ndarray, longest: int) -> list[ScoringRequest]:
    """Returns the requests that score every token but the first of a document once, see `rolling_windows`.

    Windows are cut as if `</s>` were not there, so that the text's own losses are those that the harness and
    `languages` find, which have no `</s>`; in a document longer than a window it is a request of its own.
    """
    if not len(tokens):
        return []
    first, rest = int(tokens[0]), tokens[1:]
    if len(rest) <= longest or rest[-1] != EOD_ID:
        return rolling_windows(rest, first, longest)
    return [*rolling_windows(rest[:-1], first, longest), ScoringRequest(tokens[-longest - 1 : -1], tokens[-1:])]


def unigram_losses(documents: list[np.ndarray], training_counts: np.ndarray) -> np.ndarray:
    """Returns each document's cross-entropy in nats under the training text's token frequencies, float64[N].

    Counts get one added (Laplace), so a token that training never saw costs much but not infinitely. The first token
    of a document is not predicted, as for the model.

    Args:
      documents: token ids of each document.
      training_counts: int64[V], occurrences of each token in the training text.
    """
    smoothed = training_counts.astype(np.float64) + 1.0
    log_probabilities = np.log(smoothed) - np.log(smoothed.sum())
    return np.array([-log_probabilities[tokens[1:]].sum() for tokens in documents])


def own_entropy(documents: list[np.ndarray], vocab_size: int) -> float:
    """Returns the entropy in nats per token of the documents' own token frequencies, pooled.

    No unigram model can do better on this text, because this one was fitted to it: the strictest baseline.
    """
    labels = np.concatenate([tokens[1:] for tokens in documents])
    counts = np.bincount(labels, minlength=vocab_size)
    frequencies = counts[counts > 0] / labels.size
    return float(-(frequencies * np.log(frequencies)).sum())

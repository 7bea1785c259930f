"""The baseline that knows only how often each token occurs."""

from __future__ import annotations

import numpy as np


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

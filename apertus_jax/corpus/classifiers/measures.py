"""Classifier metrics: area under the ROC curve with bootstrap intervals, calibration error."""

from __future__ import annotations

import numpy as np

CALIBRATION_BINS = 15


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns P(a positive scores higher than a negative), ties counted half; nan without both classes.

    Args:
      scores: float [n].
      labels: 0 or 1, [n].
    """
    return float(_weighted_areas(scores, labels, np.ones((1, len(labels))))[0])


def area_interval(
    scores: np.ndarray, labels: np.ndarray, seed: int, resamples: int = 500, level: float = 0.95
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the area; each class is resampled by itself.

    Groups of dependent examples make it too narrow.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = np.zeros((resamples, len(labels)))
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        if not len(members):
            return float("nan"), float("nan")
        drawn = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
        counts[:, members] = drawn
    low, high = np.quantile(_weighted_areas(scores, labels, counts), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Returns the expected calibration error: Σ share of a bin · |mean probability − share of positives| (1706.04599).

    Bins have equal width over [0, 1].
    """
    places = np.minimum((np.asarray(probabilities) * bins).astype(np.int64), bins - 1)
    sums = np.bincount(places, np.asarray(probabilities) - np.asarray(labels), minlength=bins)
    return float(np.abs(sums).sum() / len(places))


def _weighted_areas(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the area [r] for each row of example counts [r, n]."""
    order = np.argsort(scores, kind="stable")
    ranked = np.asarray(scores)[order]
    group = np.cumsum(np.concatenate([[0], ranked[1:] != ranked[:-1]])).astype(np.int64) if len(ranked) else order
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]])) if len(ranked) else order
    if not len(first):
        return np.full(len(counts), np.nan)
    positives = np.asarray(labels)[order] == 1
    held = counts[:, order]
    above = np.add.reduceat(held * positives, first, axis=1)
    below = np.add.reduceat(held * ~positives, first, axis=1)
    under = np.cumsum(below, axis=1) - below
    pairs = above.sum(axis=1) * below.sum(axis=1)
    wins = (above * (under + below / 2)).sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)

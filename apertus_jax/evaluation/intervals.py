"""Confidence intervals by resampling whole documents."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Returns the bootstrap percentile interval of `sum(numerators) / sum(denominators)` over documents.

    Documents are the unit that is drawn again, because tokens of one document depend on each other. With a single
    document nothing can be said about the spread, and the interval is infinite.

    Args:
      numerators: float64[N], for example summed losses.
      denominators: float64[N], for example token counts.
      seed: of the resampling.
      level: coverage of the interval.
      resamples: number of draws.
    """
    size = len(numerators)
    if size < 2:
        return float("-inf"), float("inf")
    draws = np.random.default_rng(seed).integers(0, size, (resamples, size))
    ratios = numerators[draws].sum(axis=1) / denominators[draws].sum(axis=1)
    lower, upper = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)

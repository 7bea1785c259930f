"""Confidence intervals by resampling documents or, where there are few, blocks of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
FEWEST_DOCUMENTS = 8
BLOCK_TOKENS = 32


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Returns the bootstrap percentile interval of `sum(numerators) / sum(denominators)` over drawn units.

    Args:
      numerators: float64[N], for example the summed loss of each unit; N at least 1.
      denominators: float64[N], for example its token count.
      seed: of the resampling.
      level: coverage of the interval.
      resamples: number of draws.
    """
    size = len(numerators)
    draws = np.random.default_rng(seed).integers(0, size, (resamples, size))
    ratios = numerators[draws].sum(axis=1) / denominators[draws].sum(axis=1)
    lower, upper = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def loss_interval(token_losses: Sequence[np.ndarray], seed: int) -> tuple[float, float, str]:
    """Returns (lower, upper, unit): the 95 % interval of the mean token loss of some documents.

    Tokens of one text depend on each other, so whole documents are drawn again. With fewer than eight, blocks of 32
    tokens are: that says how sure the loss of these very documents is, not how other documents would differ.
    """
    units = list(token_losses)
    name = "documents"
    if len(units) < FEWEST_DOCUMENTS:
        name = f"blocks of {BLOCK_TOKENS} tokens"
        units = [losses[i : i + BLOCK_TOKENS] for losses in units for i in range(0, len(losses), BLOCK_TOKENS)]
    sums = np.array([losses.sum(dtype=np.float64) for losses in units])
    sizes = np.array([len(losses) for losses in units], np.float64)
    return (*ratio_interval(sums, sizes, seed), name)

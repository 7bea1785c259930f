"""Inequality of languages: Gini, Lorenz curve, worst decile, rank correlation, classes by training share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from apertus_jax.errors import UserError

# Class → the smallest share of the training tokens that a language of it has.
RESOURCE_CLASSES = (("high", 1e-2), ("medium", 1e-3), ("low", 1e-4), ("very low", 0.0))
UNSEEN, UNKNOWN = "unseen", "unknown"
CLASS_NAMES = (*(name for name, _ in RESOURCE_CLASSES), UNSEEN, UNKNOWN)
WORST_SHARE = 0.1


def resource_class(share: float | None) -> str:
    """Returns the class of a language with this share of the training tokens; None means that nobody knows."""
    if share is None:
        return UNKNOWN
    if share == 0:
        return UNSEEN
    return next(name for name, smallest in RESOURCE_CLASSES if share >= smallest)


def gini(costs: Sequence[float] | np.ndarray) -> float:
    """Returns Σᵢ Σⱼ |cᵢ − cⱼ| / (2 n² μ) of float[n] ≥ 0: 0 when all are equal.

    Computed from the sorted values in O(n log n). All zero means equal.

    Source: docs/reference/evaluation_and_release.md §4.

    Raises:
      UserError: no value, or a negative or infinite one.
    """
    values = np.sort(np.asarray(costs, np.float64))
    if not len(values) or not np.isfinite(values).all() or values[0] < 0:
        raise UserError("a Gini coefficient needs at least one cost, all finite and none negative")
    total = values.sum()
    if total == 0:
        return 0.0
    count = len(values)
    return float(((2 * np.arange(1, count + 1) - count - 1) * values).sum() / (count * total))


def lorenz_curve(costs: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (share of languages, share of the cost), float64[n + 1] each, the cheapest languages first."""
    values = np.sort(np.asarray(costs, np.float64))
    return np.linspace(0, 1, len(values) + 1), np.concatenate([[0.0], np.cumsum(values) / values.sum()])


def worst_decile(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns int64[⌈n / 10⌉]: which of float[n] are the largest, the very largest first."""
    order = np.argsort(-np.asarray(values, np.float64), kind="stable")
    return order[: math.ceil(WORST_SHARE * len(order))]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Returns Spearman's correlation of two float[n], equal values sharing their mean rank; None where undefined."""
    import scipy.stats

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    ranks = [scipy.stats.rankdata(values) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])

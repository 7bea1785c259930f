"""Statistics over seeds: means with Student's intervals, paired differences, and the smallest one that could be seen.

With few seeds the intervals are wide, as they should be: of three seeds one has 2 degrees of freedom.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

LEVEL = 0.95
POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean of one figure over seeds, with its interval and standard deviation; NaN where there is one value only."""

    mean: float
    lower: float
    upper: float
    deviation: float
    count: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of two means with its interval; `paired` where the same seeds were subtracted one by one."""

    difference: float
    lower: float
    upper: float
    paired: bool
    count: int


def mean_over_seeds(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Returns the mean of values with Student's t interval: mean ± t(n - 1) · s / √n.

    Args:
      values: one figure of each run, at least one.
      level: coverage of the interval, if values are normal.
    """
    array = np.asarray(values, np.float64)
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return Mean(mean, math.nan, math.nan, math.nan, count)
    deviation = float(array.std(ddof=1))
    half = t_quantile(level, count - 1) * deviation / math.sqrt(count)
    return Mean(mean, mean - half, mean + half, deviation, count)


def difference_over_seeds(
    treated: Mapping[str, float], control: Mapping[str, float], level: float = LEVEL
) -> Difference:
    """Returns mean(treated) − mean(control), each seed → figure, with its interval.

    Where both have the same two or more seeds, which gave them the same initial weights and order of data, the
    differences of each seed are taken: what a seed does to both cancels. Else the samples are unrelated and of
    different spread (Welch 1947), and a sample of one value leaves no interval.
    """
    if treated.keys() == control.keys() and len(treated) > 1:
        paired = mean_over_seeds([treated[seed] - control[seed] for seed in treated], level)
        return Difference(paired.mean, paired.lower, paired.upper, True, paired.count)
    ours, theirs = mean_over_seeds(list(treated.values())), mean_over_seeds(list(control.values()))
    difference, count = ours.mean - theirs.mean, min(ours.count, theirs.count)
    if count < 2:
        return Difference(difference, math.nan, math.nan, False, count)
    first, second = (each.deviation**2 / each.count for each in (ours, theirs))
    if not first + second:
        return Difference(difference, difference, difference, False, count)
    freedom = (first + second) ** 2 / (first**2 / (ours.count - 1) + second**2 / (theirs.count - 1))
    half = t_quantile(level, freedom) * math.sqrt(first + second)
    return Difference(difference, difference - half, difference + half, False, count)


def smallest_visible_difference(
    deviation: float, count: int, freedom: float, level: float = LEVEL, power: float = POWER
) -> float:
    """Returns the true mean difference that an interval of `count` pairs would exclude zero for, `power` of the time.

    (t(level) + t(power)) · s / √n, the usual approximation to the noncentral t.

    Args:
      deviation: standard deviation of the differences of pairs.
      count: pairs.
      freedom: degrees of freedom of `deviation`.
      level: coverage of the interval.
      power: how often the difference is to be seen.
    """
    return (t_quantile(level, freedom) + t_quantile(2 * power - 1, freedom)) * deviation / math.sqrt(count)


def t_quantile(level: float, freedom: float) -> float:
    """Returns the t for which Student's distribution has the mass `level` between -t and t."""
    return float(scipy.special.stdtrit(freedom, (1 + level) / 2))


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A weighted sum of arm means with its interval; `deviation` is what is left of a run without arm and seed."""

    difference: float
    lower: float
    upper: float
    deviation: float
    freedom: int


def contrast_over_blocks(table: np.ndarray, weights: Sequence[float], level: float = LEVEL) -> Contrast:
    """Returns a contrast of arms that were all run with the same seeds, as a randomized block design (Fisher 1935).

    What an arm adds and what a seed adds are taken away; the rest, taken to scatter alike in all arms, has
    (A - 1)(S - 1) degrees of freedom. Of two arms it is the paired t interval; more arms make it narrower.

    Args:
      table: float[A, S], the figure of each arm and seed, at least two of both.
      weights: of the arms, summing to 0: 1 and -1 for a difference.
      level: coverage of the interval.
    """
    table, factors = np.asarray(table, np.float64), np.asarray(weights, np.float64)
    arms, seeds = table.shape
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    freedom = (arms - 1) * (seeds - 1)
    deviation = math.sqrt(float((rest**2).sum()) / freedom)
    difference = float(factors @ table.mean(axis=1))
    half = t_quantile(level, freedom) * deviation * math.sqrt(float((factors**2).sum()) / seeds)
    return Contrast(difference, difference - half, difference + half, deviation, freedom)

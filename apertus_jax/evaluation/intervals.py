"""Confidence intervals: bootstrap over documents, probes or blocks of text, exact ones for counts.

One value has no spread: where a group has one value only, the ends of a resampled interval are NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.errors import UserError

RESAMPLES = 1000
MIN_DOCUMENTS = 8
BLOCK_TOKENS = 32
MAX_ROWS_KEPT = 1 << 20  # 8 MB of row numbers


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    lower: float
    upper: float


@dataclasses.dataclass(frozen=True)
class Rate:
    """Rate of an event: exact two-sided interval, and the one-sided upper bound of the true rate."""

    events: int
    trials: int
    rate: float
    lower: float
    upper: float
    upper_bound: float


@dataclasses.dataclass(frozen=True)
class Equivalence:
    """A relative difference with the interval that decides whether it is within ± `margin`."""

    difference: float
    lower: float
    upper: float
    margin: float

    @property
    def equivalent(self) -> bool:
        """Whether the whole interval lies within the margin: no interval of NaN does."""
        return -self.margin < self.lower and self.upper < self.margin


def resampled(
    statistic: Callable[..., float | np.ndarray],
    groups: Sequence[np.ndarray],
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    last_axis: bool = False,
) -> Estimate:
    """Returns statistic(*groups) with its bootstrap percentile interval; each group's rows are drawn by themselves.

    The interval is NaN where a group has one row, or where the statistic of some draw is.

    What belongs together (one probe under two models) goes into one row of one group.

    Args:
      statistic: takes arrays as in `groups`, with rows drawn with replacement.
      groups: [N_i, …] each, at least one row.
      seed: of the resampling.
      level: coverage of the interval.
      resamples: number of draws.
      last_axis: the groups are [N_i] and the statistic works along the last axis, so that it can take the draws of a
        small group together, [resamples, N_i] each; its results are the same, sooner.

    Raises:
      UserError: a group is empty.
    """
    arrays = [np.asarray(group) for group in groups]
    if any(not len(array) for array in arrays):
        raise UserError("an interval needs at least one value in each group, and one group has none")
    if any(len(array) == 1 for array in arrays):
        return Estimate(float(statistic(*arrays)), math.nan, math.nan)
    sizes = tuple(len(array) for array in arrays)
    if last_axis and sum(sizes) * resamples <= MAX_ROWS_KEPT:
        drawn = _rows_kept(sizes, seed, resamples)
        values = statistic(*(array[rows] for array, rows in zip(arrays, drawn, strict=True)))
    else:
        draws = _draws(sizes, seed, resamples)
        values = np.array(
            [statistic(*(array[rows] for array, rows in zip(arrays, draw, strict=True))) for draw in draws]
        )
    lower, upper = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(statistic(*arrays)), float(lower), float(upper))


def _draws(sizes: Sequence[int], seed: int, resamples: int) -> Iterator[list[np.ndarray]]:
    """Yields the rows of each draw with replacement: int64[N_i] for each group."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield [generator.integers(0, size, size) for size in sizes]


@functools.lru_cache(maxsize=16)
def _rows_kept(sizes: tuple[int, ...], seed: int, resamples: int) -> list[np.ndarray]:
    """Returns the rows of all draws, int64[resamples, N_i] for each group; an audit asks for the same many times."""
    return [np.stack(rows) for rows in zip(*_draws(sizes, seed, resamples), strict=True)]


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=-1)


def mean_interval(values: np.ndarray, seed: int, level: float = 0.95, resamples: int = RESAMPLES) -> Estimate:
    """Returns the mean of float[N], for example of a metric over probes, with its bootstrap interval."""
    return resampled(_mean, [values], seed, level, resamples, last_axis=True)


def difference_interval(
    treated: np.ndarray, control: np.ndarray, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """Returns mean(treated) − mean(control) of unrelated float[N] and float[M]: Δ over control.

    Source: docs/reference/evaluation_and_release.md §3.3.
    """
    return resampled(
        lambda ours, theirs: _mean(ours) - _mean(theirs), [treated, control], seed, level, resamples, last_axis=True
    )


def paired_difference_interval(
    first: np.ndarray, second: np.ndarray, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """Returns mean(first − second) of float[N] each, where row i of both is the same probe or document.

    Raises:
      UserError: the lengths differ.
    """
    return resampled(_mean, [_paired(first, second) @ [1, -1]], seed, level, resamples, last_axis=True)


def relative_equivalence(
    first: np.ndarray, second: np.ndarray, margin: float, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Equivalence:
    """Tests whether sum(first) / sum(second) − 1 is within ± margin, row i of both being the same document.

    Two one-sided tests at 1 − level each (Schuirmann 1987): the interval at 2·level − 1 must lie within the margin.
    The sums may be losses of one document's tokens under two models.

    Raises:
      UserError: the lengths differ, or the margin is not positive.
    """
    if not margin > 0:
        raise UserError(f"equivalence margin={margin} must be positive")
    pairs = _paired(first, second)
    ratio = resampled(lambda rows: rows[:, 0].sum() / rows[:, 1].sum() - 1, [pairs], seed, 2 * level - 1, resamples)
    return Equivalence(ratio.value, ratio.lower, ratio.upper, margin)


def rate(hits: np.ndarray, level: float = 0.95) -> Rate:
    """Returns how often bool[N] is True, with exact bounds; of no trials the rate is nan and the bounds 0 and 1."""
    hits = np.asarray(hits, bool)
    events, trials = int(hits.sum()), len(hits)
    lower, upper = proportion_interval(events, trials, level)
    share = events / trials if trials else math.nan
    return Rate(events, trials, share, lower, upper, proportion_upper_bound(events, trials, level))


def proportion_interval(events: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the exact two-sided interval of a probability (Clopper & Pearson 1934).

    Raises:
      UserError: not 0 ≤ events ≤ trials.
    """
    side = (1 + level) / 2
    upper = proportion_upper_bound(events, trials, side)
    return 1 - proportion_upper_bound(trials - events, trials, side), upper


def proportion_upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """Returns the exact one-sided upper bound: the largest p under which so few events are not rarer than 1 − level.

    With no event it is 1 − (1 − level)^(1/N), a little below `rule_of_three`.

    Raises:
      UserError: not 0 ≤ events ≤ trials.
    """
    import scipy.special

    if not 0 <= events <= trials:
        raise UserError(f"{events} events in {trials} trials: give a count between 0 and the number of trials")
    if events == trials:
        return 1.0
    return float(scipy.special.betaincinv(events + 1, trials - events, level))


def rule_of_three(trials: int) -> float:
    """Returns 3/N, at most 1: the 95 % upper bound to print when none of N trials was an event.

    Source: docs/reference/evaluation_and_release.md §3.8.
    """
    return min(1.0, 3 / trials) if trials else 1.0


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Returns the bootstrap percentile interval of `sum(numerators) / sum(denominators)` over drawn units.

    It is NaN of one unit, and where draws have nothing below the line.

    Args:
      numerators: float64[N], for example the summed loss of each unit; N at least 1.
      denominators: float64[N], for example its token count.
      seed: of the resampling.
      level: coverage of the interval.
      resamples: number of draws.
    """
    size = len(numerators)
    if size == 1:
        return math.nan, math.nan
    draws = np.random.default_rng(seed).integers(0, size, (resamples, size))
    below = denominators[draws].sum(axis=1)
    ratios = np.divide(numerators[draws].sum(axis=1), below, out=np.full(resamples, np.nan), where=below > 0)
    lower, upper = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def loss_interval(token_losses: Sequence[np.ndarray], seed: int) -> tuple[float, float, str]:
    """Returns (lower, upper, unit): the 95 % interval of the mean token loss of some documents.

    Tokens of one text depend on each other, so whole documents are drawn again. With fewer than eight, blocks of 32
    tokens are: that says how sure the loss of these very documents is, not how other documents would differ.
    """
    units = list(token_losses)
    name = "documents"
    if len(units) < MIN_DOCUMENTS:
        name = f"blocks of {BLOCK_TOKENS} tokens"
        units = [losses[i : i + BLOCK_TOKENS] for losses in units for i in range(0, len(losses), BLOCK_TOKENS)]
    sums = np.array([losses.sum(dtype=np.float64) for losses in units])
    sizes = np.array([len(losses) for losses in units], np.float64)
    return (*ratio_interval(sums, sizes, seed), name)


def without_nan(value: Any) -> Any:
    """Returns JSON values with None in place of NaN and infinity, which JSON has not."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval_text(lower: float | None, upper: float | None, form: str = ".3f", between: str = " – ") -> str:
    """Returns an interval in words; "–" where there is none."""
    if lower is None or upper is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return "–"
    return f"{lower:{form}}{between}{upper:{form}}"


def _paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns float64[N, 2]."""
    if len(first) != len(second):
        raise UserError(f"{len(first)} and {len(second)} values cannot be paired; give both for the same documents")
    return np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)], axis=1)

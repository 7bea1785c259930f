"""Quality of membership attacks: AUC, TPR at low FPR, balanced accuracy.

Scores are higher for members. All figures are exact for the given documents, equal scores included; intervals come from
drawing members and non-members again, each by themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import RESAMPLES, Estimate

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.05)
DRAWS_AT_ONCE = 64
Labels = Sequence[bool] | np.ndarray  # bool[N]


@dataclasses.dataclass(frozen=True)
class AttackQuality:
    """Quality of one score; `true_positive_rates` has one entry per allowed rate of false positives."""

    area: Estimate
    true_positive_rates: dict[float, Estimate]
    balanced_accuracy: Estimate
    members: int
    non_members: int


def attack_quality(
    scores: np.ndarray,
    is_member: Labels,
    seed: int,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> AttackQuality:
    """Returns all figures of one score with bootstrap intervals.

    A class of one document has no interval: its ends are NaN. With N non-members, rates below 1/N all mean "no false
    positive", and the percentile interval of a rate that is 0 or 1 has no width: `intervals.rate` bounds it.

    Args:
      scores: float[N], higher for members; -inf is allowed.
      is_member: bool[N].
      seed: of the resampling.
      false_positive_rates: allowed shares of non-members above the threshold.
      level: coverage of the intervals.
      resamples: number of draws.

    Raises:
      UserError: a score is NaN, or there are no members or no non-members.
    """
    scores, is_member = checked(scores, is_member)
    exact = _figures(scores, is_member, np.ones((1, len(scores))), false_positive_rates)[0]
    drawn = np.concatenate(
        [
            _figures(scores, is_member, counts, false_positive_rates)
            for counts in resampled_counts(is_member, seed, resamples)
        ]
    )
    lower, upper = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    area, balanced, *rates = (Estimate(*map(float, ends)) for ends in zip(exact, lower, upper, strict=True))
    members = int(is_member.sum())
    if min(members, len(scores) - members) == 1:
        area, balanced, *rates = (Estimate(each.value, math.nan, math.nan) for each in (area, balanced, *rates))
    return AttackQuality(
        area, dict(zip(false_positive_rates, rates, strict=True)), balanced, members, len(scores) - members
    )


def area_under_curve(scores: np.ndarray, is_member: np.ndarray) -> float:
    """Returns P(a member scores higher than a non-member), ties counted half; float[N], bool[N].

    Raises:
      UserError: as `attack_quality`.
    """
    scores, is_member = checked(scores, is_member)
    return float(_figures(scores, is_member, np.ones((1, len(scores))), ())[0, 0])


def area_difference(
    first: np.ndarray,
    second: np.ndarray,
    is_member: Labels,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Returns area(first) − area(second) for two scores float[N] of the same documents, drawn again together.

    Raises:
      UserError: as `attack_quality`.
    """
    first, is_member = checked(first, is_member)
    second, _ = checked(second, is_member)

    def difference(counts: np.ndarray) -> np.ndarray:
        return _figures(first, is_member, counts, ())[:, 0] - _figures(second, is_member, counts, ())[:, 0]

    drawn = np.concatenate([difference(counts) for counts in resampled_counts(is_member, seed, resamples)])
    lower, upper = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    if min(is_member.sum(), (~is_member).sum()) == 1:
        lower = upper = math.nan
    return Estimate(float(difference(np.ones((1, len(first))))[0]), float(lower), float(upper))


def checked(scores: np.ndarray, is_member: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64[N], bool[N] that an area can be taken of.

    Raises:
      UserError: lengths differ, a score is NaN, or a class has no document.
    """
    scores, is_member = np.asarray(scores, np.float64), np.asarray(is_member, bool)
    if len(scores) != len(is_member):
        raise UserError(f"{len(scores)} membership scores but {len(is_member)} labels; give one label for each score")
    if np.isnan(scores).any():
        raise UserError("membership scores are NaN; look for NaN log-probabilities or deviations")
    if is_member.all() or not is_member.any():
        raise UserError("membership inference needs members and non-members; one of the two has no document")
    return scores, is_member


def resampled_counts(is_member: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yields how often each document is drawn, float64[draws, N] in pieces; class sizes stay as they are."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, DRAWS_AT_ONCE):
        counts = np.zeros((min(DRAWS_AT_ONCE, resamples - start), len(is_member)))
        for places in (np.flatnonzero(is_member), np.flatnonzero(~is_member)):
            size = len(places)
            counts[:, places] = generator.multinomial(size, np.full(size, 1 / size), size=len(counts))
        yield counts


def _figures(
    scores: np.ndarray, is_member: np.ndarray, counts: np.ndarray, false_positive_rates: Sequence[float]
) -> np.ndarray:
    """Returns [draws, 2 + rates]: area, balanced accuracy and true-positive rates under document counts [draws, N].

    A threshold accepts all documents of one score or none of them, so it may stand at each distinct score only.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    held = counts[:, order]
    members = np.add.reduceat(held * is_member[order], first, axis=1)
    others = np.add.reduceat(held * ~is_member[order], first, axis=1)
    true_positives, false_positives = members.cumsum(axis=1), others.cumsum(axis=1)
    all_members, all_others = true_positives[:, -1:], false_positives[:, -1:]
    wins = (members * (all_others - false_positives + others / 2)).sum(axis=1)
    accuracy = (true_positives / all_members + 1 - false_positives / all_others) / 2
    columns = [wins / (all_members * all_others)[:, 0], np.maximum(accuracy.max(axis=1), 0.5)]
    for rate in false_positive_rates:
        # 0.07 × 100 = 7.000000000000001 would do, but 0.29 × 100 = 28.999999999999996 means 29.
        allowed = false_positives <= rate * all_others + 1e-9
        columns.append(np.where(allowed, true_positives, 0).max(axis=1) / all_members[:, 0])
    return np.stack(columns, axis=1)

"""Intervals against exact arithmetic, scipy, and their own promise of coverage."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from apertus_jax.errors import UserError
from apertus_jax.evaluation import intervals


def exact_tail(events, trials, probability):
    """P(X ≤ events) of a binomial variable, in rational arithmetic."""
    p = Fraction(probability)
    return float(sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(events + 1)))


def test_exact_proportion_bounds_leave_the_tails_they_promise():
    generator = np.random.default_rng(0)
    for _ in range(300):
        trials = int(generator.integers(1, 40))
        events = int(generator.integers(0, trials + 1))
        lower, upper = intervals.proportion_interval(events, trials)
        one_sided = intervals.proportion_upper_bound(events, trials)
        if events < trials:
            assert exact_tail(events, trials, upper) == pytest.approx(0.025, rel=1e-6)
            assert exact_tail(events, trials, one_sided) == pytest.approx(0.05, rel=1e-6)
        else:
            assert upper == one_sided == 1
        if events:
            assert 1 - exact_tail(events - 1, trials, lower) == pytest.approx(0.025, rel=1e-6)
        else:
            assert lower == 0


def test_exact_proportion_bounds_equal_scipy_in_thousands():
    generator = np.random.default_rng(1)
    for _ in range(2000):
        trials = int(10 ** generator.uniform(0, 5))
        events = int(generator.integers(0, min(trials, 50) + 1))
        level = float(generator.choice([0.8, 0.95, 0.99]))
        lower, upper = intervals.proportion_interval(events, trials, level)
        tail = (1 - level) / 2
        expected_lower = scipy.stats.beta.ppf(tail, events, trials - events + 1) if events else 0.0
        expected_upper = scipy.stats.beta.ppf(1 - tail, events + 1, trials - events) if events < trials else 1.0
        assert lower == pytest.approx(expected_lower, rel=1e-7, abs=1e-9)
        assert upper == pytest.approx(expected_upper, rel=1e-9)


@pytest.mark.parametrize("trials", [1, 2, 10, 167, 500, 10_672])
def test_zero_events_bound_is_closed_form_below_rule_of_three(trials):
    found = intervals.rate(np.zeros(trials, bool))
    assert (found.events, found.rate, found.lower) == (0, 0.0, 0.0)
    assert found.upper_bound == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)
    assert found.upper_bound <= intervals.rule_of_three(trials)
    if trials == 500:
        assert intervals.rule_of_three(trials) == pytest.approx(0.006)


def test_rate_of_no_trials_says_that_nothing_is_known():
    found = intervals.rate(np.zeros(0, bool))
    assert math.isnan(found.rate)
    assert (found.lower, found.upper, found.upper_bound) == (0.0, 1.0, 1.0)
    assert intervals.rule_of_three(0) == 1.0


def test_exact_interval_covers_at_least_as_often_as_it_says():
    for probability in (0.003, 0.1, 0.5):
        counts = np.random.default_rng(2).binomial(60, probability, 2000)
        bounds = {k: intervals.proportion_interval(int(k), 60) for k in set(counts.tolist())}
        covered = np.mean([bounds[k][0] <= probability <= bounds[k][1] for k in counts.tolist()])
        assert covered >= 0.95 - 0.01


def test_mean_interval_has_the_width_of_the_normal_theory():
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = intervals.mean_interval(values, seed=0, resamples=4000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.lower == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.upper == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_difference_over_control_covers_the_truth_as_promised():
    generator = np.random.default_rng(4)
    covered = 0
    for seed in range(150):
        found = intervals.difference_interval(
            generator.exponential(1.0, 60) + 0.3, generator.exponential(1.0, 30), seed, resamples=200
        )
        covered += found.lower <= 0.3 <= found.upper
    assert 0.86 <= covered / 150 <= 0.99


def test_pairing_takes_away_what_both_have_in_common():
    generator = np.random.default_rng(5)
    common = generator.normal(0, 10, 200)
    first, second = common + generator.normal(0.5, 0.1, 200), common + generator.normal(0, 0.1, 200)
    paired = intervals.paired_difference_interval(first, second, seed=0)
    loose = intervals.difference_interval(first, second, seed=0)
    assert paired.value == pytest.approx(loose.value)
    assert paired.lower < 0.5 < paired.upper
    assert (paired.upper - paired.lower) < 0.05 * (loose.upper - loose.lower)
    with pytest.raises(UserError, match="3 and 2 values cannot be paired"):
        intervals.paired_difference_interval(np.ones(3), np.ones(2), seed=0)


def test_resampled_statistic_of_groups_equals_all_draws():
    """Two groups of two: nine equally spaced values; the interval's ends are those of the full bootstrap law."""
    found = intervals.resampled(lambda a, b: a.sum() / b.sum(), [np.array([1.0, 3.0]), np.array([1.0, 2.0])], 0)
    draws = sorted(a / b for a in (2, 4, 4, 6) for b in (2, 3, 3, 4))
    assert found.value == pytest.approx(4 / 3)
    assert (found.lower, found.upper) == (pytest.approx(draws[0]), pytest.approx(draws[-1]))


def test_equivalence_needs_the_whole_interval_within_the_margin():
    generator = np.random.default_rng(6)
    second = generator.normal(100, 10, 300)
    close = second * 1.001 + generator.normal(0, 0.2, 300)
    same = intervals.relative_equivalence(close, second, 0.005, seed=0)
    at_ninety = intervals.resampled(
        lambda rows: rows[:, 0].sum() / rows[:, 1].sum() - 1, [np.stack([close, second], axis=1)], seed=0, level=0.9
    )
    other = intervals.relative_equivalence(second * 1.005 + generator.normal(0, 0.2, 300), second, 0.005, seed=0)
    unsure = intervals.relative_equivalence(second + generator.normal(0, 40, 300), second, 0.005, seed=0)
    assert same.equivalent and same.difference == pytest.approx(0.001, abs=5e-4)
    assert (same.lower, same.upper) == (at_ninety.lower, at_ninety.upper)
    assert not other.equivalent
    assert not unsure.equivalent
    with pytest.raises(UserError, match="margin=0 must be positive"):
        intervals.relative_equivalence(second, second, 0, seed=0)


def test_models_apart_by_the_margin_are_rarely_called_equivalent():
    """The error of the two one-sided tests is 5 % at the edge of the margin."""
    generator = np.random.default_rng(7)
    called = 0
    for seed in range(200):
        second = generator.normal(100, 10, 80)
        first = second * (1 + 0.01 + generator.normal(0, 0.01, 80))
        called += intervals.relative_equivalence(first, second, 0.01, seed, resamples=200).equivalent
    assert called / 200 <= 0.12


def test_impossible_counts_and_empty_groups_are_refused():
    with pytest.raises(UserError, match="5 events in 3 trials"):
        intervals.proportion_interval(5, 3)
    with pytest.raises(UserError, match="at least one value in each group"):
        intervals.mean_interval(np.zeros(0), seed=0)

"""Statistics over seeds, against SciPy's tests and a simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from apertus_jax.sweeps.comparison.seed_statistics import (
    contrast_over_blocks,
    difference_over_seeds,
    mean_over_seeds,
    smallest_visible_difference,
)

OURS = {"1": 3.21, "2": 3.25, "3": 3.18}
THEIRS = {"1": 3.24, "2": 3.27, "3": 3.22}


def test_mean_interval_is_students():
    found, values = mean_over_seeds([3.1, 3.3, 3.25, 3.4]), np.array([3.1, 3.3, 3.25, 3.4])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([found.lower, found.upper], [expected.low, expected.high])
    assert found.count == 4 and found.deviation == pytest.approx(values.std(ddof=1))


def test_same_seeds_are_subtracted_one_by_one():
    found = difference_over_seeds(dict(reversed(OURS.items())), THEIRS)
    expected = scipy.stats.ttest_rel(list(OURS.values()), list(THEIRS.values())).confidence_interval(0.95)
    np.testing.assert_allclose([found.lower, found.upper], [expected.low, expected.high])
    assert found.paired and found.upper < 0  # which the same samples, taken as unrelated, do not show


def test_other_seeds_are_unrelated_samples():
    theirs = {"7": 3.24, "8": 3.27, "9": 3.22, "10": 3.26}
    found = difference_over_seeds(OURS, theirs)
    test = scipy.stats.ttest_ind(list(OURS.values()), list(theirs.values()), equal_var=False)
    expected = test.confidence_interval(0.95)
    np.testing.assert_allclose([found.lower, found.upper], [expected.low, expected.high])
    assert not found.paired


def test_one_seed_leaves_no_interval():
    assert math.isnan(mean_over_seeds([3.0]).lower)
    for control in ({"1": 3.1}, {"1": 3.1, "2": 3.2}):
        found = difference_over_seeds({"1": 3.0}, control)
        assert math.isnan(found.lower) and math.isnan(found.upper) and found.difference < 0


def test_smallest_visible_difference_is_seen_as_often_as_said():
    generator, seeds, deviation = np.random.default_rng(0), 5, 0.7
    true = smallest_visible_difference(deviation, seeds, seeds - 1)
    samples = generator.normal(true, deviation, (4000, seeds))
    found = [mean_over_seeds(row) for row in samples]
    seen = np.mean([each.lower > 0 for each in found])
    assert 0.76 < seen < 0.86


def test_block_contrast_of_two_arms_is_the_paired_interval():
    table = np.array([list(OURS.values()), list(THEIRS.values())])
    found, paired = contrast_over_blocks(table, [1, -1]), difference_over_seeds(OURS, THEIRS)
    np.testing.assert_allclose(
        [found.difference, found.lower, found.upper], [paired.difference, paired.lower, paired.upper]
    )
    assert found.freedom == 2


def test_block_contrast_covers_as_often_as_said():
    generator = np.random.default_rng(1)
    weights, true = [0.5, 0.5, -0.5, -0.5], np.array([3.0, 3.1, 3.3, 3.6])
    held = 0
    for _ in range(3000):
        table = true[:, None] + generator.normal(0, 5, 3) + generator.normal(0, 0.2, (4, 3))
        found = contrast_over_blocks(table, weights)
        held += found.lower < true @ weights < found.upper
    assert 0.935 < held / 3000 < 0.965

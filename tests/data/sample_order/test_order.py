"""The keyed permutation and the orders of samples built on it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data.sample_order.permutation import counted_keys, derive_key, permute, unpermute
from apertus_jax.data.sample_order.shuffle import PermutedOrder, StoredOrder
from apertus_jax.errors import UserError
from apertus_jax.mix64 import mix64


def chi_square(counts):
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection_with_exact_inverse(size, key):
    values = np.arange(size)
    image = permute(values, size, np.uint64(key))
    np.testing.assert_array_equal(np.sort(image), values)
    np.testing.assert_array_equal(unpermute(image, size, np.uint64(key)), values)


@settings(max_examples=60, deadline=None)
@given(st.integers(2**31, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_permutation_inverts_on_domains_far_beyond_memory(size, key, data):
    values = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20, unique=True)))
    image = permute(values, size, np.uint64(key))
    assert len(set(image.tolist())) == len(values)
    assert image.min() >= 0 and image.max() < size
    np.testing.assert_array_equal(unpermute(image, size, np.uint64(key)), values)


def test_every_element_may_have_a_key_of_its_own():
    keys = counted_keys(derive_key("test"), np.arange(50))
    together = permute(np.full(50, 7), 1000, keys)
    assert together.tolist() == [int(permute(np.array([7]), 1000, key)[0]) for key in keys]
    np.testing.assert_array_equal(unpermute(together, 1000, keys), np.full(50, 7))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_permutations_of_a_tiny_domain_are_equally_likely(size):
    trials = 24_000
    keys = np.repeat(counted_keys(derive_key("tiny", size), np.arange(trials)), size)
    images = permute(np.tile(np.arange(size), trials), size, keys).reshape(trials, size)
    number = {image: index for index, image in enumerate(itertools.permutations(range(size)))}
    counts = np.bincount([number[tuple(image)] for image in images.tolist()], minlength=len(number))
    freedom = len(number) - 1
    assert chi_square(counts) < freedom + 5 * np.sqrt(2 * freedom) + 8


@pytest.mark.parametrize("size", [50, 64, 128])
def test_pairs_of_places_are_equally_likely_in_small_domains(size):
    trials = 200_000
    keys = counted_keys(derive_key("pairs", size), np.arange(trials))
    for first, second in [(0, 1), (0, 2), (0, 8)]:
        places = permute(np.full(trials, first), size, keys) * size + permute(np.full(trials, second), size, keys)
        counts = np.bincount(places, minlength=size**2).reshape(size, size)[~np.eye(size, dtype=bool)]
        assert chi_square(counts) < counts.size + 4.5 * np.sqrt(2 * counts.size)


def test_places_are_uniform_and_neighbours_independent():
    size, buckets, trials = 100_003, 16, 40
    values = np.arange(size)
    for trial in range(trials):
        image = permute(values, size, derive_key("uniform", trial))
        near, far = image[:-1] * buckets // size, image[1:] * buckets // size
        counts = np.bincount(near * buckets + far, minlength=buckets**2)
        assert chi_square(counts) < 255 + 6 * np.sqrt(2 * 255)
        assert abs(np.corrcoef(values, image)[0, 1]) < 5 / np.sqrt(size)


def test_a_trillion_samples_are_spread_evenly():
    size = 2**40 + 12345
    image = permute(np.arange(100_000), size, derive_key("trillion"))
    assert chi_square(np.bincount(image // (size // 64 + 1), minlength=64)) < 63 + 6 * np.sqrt(2 * 63)
    assert len(np.unique(image)) == 100_000


def test_adjacent_seeds_sources_and_epochs_have_unrelated_orders():
    size, orders = 2000, []
    for seed, name in itertools.product(range(4), ["web", "books"]):
        order = PermutedOrder(size, seed, name)
        orders += [order.sample_of_draw(np.arange(epoch * size, (epoch + 1) * size))[1] for epoch in range(4)]
    for first, second in itertools.combinations(orders, 2):
        agreeing = int((first == second).sum())  # Poisson(1) for unrelated orders
        assert agreeing < 12
        assert abs(np.corrcoef(first, second)[0, 1]) < 5.5 / np.sqrt(size)


def test_keys_do_not_run_together():
    keys = {int(derive_key("sample order", seed, name)) for seed in range(200) for name in ("a", "b", "1", "")}
    assert len(keys) == 800
    assert derive_key("ab", "c") != derive_key("a", "bc")
    assert derive_key("1") != derive_key(1)
    assert len(np.unique(counted_keys(derive_key("k"), np.arange(10_000)))) == 10_000
    assert len(np.unique(mix64(np.arange(10_000)))) == 10_000


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(0, 5), st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_draws_and_samples_invert_over_epochs(num_samples, seed, draws):
    order = PermutedOrder(num_samples, seed, "source")
    draws = np.array(draws)
    epochs, samples = order.sample_of_draw(draws)
    np.testing.assert_array_equal(epochs, draws // num_samples)
    np.testing.assert_array_equal(order.draw_of_sample(epochs, samples), draws)


def test_each_epoch_takes_every_sample_once():
    order = PermutedOrder(37, 1, "source")
    for epoch in range(3):
        epochs, samples = order.sample_of_draw(np.arange(epoch * 37, (epoch + 1) * 37))
        assert set(epochs.tolist()) == {epoch}
        assert sorted(samples.tolist()) == list(range(37))
    assert [order.num_epochs(draws) for draws in (0, 1, 37, 38)] == [0, 1, 1, 2]


def test_orders_stay_what_they_were_when_first_released():
    """A changed hash would silently reorder every run that is resumed."""
    assert int(derive_key("sample order", 28, "web")) == FROZEN_KEY
    assert permute(np.arange(6), 10**6, derive_key("sample order", 28, "web")).tolist() == FROZEN_IMAGE


def test_stored_order_inverts_and_ends():
    order = StoredOrder(np.array([1, 2, 5, 3, 0, 4]), "books")
    assert order.sample_of_draw(np.array([0, 4]))[1].tolist() == [1, 0]
    assert order.draw_of_sample(np.zeros(6), np.arange(6)).tolist() == [4, 0, 1, 3, 5, 2]
    with pytest.raises(UserError, match="'books' has 6 samples in its stored order and sample number 6"):
        order.sample_of_draw(np.array([6]))


def test_a_value_outside_the_domain_is_refused():
    with pytest.raises(ValueError, match="do not lie in 0 to 9"):
        permute(np.array([10]), 10, np.uint64(1))


FROZEN_KEY = 8189831882743581261
FROZEN_IMAGE = [369645, 590853, 920256, 815352, 265887, 75837]

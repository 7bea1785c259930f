"""Schedules count samples exactly, far beyond 32 bits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.errors import UserError
from apertus_jax.optimization import (
    add_samples,
    constant_schedule,
    cosine_schedule,
    resolve_learning_rate,
    sample_count,
    sample_count_to_int,
    wsd_schedule,
)
from apertus_jax.optimization.sample_counts import at_most, subtract_samples, to_float32

WARMUP, TOTAL, DECAY = 4_096_000, 3_662_109_375, 403_905_806
counts = st.one_of(st.integers(0, 2**64 - 1), st.integers(2**32 - 3, 2**32 + 3), st.integers(0, 5))
released = jax.jit(wsd_schedule(1.1e-4, WARMUP, TOTAL, DECAY, lr_init_frac=0.0))
add, subtract, compare = jax.jit(add_samples), jax.jit(subtract_samples), jax.jit(at_most)


@settings(max_examples=200, deadline=None)
@given(first=counts, second=counts)
def test_sample_counts_are_exact_64_bit_numbers(first, second):
    one, other = sample_count(first), sample_count(second)
    assert sample_count_to_int(one) == first
    assert sample_count_to_int(add(one, other)) == (first + second) % 2**64
    assert sample_count_to_int(subtract(one, other)) == (first - second) % 2**64
    assert bool(compare(one, other)) == (first <= second)
    np.testing.assert_allclose(to_float32(one), np.float64(first), rtol=1.2e-7)


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5])
def test_impossible_sample_counts_are_named(bad):
    with pytest.raises(UserError, match=str(bad)):
        sample_count(bad)


@pytest.mark.parametrize("bad", [jnp.float32(3), np.zeros(3, np.uint32)])
def test_arrays_that_are_no_sample_counts_are_named(bad):
    with pytest.raises(UserError, match="samples_consumed"):
        constant_schedule(1.0)(bad)


@pytest.mark.parametrize(
    "samples, rate",
    [
        (0, 0.0),
        (1024, 2.75e-8),
        (2_048_000, 5.5e-5),
        (WARMUP, 1.1e-4),
        (WARMUP + 1, 1.1e-4),
        (TOTAL - DECAY, 1.1e-4),
        (3_258_204_593, 1.098424e-4),
        (3_460_156_472, 3.999643e-5),
        (3_561_132_924, 2.426348e-5),
        (TOTAL, 1.1e-5),
        (TOTAL + 1, 1.1e-5),
        (2**40, 1.1e-5),
    ],
)
def test_wsd_has_the_released_8b_values(samples, rate):
    np.testing.assert_allclose(released(sample_count(samples)), rate, rtol=3e-7)
    schedule = wsd_schedule(1.1e-4, WARMUP, TOTAL, DECAY, lr_init_frac=0.0)
    np.testing.assert_allclose(schedule(samples), rate, rtol=3e-7)


def test_single_samples_are_told_apart_at_the_edges():
    schedule = wsd_schedule(1.0, 10, 2**33 + 100, 100)
    rates = [float(schedule(2**33 + offset)) for offset in (-1, 0, 1, 4, 100, 101)]
    np.testing.assert_allclose(rates, [1, 1, 1 - 0.9 * 0.1, 1 - 0.9 * 0.2, 0.1, 0.1], rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(samples=st.integers(0, 2**34))
def test_wsd_equals_exact_arithmetic(samples):
    peak, warmup, total, decay = 3e-4, 2**20, 2**33 + 12345, 2**31 + 77

    def exact():
        if samples <= warmup:
            return peak * (0.1 + 0.9 * samples / warmup)
        if samples <= total - decay:
            return peak
        return peak * (0.1 + 0.9 * (1 - math.sqrt(min(samples - (total - decay), decay) / decay)))

    np.testing.assert_allclose(fast_wsd(sample_count(samples)), exact(), rtol=1e-6)


fast_wsd = jax.jit(wsd_schedule(3e-4, 2**20, 2**33 + 12345, 2**31 + 77))


def test_warmup_starts_at_a_tenth_and_stages_may_be_empty():
    assert np.isclose(wsd_schedule(1.0, 100, 1000, 200)(0), 0.1)
    assert np.isclose(wsd_schedule(1.0, 0, 1000, 200)(0), 1.0)
    assert np.isclose(wsd_schedule(1.0, 100, 1000, 0)(1000), 1.0)
    assert np.isclose(wsd_schedule(1.0, 100, 1000, 0)(1001), 0.1)
    assert np.isclose(wsd_schedule(1.0, 1000, 1000, 0)(500), 0.55)


def test_cosine_and_constant_have_closed_form_values():
    cosine = cosine_schedule(1.0, 100, 2**33 + 100)
    for samples, rate in [(0, 0.1), (50, 0.55), (100, 1.0), (100 + 2**32, 0.55), (2**33 + 100, 0.1), (2**40, 0.1)]:
        np.testing.assert_allclose(cosine(samples), rate, rtol=1e-6)
    constant = constant_schedule(0.5, 100)
    np.testing.assert_allclose([constant(0), constant(50), constant(101), constant(2**40)], [0.05, 0.275, 0.5, 0.5])
    assert constant(0).dtype == jnp.float32 and not constant(0).weak_type


def test_traced_scalar_counts_are_accepted():
    np.testing.assert_allclose(jax.jit(constant_schedule(1.0, 100))(jnp.int32(50)), 0.55, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, named",
    [((1.0, 600, 1000, 500), "total_samples=1000"), ((1.0, -1, 10, 0), "warmup_samples=-1"), ((1.0, 0, 1.5, 0), "1.5")],
)
def test_impossible_schedules_are_named(arguments, named):
    with pytest.raises(UserError, match=named):
        wsd_schedule(*arguments)


@pytest.mark.parametrize("rate", [None, "0.1", jnp.zeros(2)], ids=["nothing", "text", "several"])
def test_schedule_that_gives_no_number_is_one_line(rate):
    with pytest.raises(UserError, match="it must give one number"):
        resolve_learning_rate(lambda samples: rate, 8)
    assert resolve_learning_rate(lambda samples: 0.5, 8) == 0.5

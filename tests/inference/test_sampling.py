"""Draws follow the documented distribution."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from apertus_jax.inference.sampling import draw, filtered_logits, row_keys


def brute_force(logits, temperature, top_k, top_p):
    """The definition, token by token, in float64: probabilities of the draw."""
    scaled = np.asarray(logits, np.float64) / temperature
    order = sorted(range(len(scaled)), key=lambda token: (-scaled[token], token))[:top_k]
    weights = np.exp(scaled[order] - scaled[order].max())
    weights /= weights.sum()
    kept, mass = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        kept.append(token)
        mass += weight
        if mass >= top_p:
            break
    probabilities = np.zeros(len(scaled))
    probabilities[kept] = np.exp(scaled[kept])
    return probabilities / probabilities.sum()


def ours(logits, temperature, top_k, top_p):
    kept = filtered_logits(
        jnp.asarray(logits, jnp.float32)[None], np.float32(temperature), np.int32(top_k), np.float32(top_p), True
    )
    weights = np.exp(np.asarray(kept[0], np.float64))
    return weights / weights.sum()


# Multiples of 1/8 hold many ties and are exact, so that rounding never decides which token crosses the line.
LOGITS = arrays.arrays(np.int64, 11, elements=st.integers(-24, 24)).map(lambda values: values / 8)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(LOGITS, st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 12), st.sampled_from([0.05, 0.51, 0.9, 1.0]))
def test_kept_tokens_are_those_of_the_definition(logits, temperature, top_k, top_p):
    expected = brute_force(logits, temperature, top_k, top_p)
    cumulated = np.cumsum(np.sort(brute_force(logits, temperature, top_k, 1.0))[::-1])
    hypothesis.assume(top_p == 1.0 or np.abs(cumulated - top_p).min() > 1e-5)
    np.testing.assert_allclose(ours(logits, temperature, top_k, top_p), expected, atol=1e-6)


@pytest.mark.parametrize(("top_k", "top_p"), [(7, 1.0), (50, 0.8), (12, 0.6), (50, 0.01)])
def test_kept_tokens_are_those_of_transformers(top_k, top_p):
    logits = np.random.default_rng(0).standard_normal(50).astype(np.float32) * 2
    theirs = transformers.TemperatureLogitsWarper(0.7)(None, torch.tensor(logits)[None])
    theirs = transformers.TopKLogitsWarper(top_k)(None, theirs)
    if top_p < 1.0:
        theirs = transformers.TopPLogitsWarper(top_p)(None, theirs)
    np.testing.assert_allclose(ours(logits, 0.7, top_k, top_p), torch.softmax(theirs, -1)[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 20, 1.0), (0.7, 20, 0.9), (1.5, 6, 0.95)])
def test_frequencies_of_100000_draws_are_the_probabilities(temperature, top_k, top_p):
    logits = np.random.default_rng(1).standard_normal(20).astype(np.float32)
    rows = 100_000
    kept = filtered_logits(jnp.asarray(logits)[None], np.float32(temperature), np.int32(top_k), np.float32(top_p), True)
    drawn = draw(row_keys(3, jnp.arange(rows, dtype=jnp.uint32)), jnp.int32(4), jnp.tile(kept, (rows, 1)))
    frequencies = np.bincount(np.asarray(drawn), minlength=20) / rows
    expected = brute_force(logits, temperature, top_k, top_p)
    spread = np.sqrt(expected * (1 - expected) / rows)
    # 3 sigma for one token, widened for the best of twenty.
    assert (np.abs(frequencies - expected) <= 3.8 * spread + 1e-12).all()
    assert (frequencies[expected == 0] == 0).all()


def test_taking_nothing_away_equals_not_sorting_at_all():
    logits = jnp.asarray(np.random.default_rng(2).standard_normal((4, 33)), jnp.float32)
    arguments = (np.float32(0.9), np.int32(33), np.float32(1.0))
    np.testing.assert_array_equal(
        filtered_logits(logits, *arguments, truncated=True), filtered_logits(logits, *arguments, truncated=False)
    )

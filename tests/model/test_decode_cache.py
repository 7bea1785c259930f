"""Decoding against a key/value cache equals the full forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.model import ModelConfig, Transformer, init_parameters

CONFIG = ModelConfig(
    vocab_size=48, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, init_std=0.15
)
SLOTS = 16


@pytest.fixture(scope="module")
def params():
    return init_parameters(CONFIG, jax.random.key(1))


@pytest.fixture(scope="module")
def decode(params):
    model = Transformer(CONFIG)

    @jax.jit
    def step(tokens, cache, cache_index):
        return model.apply({"params": params}, tokens, cache=cache, cache_index=cache_index, method="decode")

    return step


def empty_cache(batch):
    shape = (CONFIG.num_layers, batch, SLOTS, CONFIG.num_kv_heads, CONFIG.head_dim)
    return {"key": jnp.zeros(shape), "value": jnp.zeros(shape)}


@pytest.fixture(scope="module")
def full_logits(params):
    """tokens → their logits without a cache; padded at the end, which a causal model cannot see, to compile once."""
    apply = jax.jit(Transformer(CONFIG).apply)

    def logits(tokens):
        padded = np.zeros((1, SLOTS), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(apply({"params": params}, padded))[0, : len(tokens)]

    return logits


def test_ragged_greedy_decoding_equals_the_full_forward_pass(decode, full_logits):
    prompts = [[5, 9, 2, 33, 7], [1], [40, 41, 42]]
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    padded = np.array([prompt + [0] * (5 - len(prompt)) for prompt in prompts], np.int32)
    logits, cache = decode(padded, empty_cache(3), jnp.zeros(3, jnp.int32))
    assert logits.dtype == jnp.float32
    last = np.asarray(logits)[np.arange(3), lengths - 1]
    sequences = [list(prompt) for prompt in prompts]
    for _ in range(6):
        for row, sequence in enumerate(sequences):
            expected = full_logits(sequence)[-1]
            assert np.max(np.abs(last[row] - expected)) <= 1e-5 * np.max(np.abs(expected))
            sequence.append(int(last[row].argmax()))
        newest = np.array([[sequence[-1]] for sequence in sequences], np.int32)
        index = jnp.asarray([len(sequence) - 1 for sequence in sequences], jnp.int32)
        logits, cache = decode(newest, cache, index)
        last = np.asarray(logits)[:, 0]


def test_a_prompt_may_be_fed_in_pieces(decode, full_logits):
    tokens = np.random.default_rng(0).integers(0, 48, (2, 12)).astype(np.int32)
    cache, pieces = empty_cache(2), []
    for start in range(0, 12, 4):
        logits, cache = decode(tokens[:, start : start + 4], cache, jnp.full(2, start, jnp.int32))
        pieces.append(logits)
    expected = np.stack([full_logits(row) for row in tokens])
    error = np.max(np.abs(np.concatenate(pieces, axis=1) - expected))
    assert error <= 1e-5 * np.max(np.abs(expected))


def test_tokens_beyond_the_cache_leave_it_unharmed(decode):
    tokens = np.array([[3, 4, 5, 6]], np.int32)
    _, cache = decode(tokens, empty_cache(1), jnp.asarray([0], jnp.int32))
    _, after = decode(tokens, cache, jnp.asarray([SLOTS], jnp.int32))
    jax.tree.map(np.testing.assert_array_equal, cache, after)


def test_stale_slots_after_a_rows_own_are_never_read(decode):
    tokens = np.array([[3, 4, 5, 6]], np.int32)
    dirty = jax.tree.map(lambda array: array.at[:, :, 4:].set(1e3), empty_cache(1))
    clean_logits, _ = decode(tokens, empty_cache(1), jnp.zeros(1, jnp.int32))
    dirty_logits, _ = decode(tokens, dirty, jnp.zeros(1, jnp.int32))
    np.testing.assert_array_equal(clean_logits, dirty_logits)

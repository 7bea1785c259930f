"""Documents packed into one window: what they see of each other in each mode."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.model import ModelConfig, Transformer, init_parameters

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, init_std=0.2
)
IMPLEMENTATIONS = ["xla", "xla_blockwise"]
LENGTHS = (70, 90, 40)  # the borders fall inside blocks of 128


@pytest.fixture(scope="module")
def params():
    return init_parameters(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 64, (1, length)).astype(np.int32) for length in LENGTHS]


def packed(documents):
    segments = np.repeat(np.arange(len(documents)), [document.shape[1] for document in documents])
    return np.concatenate(documents, axis=1), segments[None].astype(np.int32)


@functools.cache
def forward(config):
    return jax.jit(Transformer(config).apply)


def logits(params, tokens, segment_ids=None, positions=None, **changes):
    apply = forward(dataclasses.replace(CONFIG, **changes))
    return np.asarray(apply({"params": params}, tokens, positions, segment_ids))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_document_keeps_every_bit_whatever_its_neighbours(params, documents, implementation):
    tokens, segments = packed(documents)
    changed = np.concatenate([(documents[0] + 7) % 64, documents[1], (documents[2] + 3) % 64], axis=1)
    before, after = (logits(params, t, segments, attention_implementation=implementation) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, 70:160], after[:, 70:160])
    assert np.max(np.abs(before[:, :70] - after[:, :70])) > 0.01


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("reset_positions", [True, False])
def test_packed_documents_equal_the_same_documents_alone(params, documents, implementation, reset_positions):
    changes = dict(attention_implementation=implementation, reset_positions=reset_positions)
    together = logits(params, *packed(documents), **changes)
    start = 0
    for document in documents:
        end = start + document.shape[1]
        # Rotary attention sees differences of positions only, so an offset may cost roundings but no meaning.
        # Filled up at the end, which a causal model cannot see, to compile once.
        filled = np.pad(document, ((0, 0), (0, max(LENGTHS) - document.shape[1])))
        alone = logits(params, filled, **changes)[:, : document.shape[1]]
        tolerance = 1e-6 if reset_positions else 2e-5
        assert np.max(np.abs(together[:, start:end] - alone)) <= tolerance * np.max(np.abs(alone))
        start = end


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_causal_mode_lets_documents_see_each_other(params, documents, implementation):
    tokens, segments = packed(documents)
    changes = dict(attention_implementation=implementation, doc_attention="causal", reset_positions=False)
    as_released = logits(params, tokens, segments, **changes)
    np.testing.assert_array_equal(as_released, logits(params, tokens, None, **changes))
    changed = np.concatenate([(documents[0] + 7) % 64, *documents[1:]], axis=1)
    assert np.max(np.abs(logits(params, changed, segments, **changes)[:, 70:] - as_released[:, 70:])) > 0.01


@pytest.mark.parametrize("doc_attention", ["segment", "causal"])
def test_positions_are_reset_only_when_asked(params, documents, doc_attention):
    tokens, segments = packed(documents)
    window = np.arange(tokens.shape[1], dtype=np.int32)[None]
    restarted = np.concatenate([np.arange(length) for length in LENGTHS])[None].astype(np.int32)
    mode = dict(doc_attention=doc_attention)
    unreset = logits(params, tokens, segments, restarted, reset_positions=False, **mode)
    np.testing.assert_array_equal(unreset, logits(params, tokens, segments, window, reset_positions=True, **mode))
    reset = logits(params, tokens, segments, None, reset_positions=True, **mode)
    np.testing.assert_array_equal(reset, logits(params, tokens, segments, restarted, reset_positions=True, **mode))
    if doc_attention == "causal":
        assert np.max(np.abs(reset - unreset)) > 0.01


def test_gradients_do_not_cross_documents(params, documents):
    tokens, segments = packed(documents)
    model = Transformer(dataclasses.replace(CONFIG, attention_implementation="xla_blockwise"))
    only_first = np.concatenate([documents[0] % 32, 32 + documents[1] % 16, 48 + documents[2] % 16], axis=1)

    def loss(params):
        return jnp.sum(model.apply({"params": params}, only_first, None, segments)[:, 70:160] ** 2)

    embedding = np.asarray(jax.jit(jax.grad(loss))(params)["embedder"]["embedding"])
    assert not embedding[:32].any() and embedding[32:48].any() and not embedding[48:].any()

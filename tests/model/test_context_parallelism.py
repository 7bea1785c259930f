"""Sequences split over devices: the same attention, gradients and hidden states, with equal work for each device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax import sharding
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, init_parameters
from apertus_jax.model.attention import attend, plain_attention
from apertus_jax.model.context_parallelism import CHUNKS, into_zigzag, out_of_zigzag, zigzag
from apertus_jax.model.transformer import Transformer

LENGTH = 256


def mesh_of(**sizes):
    config = sharding.MeshConfig(**{"data": 1, **sizes})
    count = int(np.prod([config.data, config.fsdp, config.tensor, config.context]))
    return sharding.use_mesh(sharding.make_mesh(config, jax.devices()[:count]), config.axis_rules("cpu"))


def heads_of(length, key=0, batch=2, heads=4, kv_heads=2, head_dim=16):
    keys = jax.random.split(jax.random.key(key), 3)
    counts = (heads, kv_heads, kv_heads)
    return [jax.random.normal(k, (batch, length, n, head_dim)) for k, n in zip(keys, counts, strict=True)]


def documents_of(length, batch=2):
    starts = jax.random.bernoulli(jax.random.key(7), 0.02, (batch, length))
    return jnp.cumsum(starts.astype(jnp.int32), axis=1)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 8])
def test_zigzag_gives_every_device_the_same_work(parts):
    chunks = zigzag(parts).reshape(parts, CHUNKS)
    assert sorted(chunks.reshape(-1)) == list(range(CHUNKS * parts))
    keys_read = (chunks + 1).sum(axis=1)
    assert set(keys_read) == {CHUNKS * parts + 1}


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_zigzag_order_is_undone_without_a_gather(parts):
    hidden = jax.random.normal(jax.random.key(0), (2, 8 * parts, 4))
    with mesh_of(context=parts):

        @jax.jit
        def there_and_back(hidden):
            return out_of_zigzag(jnp.stack([into_zigzag(column) for column in jnp.moveaxis(hidden, 2, 0)], axis=2))

        np.testing.assert_array_equal(there_and_back(hidden), hidden)
        back = jax.jit(out_of_zigzag).lower(hidden).compile().as_text()
    assert (
        "all-gather" not in back and back.count(" collective-permute(") + back.count("collective-permute-start(") == 2
    )


@pytest.mark.parametrize("with_documents", [False, True], ids=["one document", "documents"])
@pytest.mark.parametrize(
    ("implementation", "sizes"),
    [
        ("xla_blockwise", {"context": 2}),
        ("xla_blockwise", {"context": 8}),
        ("xla_blockwise", {"context": 2, "tensor": 2, "fsdp": 2}),
        ("tpu_splash", {"context": 2}),
    ],
    ids=lambda value: "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else value,
)
def test_split_attention_is_the_plain_one(implementation, sizes, with_documents):
    # The kernel, interpreted, is slow: its smallest heads; it takes blocks of 128 keys.
    heads = {"head_dim": 128, "batch": 1, "heads": 2, "kv_heads": 1} if implementation == "tpu_splash" else {}
    query, key, value = heads_of(LENGTH * (2 if implementation == "tpu_splash" else 1), **heads)
    segments = documents_of(query.shape[1], query.shape[0]) if with_documents else None
    order = np.arange(query.shape[1]).reshape(CHUNKS * sizes["context"], -1)[zigzag(sizes["context"])].reshape(-1)

    def weighted(attention, query, key, value):
        context = attention(query, key, value, segments)
        return (context * jnp.cos(jnp.arange(context.size).reshape(context.shape))).sum(), context

    def split(query, key, value, segments):
        query, key, value = (each[:, jnp.asarray(order)] for each in (query, key, value))
        options = {"implementation": implementation, "interpret": implementation == "tpu_splash"}
        context = attend(query, key, value, segment_ids=segments, **options)
        return context[:, np.argsort(order)]

    gradient = functools.partial(jax.value_and_grad, argnums=(1, 2, 3), has_aux=True)
    (_, plain), plain_gradients = jax.jit(gradient(weighted), static_argnums=0)(plain_attention, query, key, value)
    with mesh_of(**sizes):
        (_, given), gradients = jax.jit(gradient(weighted), static_argnums=0)(split, query, key, value)
    np.testing.assert_allclose(given, plain, atol=2e-5)
    for of_split, of_plain in zip(gradients, plain_gradients, strict=True):
        np.testing.assert_allclose(of_split, of_plain, atol=1e-4)


def small_model(**changes):
    return ModelConfig(
        **{
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "attention_implementation": "xla_blockwise",
            "compute_dtype": "float32",
            **changes,
        }
    )


def loss_of(config, params, tokens, segments):
    hidden = Transformer(config).apply({"params": params}, tokens, None, segments, method="hidden_states")
    return (hidden * jnp.cos(jnp.arange(hidden.size).reshape(hidden.shape))).mean()


@pytest.mark.parametrize("sizes", [{"context": 4}, {"context": 2, "fsdp": 2, "tensor": 2}], ids=["4", "2 of 8"])
def test_split_sequences_train_as_whole_ones(sizes):
    config = small_model()
    params = init_parameters(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, LENGTH), 0, config.vocab_size)
    step = jax.jit(jax.value_and_grad(loss_of, argnums=1), static_argnums=0)
    loss, gradients = step(config, params, tokens, documents_of(LENGTH))
    with mesh_of(**sizes):
        lowered = jax.jit(jax.value_and_grad(loss_of, argnums=1), static_argnums=0)
        program = lowered.lower(config, params, tokens, documents_of(LENGTH)).compile()
        split_loss, split_gradients = program(params, tokens, documents_of(LENGTH))
    np.testing.assert_allclose(split_loss, loss, rtol=1e-5, atol=1e-8)
    for of_split, of_whole in zip(jax.tree.leaves(split_gradients), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(of_split, of_whole, rtol=1e-3, atol=1e-6)


def test_keys_and_values_are_gathered_once_a_layer():
    config, parts = small_model(num_layers=1, scan_unroll=1, remat_policy="none"), 4
    params = init_parameters(config, jax.random.key(0))
    tokens = jnp.zeros((2, LENGTH), jnp.int32)
    with mesh_of(context=parts):
        step = jax.jit(jax.value_and_grad(loss_of, argnums=1), static_argnums=0)
        text = step.lower(config, params, tokens, documents_of(LENGTH)).compile().as_text()
    gathers = re.findall(r"= (\S+) all-gather(?:-start)?\(", text)
    # Keys and values of both rows in one; their gradient is scattered once.
    assert [shape.split("{")[0] for shape in gathers] == [f"f32[2,2,{LENGTH},2,8]"], gathers
    assert len(re.findall(r" reduce-scatter(?:-start)?\(", text)) == 1


def test_length_that_has_no_two_chunks_a_device_is_refused():
    config = small_model()
    params = init_parameters(config, jax.random.key(0))
    with mesh_of(context=4), pytest.raises(UserError, match=r"length of 12 does not divide into 2 × context=4 chunks"):
        loss_of(config, params, jnp.zeros((1, 12), jnp.int32), None)

"""CPU decoding step: unstacked layers, transposed weights, cache with heads first.

A step with few rows does little more than read every matrix once, so what counts is how they lie in memory.
- A scan over stacked layers copies each layer's matrices out of the stack before XLA:CPU multiplies by them, and the
  cache out and back in. Here every layer has arrays of its own.
- XLA:CPU reads a matrix [out, in] that stands on the left of a product about twice as fast as one [in, out] on the
  right. Query, key and value are one matrix, so the smallest products are not alone.
- Keys are [B,K,S,H] and values [B,K,H,S], so that both products of attention are of that kind too.

It is written for Apertus' own feedforward and the parameters of `READ`: all else is decoded by the model's own module.
The functions are those of `model.Transformer` on the same numbers; only the order of float sums differs. It costs
compilation time that grows with the number of layers, and the memory of a second set of parameters while the stacked
one is alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from apertus_jax.model.attention import attention_mask
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.feedforwards import OWN
from apertus_jax.model.norm import rms_norm
from apertus_jax.model.rope import apply_rotary, inverse_frequencies, rotary_tables
from apertus_jax.model.xielu import xielu

Array = jax.Array
LayerCache = dict[str, Array]
# Up to so many rows a product is bound by reading its matrix; measured on two cores with AVX-512.
FEW_ROWS = 64


# Every parameter that this step reads, and its axes: L layers, D embed, N query heads, K key/value heads, H head dim,
# F feedforward, V vocabulary.
READ = {
    "embedder/embedding": "VD",
    "layers/attention_norm/scale": "LD",
    "layers/attention/query/kernel": "LDNH",
    "layers/attention/key/kernel": "LDKH",
    "layers/attention/value/kernel": "LDKH",
    "layers/attention/output/kernel": "LNHD",
    "layers/attention/query_norm/scale": "LH",
    "layers/attention/key_norm/scale": "LH",
    "layers/feedforward_norm/scale": "LD",
    "layers/feedforward/up/kernel": "LDF",
    "layers/feedforward/down/kernel": "LFD",
    "layers/feedforward/xielu/alpha_p": "L",
    "layers/feedforward/xielu/alpha_n": "L",
    "final_norm/scale": "D",
    "lm_head/kernel": "DV",
}


def unknown_part(config: ModelConfig, params: Mapping[str, Any]) -> str | None:
    """Returns the feedforward, or the first parameter, that this step does not know; None when it serves.

    A parameter is unknown, too, that is lacking or has other axes. `params` is the plain tree of the model, not what
    `unroll_layers` makes of it.
    """
    if config.feedforward != OWN:
        return f"the feedforward {config.feedforward!r}"
    found = {path: leaf.ndim for path, leaf in flatten_dict(params, sep="/").items()}
    known = {path: len(axes) for path, axes in READ.items()}
    return next((path for path in sorted(found.keys() | known.keys()) if found.get(path) != known.get(path)), None)


def is_unrolled(params: Mapping[str, Any]) -> bool:
    """Returns whether `unroll_layers` made this tree."""
    return isinstance(params["layers"], tuple)


@jax.jit
def unroll_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters with `layers` as a tuple of one tree per layer and all matrices as [out, in].

    Only for trees of which `unknown_part` says None: others would lose a parameter.
    """
    return {
        "embedding": params["embedder"]["embedding"],
        "layers": tuple(
            _transposed_layer(jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["layers"]))
            for layer in range(params["layers"]["attention_norm"]["scale"].shape[0])
        ),
        "final_norm": params["final_norm"]["scale"],
        "lm_head": params["lm_head"]["kernel"].T,
    }


def _transposed_layer(layer: Mapping[str, Any]) -> dict[str, Array]:
    attention, feedforward = layer["attention"], layer["feedforward"]
    projections = [attention[name]["kernel"] for name in ("query", "key", "value")]
    embed = projections[0].shape[0]
    return {
        "attention_norm": layer["attention_norm"]["scale"],
        "query_key_value": jnp.concatenate([kernel.reshape(embed, -1).T for kernel in projections]),
        "query_norm": attention["query_norm"]["scale"],
        "key_norm": attention["key_norm"]["scale"],
        "output": attention["output"]["kernel"].reshape(-1, embed).T,
        "feedforward_norm": layer["feedforward_norm"]["scale"],
        "up": feedforward["up"]["kernel"].T,
        "alpha_p": feedforward["xielu"]["alpha_p"],
        "alpha_n": feedforward["xielu"]["alpha_n"],
        "down": feedforward["down"]["kernel"].T,
    }


def init_unrolled_cache(
    config: ModelConfig, batch_size: int, max_length: int, dtype: jnp.dtype | str | None = None
) -> tuple[LayerCache, ...]:
    """Returns an empty cache for `decode_unrolled`: one layer's {"key": [B,K,S,H], "value": [B,K,H,S]} each.

    Arguments as in `init_cache`.
    """
    dtype = config.compute_dtype if dtype is None else dtype
    batch_and_heads = (batch_size, config.num_kv_heads)
    shapes = {"key": (max_length, config.head_dim), "value": (config.head_dim, max_length)}
    return tuple(
        {name: jnp.zeros(batch_and_heads + shape, dtype) for name, shape in shapes.items()}
        for _ in range(config.num_layers)
    )


def decode_unrolled(
    config: ModelConfig,
    params: Mapping[str, Any],
    tokens: Array,
    positions: Array,
    cache: tuple[LayerCache, ...],
    cache_index: Array,
) -> tuple[Array, tuple[LayerCache, ...]]:
    """The same function as `Transformer.decode`, for the parameters of `unroll_layers`.

    tokens, positions int32 [B,T]; cache as in `init_unrolled_cache`; cache_index int32 [B] → (float32 [B,T,V], the new
    cache).
    """
    slots = cache_index[:, None] + jnp.arange(tokens.shape[1], dtype=cache_index.dtype)
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    rotary = rotary_tables(positions, frequencies, jnp.dtype(config.compute_dtype))
    mask = attention_mask(slots, cache[0]["key"].shape[2])
    hidden = params["embedding"][tokens].astype(config.compute_dtype)
    updated = []
    for layer, layer_cache in zip(params["layers"], cache, strict=True):
        normed = rms_norm(hidden, layer["attention_norm"], config.norm_epsilon)
        attended, layer_cache = _attention(config, layer, normed, rotary, layer_cache, slots, mask)
        hidden = hidden + attended
        wide = _project(layer["up"], rms_norm(hidden, layer["feedforward_norm"], config.norm_epsilon))
        wide = xielu(wide, layer["alpha_p"], layer["alpha_n"], config.xielu_beta, config.xielu_epsilon)
        hidden = hidden + _project(layer["down"], wide)
        updated.append(layer_cache)
    logits = _project(params["lm_head"], rms_norm(hidden, params["final_norm"], config.norm_epsilon))
    return logits.astype(jnp.float32), tuple(updated)


def _project(matrix: Array, inputs: Array) -> Array:
    """[out, in], [B,T,in] → [B,T,out], in the dtype of the inputs."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    matrix = matrix.astype(inputs.dtype)
    shape = (*inputs.shape[:-1], matrix.shape[0])
    if rows.shape[0] > FEW_ROWS:
        return (rows @ matrix.T).reshape(shape)
    # Without the barrier XLA turns the product round again.
    return jax.lax.optimization_barrier(matrix @ rows.T).T.reshape(shape)


def _attention(
    config: ModelConfig, layer: Mapping[str, Array], hidden: Array, rotary, cache: LayerCache, slots: Array, mask: Array
) -> tuple[Array, LayerCache]:
    """[B,T,D], tables, this layer's cache, int32 [B,T], bool [B,T,S] → [B,T,D] and the updated cache."""
    batch, length, _ = hidden.shape
    kv_heads, head_dim = config.num_kv_heads, config.head_dim
    heads = _project(layer["query_key_value"], hidden).reshape(batch, length, -1, head_dim)
    query, key, value = jnp.split(heads, (config.num_heads, config.num_heads + kv_heads), axis=2)
    query = apply_rotary(rms_norm(query, layer["query_norm"], config.norm_epsilon), *rotary)
    key = apply_rotary(rms_norm(key, layer["key_norm"], config.norm_epsilon), *rotary)
    cache = _write(cache, key, value, slots)
    keys, values = (cache[name].astype(query.dtype) for name in ("key", "value"))
    query = query.reshape(batch, length, kv_heads, -1, head_dim)
    scores = jnp.einsum("BKSH,BTKGH->BKSTG", keys, query, preferred_element_type=jnp.float32) * head_dim**-0.5
    scores = jnp.where(mask.swapaxes(1, 2)[:, None, :, :, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=2).astype(values.dtype)
    context = jnp.einsum("BKHS,BKSTG->BKHTG", values, weights, preferred_element_type=jnp.float32)
    context = context.transpose(0, 3, 1, 4, 2).reshape(batch, length, -1)
    return _project(layer["output"], context.astype(query.dtype)), cache


def _write(cache: LayerCache, key: Array, value: Array, slots: Array) -> LayerCache:
    """Puts the new tokens' [B,T,K,H] at their slots, int32 [B,T], dropping what falls outside → the new cache."""
    rows, heads, slots = jnp.arange(key.shape[0])[:, None, None], jnp.arange(key.shape[2]), slots[:, :, None]
    keys, values = cache["key"], cache["value"]
    return {
        "key": keys.at[rows, heads, slots].set(key.astype(keys.dtype), mode="drop"),
        "value": values.at[rows, heads, :, slots].set(value.astype(values.dtype), mode="drop"),
    }

"""The decoding step with the layers as separate arrays.

A scan over stacked layers copies every layer's matrices out of the stack before XLA:CPU can multiply by them, and the
cache out and back in: at one token per row that is most of the work. Apart, matrices are read where they lie and the
cache is updated in place. It costs compilation time that grows with the number of layers, and the memory of a second
set of parameters while the stacked one is alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from apertus_jax.model.config import ModelConfig
from apertus_jax.model.rope import inverse_frequencies, rotary_tables
from apertus_jax.model.transformer import Block, Embedder, RMSNorm

Array = jax.Array


@jax.jit
def _split(stacked: Any) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(stacked)
    return tuple(structure.unflatten([leaf[layer] for leaf in leaves]) for layer in range(leaves[0].shape[0]))


def is_unrolled(params: Mapping[str, Any]) -> bool:
    """Returns whether `unroll_layers` made this tree."""
    return isinstance(params["layers"], tuple)


def unroll_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters with `layers` as a tuple of one tree per layer (leaves without the leading L axis)."""
    return {**params, "layers": _split(params["layers"])}


def decode_unrolled(
    config: ModelConfig,
    params: Mapping[str, Any],
    tokens: Array,
    positions: Array,
    cache: tuple[dict[str, Array], ...],
    cache_index: Array,
) -> tuple[Array, tuple[dict[str, Array], ...]]:
    """The same function as `Transformer.decode`, for parameters and cache of `unroll_layers`.

    tokens, positions int32 [B,T]; cache is one {"key", "value"} of [B,S,K,H] per layer; cache_index int32 [B]
    → (float32 [B,T,V], the new cache).
    """
    slots = cache_index[:, None] + jnp.arange(tokens.shape[1], dtype=cache_index.dtype)
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    rotary = rotary_tables(positions, frequencies, jnp.dtype(config.compute_dtype))
    hidden = Embedder(config).apply({"params": params["embedder"]}, tokens)
    updated = []
    for layer, layer_cache in zip(params["layers"], cache, strict=True):
        hidden, layer_cache = Block(config).apply({"params": layer}, hidden, layer_cache, rotary, None, slots)
        updated.append(layer_cache)
    hidden = RMSNorm(config.hidden_size, config.norm_epsilon).apply({"params": params["final_norm"]}, hidden)
    logits = jnp.einsum("BTD,DV->BTV", hidden, params["lm_head"]["kernel"].astype(hidden.dtype))
    return logits.astype(jnp.float32), tuple(updated)

"""Key/value cache."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from apertus_jax.model.config import ModelConfig

CACHE_AXES = ("layers", "activation_batch", None, "activation_kv_heads", None)


def init_cache(
    config: ModelConfig, batch_size: int, max_length: int, dtype: jnp.dtype | str | None = None
) -> dict[str, jax.Array]:
    """Returns an empty cache: {"key", "value"} of [L, B, S, K, H].

    Args:
      config: the architecture.
      batch_size: rows B.
      max_length: slots S; a token takes one, prompt and continuation alike.
      dtype: type of the entries; None means config.compute_dtype.
    """
    shape = (config.num_layers, batch_size, max_length, config.num_kv_heads, config.head_dim)
    empty = jnp.zeros(shape, config.compute_dtype if dtype is None else dtype)
    return {name: nn.with_logical_constraint(empty, CACHE_AXES) for name in ("key", "value")}

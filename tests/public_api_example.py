"""The public names as a typed program uses them: `make lint` checks the types, test_types.py runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax

from apertus_jax.corpus.robots import RobotsPolicy
from apertus_jax.data import segment_ids_and_positions
from apertus_jax.model import ModelConfig, Transformer, init_parameters
from apertus_jax.objectives import Batch, LossMask, combine_masks, cross_entropy, goldfish, goldfish_mask, not_after_eod
from apertus_jax.optimization import ademamix, constant_schedule, wsd_schedule
from apertus_jax.release import load_huggingface, save_huggingface
from apertus_jax.sharding import MeshConfig, make_mesh

EOD = 0


def drop_odd(offset: int = 0) -> LossMask:
    """A loss mask of one's own."""

    def mask(batch: Batch) -> jax.Array:
        return (batch["tokens"][:, 1:] + offset) % 2 == 0

    return mask


def small_model() -> tuple[ModelConfig, Any]:
    """A configuration whose head_dim is filled in, and its parameters."""
    config = ModelConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=None
    )
    assert_type(config.head_dim, int)
    return config, init_parameters(config, jax.random.key(0))


def masks_of(tokens: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """What Goldfish keeps of tokens int32[B, T+1] read from a file, and the weights under three masks."""
    segment_ids, positions = segment_ids_and_positions(tokens[:, :-1], EOD)
    assert_type(segment_ids, np.ndarray)
    keep = goldfish_mask(tokens[:, 1:], k=4, h=3, strategy="megatron")
    batch = {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}
    weights = combine_masks([goldfish(k=4, h=3), not_after_eod(EOD), drop_odd()], jax.tree.map(jnp.asarray, batch))
    return assert_type(keep, jax.Array), assert_type(weights, jax.Array)


def one_step(config: ModelConfig, params: Any, tokens: jax.Array, weights: jax.Array) -> tuple[Any, jax.Array]:
    """The parameters after an update with AdEMAMix, and the loss before it."""
    schedule = wsd_schedule(1e-3, warmup_samples=2, total_samples=10, decay_samples=2)
    optimizer = ademamix(schedule, weight_decay=0.1, alpha_warmup_steps=10, b3_warmup_steps=10)

    def loss_of(params: Any) -> jax.Array:
        hidden: Any = Transformer(config).apply({"params": params}, tokens[:, :-1], method="hidden_states")
        total, count = cross_entropy(hidden, params["lm_head"]["kernel"], tokens[:, 1:], weights)
        return total / count

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params, samples_consumed=0)
    return optax.apply_updates(params, updates), loss


def main(folder: Path) -> float:
    """Masks, trains one step, exports, reads back; returns the loss."""
    assert RobotsPolicy.parse("User-agent: *\nDisallow: /private").allows("MyBot", "https://a.example/public")
    assert constant_schedule(1e-3)(5) == jnp.float32(1e-3)
    config, params = small_model()
    tokens = np.asarray(jax.random.randint(jax.random.key(1), (2, 9), 0, 64), np.int32)
    keep, weights = masks_of(tokens)
    assert keep.shape == weights.shape == (2, 8)
    with jax.set_mesh(make_mesh(MeshConfig())):
        params, loss = one_step(config, params, jnp.asarray(tokens), weights)
    save_huggingface(folder, config, params)
    read_config, read_params = load_huggingface(folder)
    assert read_config == config and jax.tree.map(jnp.shape, read_params) == jax.tree.map(jnp.shape, params)
    return float(loss)

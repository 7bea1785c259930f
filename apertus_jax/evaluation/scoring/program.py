"""Compiled scoring: one forward pass, then the vocabulary projection of scored positions in tiles.

The loop over tiles runs as often as there are scored positions, so one program serves a batch in which every token is
scored and one in which a single letter per row is; logits exist for one tile at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from apertus_jax.model import Transformer
from apertus_jax.model.config import ModelConfig

Array = jax.Array
TILE_BYTES = {"cpu": 1 << 25}
ACCELERATOR_TILE_BYTES = 1 << 28
SMALLEST_TILE, LARGEST_TILE = 16, 256
WHOLE = jax.sharding.PartitionSpec()


class Outputs(NamedTuple):
    """Outputs of C shards with P scored positions each; A alternatives for the next token."""

    log_probabilities: Array  # float32[C, P, A]
    best: Array  # int32[C, P], the most probable token, the lowest id among equals
    means: Array | None  # float32[C, P]
    deviations: Array | None  # float32[C, P]


@dataclasses.dataclass(frozen=True)
class ScoringProgram:
    """Static arguments of a compiled scoring program, besides the shapes of its batch."""

    config: ModelConfig
    tile: int
    statistics: bool
    # The table of axis names in force shapes the program but is no part of jit's own key.
    axis_rules: tuple[Any, ...]


def tile_size(vocab_size: int) -> int:
    """Returns how many positions are projected at a time: a power of two whose logits take a bounded memory."""
    size = TILE_BYTES.get(jax.default_backend(), ACCELERATOR_TILE_BYTES) // (4 * vocab_size)
    return min(LARGEST_TILE, max(SMALLEST_TILE, 1 << max(size, 1).bit_length() - 1))


@functools.partial(jax.jit, static_argnames="program")
def score_batch(
    params: Any, tokens: Array, places: Array, labels: Array, num_tiles: Array, program: ScoringProgram
) -> Outputs:
    """Scores one batch: int32[C × R, T], int32[C, P], int32[C, P, A], int32[] → `Outputs`; see `Batch`.

    Positions beyond `num_tiles` tiles come back as zeros.
    """
    hidden: Any = Transformer(program.config).apply({"params": params}, tokens, method="hidden_states")
    shards, capacity, _ = labels.shape
    hidden = hidden.reshape(shards, -1, hidden.shape[-1])
    # Whole rows of the kernel are fetched once here and not once per tile.
    kernel = params["lm_head"]["kernel"].astype(hidden.dtype)
    kernel = nn.with_logical_constraint(kernel, (None, "activation_vocab"))

    def add_tile(number: Array, outputs: Outputs) -> Outputs:
        start = number * program.tile
        chosen = jax.lax.dynamic_slice_in_dim(places, start, program.tile, axis=1)
        wanted = jax.lax.dynamic_slice_in_dim(labels, start, program.tile, axis=1)
        tile = _score_tile(jnp.take_along_axis(hidden, chosen[..., None], axis=1), kernel, wanted, program.statistics)
        return jax.tree.map(lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new, start, 1), outputs, tile)

    empty = jnp.zeros((shards, capacity), jnp.float32)
    start = Outputs(
        log_probabilities=jnp.zeros(labels.shape, jnp.float32),
        best=jnp.zeros((shards, capacity), jnp.int32),
        means=empty if program.statistics else None,
        deviations=empty if program.statistics else None,
    )
    outputs = jax.lax.fori_loop(0, num_tiles, add_tile, start)
    # Whole on every device, so that each process of a job can read all answers.
    return outputs if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(outputs, WHOLE)


def _score_tile(hidden: Array, kernel: Array, labels: Array, statistics: bool) -> Outputs:
    """[C, t, D], [D, V], int32[C, t, A] → `Outputs` of t positions; softmax in float32.

    Source: docs/reference/evaluation_and_release.md §2.1, §3.7.
    """
    logits = jnp.einsum("CTD,DV->CTV", hidden, kernel, preferred_element_type=jnp.float32)
    highest = logits.max(axis=-1, keepdims=True)
    log_normalizer = highest + jnp.log(jnp.exp(logits - highest).sum(axis=-1, keepdims=True))
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2)
    best = jnp.where(logits == highest, ids, logits.shape[-1]).min(axis=-1)
    chosen = jnp.take_along_axis(logits, labels, axis=-1) - log_normalizer
    if not statistics:
        return Outputs(chosen, best, None, None)
    log_probabilities = logits - log_normalizer
    probabilities = jnp.exp(log_probabilities)
    means = (probabilities * log_probabilities).sum(axis=-1, keepdims=True)
    variances = (probabilities * jnp.square(log_probabilities - means)).sum(axis=-1)
    return Outputs(chosen, best, means[..., 0], jnp.sqrt(variances))

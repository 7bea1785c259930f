"""Tiled cross-entropy: the logits of one tile at a time, never those of the whole batch.

The gradient is taken while a tile's logits are at hand, so a training step costs three matrix products over the
vocabulary, as plain cross-entropy does, and not four.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError

_Gradients = tuple[jax.Array, jax.Array, jax.Array]  # of hidden, of lm_head, and the losses: that of the weights
Placement = Callable[[jax.Array], jax.Array]


def as_it_is(lm_head: jax.Array) -> jax.Array:
    """The `placement` of one that stays where it is."""
    return lm_head


def cross_entropy(
    hidden: jax.Array,
    lm_head: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    num_tiles: int = 8,
    batch_shards: int = 1,
    placement: Placement = as_it_is,
) -> tuple[jax.Array, jax.Array]:
    """Weighted cross-entropy of next tokens → (float32[] sum of weight × loss, float32[] sum of weights).

    hidden [B, T, D], lm_head [D, V], labels int32[B, T], weights float32[B, T] or bool. A label outside the vocabulary
    needs weight 0. Logits are multiplied in hidden's dtype and kept in float32
    (docs/reference/model_and_training.md §2.4); the gradient of lm_head is added up in float32. T need not be a
    multiple of `num_tiles`. `batch_shards`, a divisor of B, is how many ways the mesh splits B: each shard adds up its
    own lm_head gradient and they are summed once at the end instead of once per tile, at the price of one float32
    [D, V] on each device. `placement` constrains the lm_head, in hidden's dtype, to how all tiles use it: a mesh that
    splits D else gathers it for each tile; its gradient is not constrained. Only first derivatives exist. Divide with
    `mean_loss`. Raises UserError if batch_shards does not divide B.
    """
    if hidden.shape[0] % batch_shards:
        raise UserError(
            f"cross_entropy batch_shards={batch_shards} does not divide the batch of {hidden.shape[0]} rows; "
            "use the number of ways the mesh splits the batch"
        )
    if weights.dtype == jnp.bool_:
        weights = weights.astype(jnp.float32)
    return _cross_entropy(num_tiles, batch_shards, placement, hidden, lm_head, labels, weights)


def mean_loss(loss_sum: jax.Array, weight_sum: jax.Array) -> jax.Array:
    """loss_sum / weight_sum, and 0 with zero gradients where nothing is left in the loss."""
    return jnp.where(weight_sum > 0, loss_sum / jnp.where(weight_sum > 0, weight_sum, 1), 0)


def token_losses(hidden: jax.Array, lm_head: jax.Array, labels: jax.Array, num_tiles: int = 8) -> jax.Array:
    """Cross-entropy of each label in nats, float32[B, T]; arguments as in `cross_entropy`.

    Differentiable too, at the price of computing the logits again.
    """
    kernel = lm_head.astype(hidden.dtype)

    @jax.checkpoint
    def tile(hidden_tile: jax.Array, labels_tile: jax.Array) -> jax.Array:
        losses, *_ = _losses_of_tile(hidden_tile, kernel, labels_tile)
        return losses

    def step(_: None, tiles: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        return None, tile(*tiles)

    _, losses = jax.lax.scan(step, None, (_split(hidden, num_tiles), _split(labels, num_tiles)))
    return _join(losses, labels.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _cross_entropy(
    num_tiles: int,
    batch_shards: int,
    placement: Placement,
    hidden: jax.Array,
    lm_head: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    losses = token_losses(hidden, placement(lm_head.astype(hidden.dtype)), labels, num_tiles)
    return jnp.sum(losses * weights), jnp.sum(weights)


def _cross_entropy_forward(
    num_tiles: int,
    batch_shards: int,
    placement: Placement,
    hidden: jax.Array,
    lm_head: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], _Gradients]:
    kernel = placement(lm_head.astype(hidden.dtype))
    accumulator = jnp.zeros((batch_shards, *lm_head.shape), jnp.float32)

    def step(accumulator: jax.Array, tiles: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        hidden_tile, labels_tile, weights_tile = tiles
        losses, d_hidden, d_kernel = _gradients_of_tile(hidden_tile, kernel, labels_tile, weights_tile, batch_shards)
        return accumulator + d_kernel, (losses, d_hidden)

    tiles = tuple(_split(array, num_tiles) for array in (hidden, labels, weights))
    d_kernel, (losses, d_hidden) = jax.lax.scan(step, accumulator, tiles)
    length = labels.shape[1]
    losses, d_hidden = _join(losses, length), _join(d_hidden, length)
    d_lm_head = d_kernel.sum(axis=0).astype(lm_head.dtype)
    return (jnp.sum(losses * weights), jnp.sum(weights)), (d_hidden, d_lm_head, losses)


def _cross_entropy_backward(
    num_tiles: int,
    batch_shards: int,
    placement: Placement,
    gradients: _Gradients,
    cotangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, None, jax.Array]:
    d_hidden, d_lm_head, losses = gradients
    loss_cotangent, weight_cotangent = cotangents
    d_weights = loss_cotangent * losses + weight_cotangent
    d_hidden = (loss_cotangent * d_hidden).astype(d_hidden.dtype)
    return d_hidden, (loss_cotangent * d_lm_head).astype(d_lm_head.dtype), None, d_weights


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def _losses_of_tile(hidden: jax.Array, kernel: jax.Array, labels: jax.Array) -> tuple[jax.Array, ...]:
    """[B, t, D], [D, V], [B, t] → losses [B, t], logits [B, t, V], log-sum-exp [B, t, 1], label hits bool[B, t, V].

    The hits are a comparison that fuses into its consumers. Unlike a gather or a scatter it costs nothing to compute
    when the vocabulary is sharded.
    """
    logits = jnp.einsum("BTD,DV->BTV", hidden, kernel, preferred_element_type=jnp.float32)
    highest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    log_normalizer = highest + jnp.log(jnp.exp(logits - highest).sum(axis=-1, keepdims=True))
    hits = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == labels[..., None]
    label_logits = jnp.where(hits, logits, 0).sum(axis=-1, keepdims=True)
    return (log_normalizer - label_logits)[..., 0], logits, log_normalizer, hits


def _gradients_of_tile(
    hidden: jax.Array, kernel: jax.Array, labels: jax.Array, weights: jax.Array, batch_shards: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """→ losses [B, t], d_hidden [B, t, D] in hidden's dtype, d_kernel float32[batch_shards, D, V]."""
    losses, logits, log_normalizer, hits = _losses_of_tile(hidden, kernel, labels)
    d_logits = ((jnp.exp(logits - log_normalizer) - hits) * weights[..., None]).astype(hidden.dtype)
    d_hidden = jnp.einsum("BTV,DV->BTD", d_logits, kernel, preferred_element_type=jnp.float32)

    def by_shard(array: jax.Array) -> jax.Array:
        return array.reshape(batch_shards, -1, *array.shape[1:])

    d_kernel = jnp.einsum("CBTD,CBTV->CDV", by_shard(hidden), by_shard(d_logits), preferred_element_type=jnp.float32)
    return losses, d_hidden.astype(hidden.dtype), d_kernel


def _split(array: jax.Array, num_tiles: int) -> jax.Array:
    """[B, T, …] → [num_tiles, B, t, …], zero-padded; tile j takes the positions j, j + num_tiles, …

    Interleaved tiles have equal shares of every device's positions when T is sharded.
    """
    batch_size, length, *rest = array.shape
    num_tiles = min(num_tiles, length)
    padding = -length % num_tiles
    if padding:
        array = jnp.pad(array, ((0, 0), (0, padding), *((0, 0) for _ in rest)))
    return jnp.moveaxis(array.reshape(batch_size, -1, num_tiles, *rest), 2, 0)


def _join(tiles: jax.Array, length: int) -> jax.Array:
    """Undoes `_split`."""
    tiles = jnp.moveaxis(tiles, 0, 2)
    return tiles.reshape(tiles.shape[0], -1, *tiles.shape[3:])[:, :length]

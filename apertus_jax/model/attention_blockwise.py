"""Blockwise causal attention: no T x T matrix forward or backward, nothing computed above the diagonal.

The forward pass keeps only the output and each row's log-sum-exp; the backward pass recomputes the weights from them
(the scheme of FlashAttention-2, arXiv 2307.08691 §3.1, in plain XLA). Pairs of blocks that lie in different documents
are not visited either. Small blocks stay in a CPU's cache, which makes this the fast path there.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array

BLOCK = 128
# Masked scores: far below any real one, yet finite, so that a fully masked block gives no inf - inf.
MASKED = -1e30

_barrier = jax.lax.optimization_barrier
_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class Segments(NamedTuple):
    """Documents as the loops read them: the segment of each row [n,B,X] and key [B,S], and the first key block that
    query block i must visit [n]."""

    rows: Array
    keys: Array
    first_key_block: Array


# What the backward pass reads: rows, keys, values, segments, context, log-sum-exp.
_Residuals = tuple[Array, Array, Array, Segments | None, Array, Array]


def blockwise_attention(
    query: Array, key: Array, value: Array, segment_ids: Array | None = None, block: int = BLOCK
) -> Array:
    """Causal attention in blocks; [B,T,N,H], two of [B,T,K,H], int32 [B,T] → [B,T,N,H] in query's dtype."""
    batch, length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[2]
    block = min(block, length)
    # Padding keys stand above every real query's diagonal, so the causal rule alone keeps them out.
    pad = functools.partial(_pad_length, padding=-length % block)
    scaled = pad((query * head_dim**-0.5).astype(query.dtype))
    num_blocks = scaled.shape[1] // block
    rows = scaled.reshape(batch, num_blocks, block, num_kv_heads, -1, head_dim).transpose(1, 0, 3, 4, 2, 5)
    rows = rows.reshape(num_blocks, batch, num_kv_heads, -1, head_dim)  # [n,B,K,X,H]
    keys, values = (pad(heads).transpose(0, 2, 1, 3) for heads in (key, value))  # [B,K,S,H]
    segments = None if segment_ids is None else _segments(pad(segment_ids), num_blocks, num_heads // num_kv_heads)
    context = _attention(rows, keys, values, segments, block)
    context = context.reshape(num_blocks, batch, num_kv_heads, -1, block, head_dim).transpose(1, 0, 4, 2, 3, 5)
    return context.reshape(batch, -1, num_heads, head_dim)[:, :length]


def _pad_length(array: Array, padding: int) -> Array:
    return jnp.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2)) if padding else array


def _segments(segment_ids: Array, num_blocks: int, groups: int) -> Segments:
    blocks = segment_ids.reshape(segment_ids.shape[0], num_blocks, -1).swapaxes(0, 1)  # [n,B,block]
    lowest, highest = blocks.min(axis=-1), blocks.max(axis=-1)
    # Ranges of segment ids that do not overlap cannot share a document; every block overlaps with itself.
    overlaps = (lowest[:, None] <= highest[None]) & (lowest[None] <= highest[:, None])  # [n,n,B]
    first_key_block = jnp.argmax(overlaps.any(axis=-1), axis=1)
    # The barrier has the repetition done once here, not as index arithmetic inside every comparison of scores.
    return Segments(_barrier(jnp.tile(blocks, (1, 1, groups))), segment_ids, first_key_block)


# Below, rows are query blocks: [n,B,K,X,H], where X runs over the G query heads of a kv head and, fastest, over the
# positions of one block. One letter for both keeps every product a plain batched matrix product.


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(rows: Array, key: Array, value: Array, segments: Segments | None, block: int) -> Array:
    return _forward(rows, key, value, segments, block)[0]


def _forward(rows: Array, key: Array, value: Array, segments: Segments | None, block: int) -> tuple[Array, Array]:
    """→ context like rows, and each row's log-sum-exp float32 [n,B,K,X]."""

    def query_block(_: None, indexed_row: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        i, row = indexed_row

        def key_block(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            context, highest, total = carry
            mask = _mask(i, j, row.shape[2], segments, block)
            scores = jnp.where(mask, _product("BKXH,BKSH->BKXS", row, _take(key, j, block)), MASKED)
            new_highest = jnp.maximum(highest, jnp.max(scores, axis=-1, keepdims=True))
            # A block can be masked whole for a row; then exp(MASKED - MASKED) would be 1.
            weights = jnp.where(mask, jnp.exp(scores - new_highest), 0.0)
            correction = jnp.exp(highest - new_highest)
            update = _product("BKXS,BKSH->BKXH", weights.astype(value.dtype), _take(value, j, block))
            total = total * correction + jnp.sum(weights, axis=-1, keepdims=True)
            return context * correction + update, new_highest, total

        column = (*row.shape[:-1], 1)
        start = (
            jnp.zeros(row.shape, jnp.float32),
            jnp.full(column, MASKED, jnp.float32),
            jnp.zeros(column, jnp.float32),
        )
        context, highest, total = jax.lax.fori_loop(_first(segments, i), i + 1, key_block, start)
        return None, ((context / total).astype(rows.dtype), (highest + jnp.log(total))[..., 0])

    return jax.lax.scan(query_block, None, (jnp.arange(rows.shape[0]), rows))[1]


def _forward_rule(
    rows: Array, key: Array, value: Array, segments: Segments | None, block: int
) -> tuple[Array, _Residuals]:
    context, log_sum = _forward(rows, key, value, segments, block)
    # Named, so that a remat policy may keep them and spare the backward pass a second forward pass.
    context = checkpoint_name(context, "attention_context")
    log_sum = checkpoint_name(log_sum, "attention_log_sum")
    return context, (rows, key, value, segments, context, log_sum)


def _backward_rule(block: int, residuals: _Residuals, gradient: Array) -> tuple[Array, Array, Array, None]:
    rows, key, value, segments, context, log_sum = residuals
    delta = jnp.sum(gradient.astype(jnp.float32) * context.astype(jnp.float32), axis=-1)  # [n,B,K,X]

    def query_block(
        carry: tuple[Array, Array], indexed_row: tuple[Array, Array, Array, Array, Array]
    ) -> tuple[tuple[Array, Array], Array]:
        i, row = indexed_row[0], indexed_row[1:]

        def key_block(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            row_gradient, key_gradient, value_gradient = carry
            mask = _mask(i, j, rows.shape[3], segments, block)
            for_row, for_key, for_value = _pair_gradients(*row, _take(key, j, block), _take(value, j, block), mask)
            return (
                row_gradient + for_row,
                _add_block(key_gradient, for_key, j, block),
                _add_block(value_gradient, for_value, j, block),
            )

        start = (jnp.zeros(rows.shape[1:], jnp.float32), *carry)
        row_gradient, *of_keys = jax.lax.fori_loop(_first(segments, i), i + 1, key_block, start)
        return (of_keys[0], of_keys[1]), row_gradient.astype(rows.dtype)

    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    blocks = (jnp.arange(rows.shape[0]), rows, gradient, log_sum, delta)
    (key_gradient, value_gradient), row_gradients = jax.lax.scan(query_block, zeros, blocks)
    return row_gradients, key_gradient.astype(key.dtype), value_gradient.astype(value.dtype), None


_attention.defvjp(_forward_rule, _backward_rule)


def _pair_gradients(
    row: Array, gradient: Array, log_sum: Array, delta: Array, key: Array, value: Array, mask: Array
) -> tuple[Array, Array, Array]:
    """Gradients of one query block against one key block → float32 like row, key, value."""
    # Scores stand key-major here: then no product below needs a transposed copy of a T x S matrix, which XLA:CPU
    # would make at several times the cost of the product itself. The barriers keep it from undoing this.
    scores = jnp.where(mask.swapaxes(2, 3), _product("BKSH,BKXH->BKSX", key, row), MASKED)
    weights = jnp.exp(scores - log_sum[:, :, None])
    value_gradient = _product("BKSX,BKXH->BKSH", weights.astype(value.dtype), gradient)
    weight_gradient = _product("BKSH,BKXH->BKSX", value, gradient)
    score_gradient = (weights * (weight_gradient - delta[:, :, None])).astype(key.dtype)
    key_gradient = _product("BKSX,BKXH->BKSH", score_gradient, row)
    row_gradient = _barrier(_product("BKHS,BKSX->BKHX", _barrier(key.swapaxes(2, 3)), score_gradient))
    return row_gradient.swapaxes(2, 3), key_gradient, value_gradient


def _mask(i: Array, j: Array, num_rows: int, segments: Segments | None, block: int) -> Array:
    """Causal and same-document, for query block i and key block j → bool [1 or B,1,X,S]."""
    row_slots = i * block + np.arange(num_rows) % block
    allowed = (row_slots[:, None] >= j * block + np.arange(block)[None, :])[None]
    if segments is not None:
        columns = jax.lax.dynamic_slice_in_dim(segments.keys, j * block, block, 1)
        allowed &= segments.rows[i][:, :, None] == columns[:, None, :]
    return allowed[:, None]


def _first(segments: Segments | None, i: Array) -> Array | int:
    return 0 if segments is None else segments.first_key_block[i]


def _take(array: Array, index: Array, block: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(array, index * block, block, 2)


def _add_block(total: Array, update: Array, index: Array, block: int) -> Array:
    summed = _take(total, index, block) + update
    return jax.lax.dynamic_update_slice_in_dim(total, summed, index * block, 2)

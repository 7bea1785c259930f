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


# Segment ids of queries and of keys, int32 [B,T] and [B,S].
Segmented = tuple[Array, Array]


class Segments(NamedTuple):
    """Documents as the loops read them: the segment of each row [n,B,X] and key [B,S], and the first key block that
    query block i must visit [n]."""

    rows: Array
    keys: Array
    first_key_block: Array


# What the backward pass reads: rows, keys, values, segments, diagonal, context, log-sum-exp.
_Residuals = tuple[Array, Array, Array, Segments | None, Array | None, Array, Array]


def blockwise_attention(
    query: Array, key: Array, value: Array, segment_ids: Array | None = None, block: int = BLOCK
) -> Array:
    """Causal attention in blocks; [B,T,N,H], two of [B,T,K,H], int32 [B,T] → [B,T,N,H] in query's dtype."""
    segments = None if segment_ids is None else (segment_ids, segment_ids)
    return _blockwise(query, key, value, segments, None, min(block, query.shape[1]))


def blockwise_chunks(query: Array, key: Array, value: Array, segment_ids: Segmented | None, chunks: Array) -> Array:
    """Causal attention of a part of the queries, cut into chunks, to all keys: the share of one device.

    Args:
      query: [B,T,N,H], chunks of equal length one after another.
      key: [B,S,K,H], all keys in their order.
      value: as key.
      segment_ids: of the queries, int32 [B,T], and of the keys, int32 [B,S]; None for a single document.
      chunks: int32 [n], the place of each chunk among the chunks of all queries.

    Returns:
      [B,T,N,H] in query's dtype.
    """
    chunk = query.shape[1] // chunks.shape[0]
    block = min(BLOCK, chunk & -chunk)
    inside = jnp.arange(chunk // block, dtype=chunks.dtype)
    diagonal = (chunks[:, None] * (chunk // block) + inside).reshape(-1)
    return _blockwise(query, key, value, segment_ids, diagonal, block)


def _blockwise(
    query: Array, key: Array, value: Array, segment_ids: Segmented | None, diagonal: Array | None, block: int
) -> Array:
    """`diagonal` int32 [n]: the key block that each query block stands at; None for the i-th at the i-th."""
    batch, length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[2]
    # Padding keys stand above every real query's diagonal, so the causal rule alone keeps them out.
    pad = functools.partial(_pad_length, padding=-length % block)
    scaled = pad((query * head_dim**-0.5).astype(query.dtype))
    num_blocks = scaled.shape[1] // block
    rows = scaled.reshape(batch, num_blocks, block, num_kv_heads, -1, head_dim).transpose(1, 0, 3, 4, 2, 5)
    rows = rows.reshape(num_blocks, batch, num_kv_heads, -1, head_dim)  # [n,B,K,X,H]
    keys, values = (pad(heads).transpose(0, 2, 1, 3) for heads in (key, value))  # [B,K,S,H]
    segments = None
    if segment_ids is not None:
        segments = _segments(pad(segment_ids[0]), pad(segment_ids[1]), num_blocks, num_heads // num_kv_heads)
    context = _attention(rows, keys, values, segments, diagonal, block)
    context = context.reshape(num_blocks, batch, num_kv_heads, -1, block, head_dim).transpose(1, 0, 4, 2, 3, 5)
    return context.reshape(batch, -1, num_heads, head_dim)[:, :length]


def _pad_length(array: Array, padding: int) -> Array:
    return jnp.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2)) if padding else array


def _segments(of_rows: Array, of_keys: Array, num_blocks: int, groups: int) -> Segments:
    def in_blocks(segment_ids: Array) -> Array:
        return segment_ids.reshape(segment_ids.shape[0], -1, of_rows.shape[1] // num_blocks).swapaxes(0, 1)

    rows = in_blocks(of_rows)  # [n,B,block]
    keys = rows if of_keys is of_rows else in_blocks(of_keys)
    # Ranges of segment ids that do not overlap cannot share a document; every block overlaps with itself.
    lowest, highest = rows.min(axis=-1), rows.max(axis=-1)
    key_lowest, key_highest = (lowest, highest) if keys is rows else (keys.min(axis=-1), keys.max(axis=-1))
    overlaps = (lowest[:, None] <= key_highest[None]) & (key_lowest[None] <= highest[:, None])  # [n,m,B]
    first_key_block = jnp.argmax(overlaps.any(axis=-1), axis=1)
    # The barrier has the repetition done once here, not as index arithmetic inside every comparison of scores.
    return Segments(_barrier(jnp.tile(rows, (1, 1, groups))), of_keys, first_key_block)


# Below, rows are query blocks: [n,B,K,X,H], where X runs over the G query heads of a kv head and, fastest, over the
# positions of one block. One letter for both keeps every product a plain batched matrix product.


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attention(
    rows: Array, key: Array, value: Array, segments: Segments | None, diagonal: Array | None, block: int
) -> Array:
    return _forward(rows, key, value, segments, diagonal, block)[0]


def _forward(
    rows: Array, key: Array, value: Array, segments: Segments | None, diagonal: Array | None, block: int
) -> tuple[Array, Array]:
    """→ context like rows, and each row's log-sum-exp float32 [n,B,K,X]."""

    def query_block(_: None, indexed_row: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        i, row = indexed_row
        last = _diagonal(diagonal, i)

        def key_block(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            context, highest, total = carry
            mask = _mask(i, last, j, row.shape[2], segments, block)
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
        context, highest, total = jax.lax.fori_loop(_first(segments, i), last + 1, key_block, start)
        return None, ((context / total).astype(rows.dtype), (highest + jnp.log(total))[..., 0])

    return jax.lax.scan(query_block, None, (jnp.arange(rows.shape[0]), rows))[1]


def _forward_rule(
    rows: Array, key: Array, value: Array, segments: Segments | None, diagonal: Array | None, block: int
) -> tuple[Array, _Residuals]:
    context, log_sum = _forward(rows, key, value, segments, diagonal, block)
    # Named, so that a remat policy may keep them and spare the backward pass a second forward pass.
    context = checkpoint_name(context, "attention_context")
    log_sum = checkpoint_name(log_sum, "attention_log_sum")
    return context, (rows, key, value, segments, diagonal, context, log_sum)


def _backward_rule(block: int, residuals: _Residuals, gradient: Array) -> tuple[Array, Array, Array, None, None]:
    rows, key, value, segments, diagonal, context, log_sum = residuals
    delta = jnp.sum(gradient.astype(jnp.float32) * context.astype(jnp.float32), axis=-1)  # [n,B,K,X]

    def query_block(
        carry: tuple[Array, Array], indexed_row: tuple[Array, Array, Array, Array, Array]
    ) -> tuple[tuple[Array, Array], Array]:
        i, row = indexed_row[0], indexed_row[1:]
        last = _diagonal(diagonal, i)

        def key_block(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            row_gradient, key_gradient, value_gradient = carry
            mask = _mask(i, last, j, rows.shape[3], segments, block)
            for_row, for_key, for_value = _pair_gradients(*row, _take(key, j, block), _take(value, j, block), mask)
            return (
                row_gradient + for_row,
                _add_block(key_gradient, for_key, j, block),
                _add_block(value_gradient, for_value, j, block),
            )

        start = (jnp.zeros(rows.shape[1:], jnp.float32), *carry)
        row_gradient, *of_keys = jax.lax.fori_loop(_first(segments, i), last + 1, key_block, start)
        return (of_keys[0], of_keys[1]), row_gradient.astype(rows.dtype)

    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    blocks = (jnp.arange(rows.shape[0]), rows, gradient, log_sum, delta)
    (key_gradient, value_gradient), row_gradients = jax.lax.scan(query_block, zeros, blocks)
    return row_gradients, key_gradient.astype(key.dtype), value_gradient.astype(value.dtype), None, None


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


def _diagonal(diagonal: Array | None, i: Array) -> Array:
    return i if diagonal is None else diagonal[i]


def _mask(i: Array, last: Array, j: Array, num_rows: int, segments: Segments | None, block: int) -> Array:
    """Causal and same-document, for query block i, which stands at key block `last`, and key block j.

    Returns:
      bool [1 or B,1,X,S].
    """
    row_slots = last * block + np.arange(num_rows) % block
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

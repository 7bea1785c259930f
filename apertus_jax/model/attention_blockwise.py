"""Causal attention in blocks: no T x T matrix forward or backward, nothing computed above the diagonal.

The forward pass keeps only the output and each row's log-sum-exp; the backward pass recomputes the weights from them
(the scheme of FlashAttention-2, arXiv 2307.08691 §3.1, in plain XLA). Short windows are unrolled over query blocks,
each against its whole prefix in one matrix product, which XLA:CPU runs at full speed. Long windows loop over block
pairs, so that neither memory nor program size grows with T².
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array

BLOCK = 128
# Beyond this many query blocks the program itself would grow too large, and block pairs are looped over.
MAX_UNROLLED_BLOCKS = 16
# Masked scores: far below any real one, yet finite, so that a fully masked block gives no inf - inf.
MASKED = -1e30


def blockwise_attention(
    query: Array,
    key: Array,
    value: Array,
    segment_ids: Array | None = None,
    block: int = BLOCK,
    max_unrolled_blocks: int = MAX_UNROLLED_BLOCKS,
) -> Array:
    """Causal attention in blocks; [B,T,N,H], two of [B,T,K,H], int32 [B,T] → [B,T,N,H] in query's dtype."""
    batch, length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[2]
    block = min(block, length)
    # Padding keys stand above every real query's diagonal, so the causal rule alone keeps them out.
    padding = -length % block
    pad = functools.partial(_pad_length, padding=padding)
    grouped = pad(query * head_dim**-0.5).reshape(batch, -1, num_kv_heads, num_heads // num_kv_heads, head_dim)
    heads_first = grouped.astype(query.dtype).transpose(0, 2, 3, 1, 4)  # [B,K,G,T,H]
    keys, values = (pad(heads).transpose(0, 2, 1, 3) for heads in (key, value))  # [B,K,S,H]
    segments = None if segment_ids is None else pad(segment_ids)
    unrolled = (length + padding) // block <= max_unrolled_blocks
    context = _attention(heads_first, keys, values, segments, block, unrolled)
    return context.transpose(0, 3, 1, 2, 4).reshape(batch, -1, num_heads, head_dim)[:, :length]


def _pad_length(array: Array, padding: int) -> Array:
    return jnp.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2)) if padding else array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(query: Array, key: Array, value: Array, segments: Array | None, block: int, unrolled: bool) -> Array:
    return _forward(query, key, value, segments, block, unrolled)[0]


def _forward(query, key, value, segments, block, unrolled):
    return (_forward_unrolled if unrolled else _forward_looped)(query, key, value, segments, block)


def _forward_rule(query, key, value, segments, block, unrolled):
    context, log_sum = _forward(query, key, value, segments, block, unrolled)
    # Named, so that a remat policy may keep them and spare the backward pass a second forward pass.
    context = checkpoint_name(context, "attention_context")
    log_sum = checkpoint_name(log_sum, "attention_log_sum")
    return context, (query, key, value, segments, context, log_sum)


def _backward_rule(block, unrolled, residuals, gradient):
    query, key, value, segments, context, log_sum = residuals
    delta = jnp.sum(gradient.astype(jnp.float32) * context.astype(jnp.float32), axis=-1)  # [B,K,G,T]
    backward = _backward_unrolled if unrolled else _backward_looped
    gradients = backward(query, key, value, segments, gradient, log_sum, delta, block)
    like = (query, key, value)
    return *(grad.astype(primal.dtype) for grad, primal in zip(gradients, like, strict=True)), None


_attention.defvjp(_forward_rule, _backward_rule)


# ---- one query block against a run of keys -------------------------------------------------------------------------


def _scores(query: Array, key: Array, mask: Array) -> Array:
    """[B,K,G,T,H], [B,K,S,H], bool broadcastable to [B,K,G,T,S] → float32 [B,K,G,T,S]."""
    scores = jnp.einsum("BKGTH,BKSH->BKGTS", query, key, preferred_element_type=jnp.float32)
    return jnp.where(mask, scores, MASKED)


def _mask(query_start, key_start, num_queries: int, num_keys: int, query_segments, key_segments) -> Array:
    """Causal and same-document; starts may be traced → bool [1 or B,1,1,T,S]."""
    rows = query_start + jnp.arange(num_queries)
    columns = key_start + jnp.arange(num_keys)
    mask = (rows[:, None] >= columns[None, :])[None, None, None]
    if query_segments is not None:
        mask &= (query_segments[:, :, None] == key_segments[:, None, :])[:, None, None]
    return mask


def _block_gradients(query, key, value, mask, gradient, log_sum, delta):
    """Gradients of one block of queries and one run of keys → float32 like query, key, value."""
    # Scores stand key-major here: then no product below needs a transposed copy of a T x S matrix, which XLA:CPU
    # would make at several times the cost of the product itself.
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    scores = product("BKSH,BKGTH->BKSGT", key, query)
    weights = jnp.exp(jnp.where(mask.transpose(0, 1, 4, 2, 3), scores, MASKED) - log_sum[:, :, None])
    value_gradient = product("BKSGT,BKGTH->BKSH", weights.astype(value.dtype), gradient)
    weight_gradient = product("BKSH,BKGTH->BKSGT", value, gradient)
    score_gradient = (weights * (weight_gradient - delta[:, :, None])).astype(key.dtype)
    key_gradient = product("BKSGT,BKGTH->BKSH", score_gradient, query)
    query_gradient = product("BKSH,BKSGT->BKHGT", key, score_gradient).transpose(0, 1, 3, 4, 2)
    return query_gradient, key_gradient, value_gradient


# ---- unrolled over query blocks ------------------------------------------------------------------------------------


def _prefix_mask(start: int, end: int, segments: Array | None) -> Array:
    rows, columns = (None, None) if segments is None else (segments[:, start:end], segments[:, :end])
    return _mask(start, 0, end - start, end, rows, columns)


def _forward_unrolled(query, key, value, segments, block):
    contexts, log_sums = [], []
    for start in range(0, query.shape[3], block):
        end = start + block
        scores = _scores(query[:, :, :, start:end], key[:, :, :end], _prefix_mask(start, end, segments))
        highest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        context = jnp.einsum(
            "BKGTS,BKSH->BKGTH", weights.astype(value.dtype), value[:, :, :end], preferred_element_type=jnp.float32
        )
        contexts.append((context / total).astype(query.dtype))
        log_sums.append((highest + jnp.log(total))[..., 0])
    return jnp.concatenate(contexts, axis=3), jnp.concatenate(log_sums, axis=3)


def _backward_unrolled(query, key, value, segments, gradient, log_sum, delta, block):
    query_gradients = []
    key_gradient = jnp.zeros(key.shape, jnp.float32)
    value_gradient = jnp.zeros(value.shape, jnp.float32)
    for start in range(0, query.shape[3], block):
        end = start + block
        rows = slice(start, end)
        for_query, for_key, for_value = _block_gradients(
            query[:, :, :, rows],
            key[:, :, :end],
            value[:, :, :end],
            _prefix_mask(start, end, segments),
            gradient[:, :, :, rows],
            log_sum[..., rows],
            delta[..., rows],
        )
        query_gradients.append(for_query)
        key_gradient = key_gradient.at[:, :, :end].add(for_key)
        value_gradient = value_gradient.at[:, :, :end].add(for_value)
    return jnp.concatenate(query_gradients, axis=3), key_gradient, value_gradient


# ---- looped over block pairs ---------------------------------------------------------------------------------------


def _take(array: Array, index: Array, block: int, axis: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(array, index * block, block, axis)


def _pair_mask(i: Array, j: Array, segments: Array | None, block: int) -> Array:
    rows, columns = (None, None) if segments is None else (_take(segments, i, block, 1), _take(segments, j, block, 1))
    return _mask(i * block, j * block, block, block, rows, columns)


def _forward_looped(query, key, value, segments, block):
    def query_block(_, i):
        rows = _take(query, i, block, 3)

        def key_block(j, carry):
            context, highest, total = carry
            mask = _pair_mask(i, j, segments, block)
            scores = _scores(rows, _take(key, j, block, 2), mask)
            new_highest = jnp.maximum(highest, jnp.max(scores, axis=-1, keepdims=True))
            weights = jnp.where(mask, jnp.exp(scores - new_highest), 0.0)
            correction = jnp.exp(highest - new_highest)
            columns = _take(value, j, block, 2)
            update = jnp.einsum(
                "BKGTS,BKSH->BKGTH", weights.astype(value.dtype), columns, preferred_element_type=jnp.float32
            )
            return (
                context * correction + update,
                new_highest,
                total * correction + jnp.sum(weights, axis=-1, keepdims=True),
            )

        start = (
            jnp.zeros(rows.shape, jnp.float32),
            jnp.full((*rows.shape[:-1], 1), MASKED, jnp.float32),
            jnp.zeros((*rows.shape[:-1], 1), jnp.float32),
        )
        context, highest, total = jax.lax.fori_loop(0, i + 1, key_block, start)
        return None, ((context / total).astype(query.dtype), (highest + jnp.log(total))[..., 0])

    num_blocks = query.shape[3] // block
    _, (contexts, log_sums) = jax.lax.scan(query_block, None, jnp.arange(num_blocks))
    return _join(contexts), _join(log_sums)


def _join(blocks: Array) -> Array:
    """Blocks stacked in front back into the length axis: [n,B,K,G,T/n,...] → [B,K,G,T,...]."""
    moved = jnp.moveaxis(blocks, 0, 3)
    return moved.reshape(*moved.shape[:3], -1, *moved.shape[5:])


def _backward_looped(query, key, value, segments, gradient, log_sum, delta, block):
    def query_block(carry, i):
        rows, upstream = (_take(array, i, block, 3) for array in (query, gradient))
        row_log_sum, row_delta = (_take(array, i, block, 3) for array in (log_sum, delta))

        def key_block(j, carry):
            query_gradient, key_gradient, value_gradient = carry
            columns, values = (_take(array, j, block, 2) for array in (key, value))
            mask = _pair_mask(i, j, segments, block)
            for_query, for_key, for_value = _block_gradients(
                rows, columns, values, mask, upstream, row_log_sum, row_delta
            )
            return (
                query_gradient + for_query,
                _add_block(key_gradient, for_key, j, block),
                _add_block(value_gradient, for_value, j, block),
            )

        start = (jnp.zeros(rows.shape, jnp.float32), *carry)
        query_gradient, *carry = jax.lax.fori_loop(0, i + 1, key_block, start)
        return tuple(carry), query_gradient

    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    num_blocks = query.shape[3] // block
    (key_gradient, value_gradient), query_gradients = jax.lax.scan(query_block, zeros, jnp.arange(num_blocks))
    return _join(query_gradients), key_gradient, value_gradient


def _add_block(total: Array, update: Array, index: Array, block: int) -> Array:
    summed = _take(total, index, block, 2) + update
    return jax.lax.dynamic_update_slice_in_dim(total, summed, index * block, 2)

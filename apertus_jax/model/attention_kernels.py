"""Fused attention kernels for accelerators (jax.experimental.pallas), held to `attend`'s contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.model.context_parallelism import CHUNKS, Segmented, split_over, zigzag

Array = jax.Array


def pallas_gpu_mha(query: Array, key: Array, value: Array, segment_ids: Array | None, interpret: bool) -> Array:
    """The Triton flash attention of jax.experimental.pallas.ops.gpu; shapes as in `attend`, which checks them."""
    from jax.experimental.pallas.ops.gpu import attention as gpu_attention

    length, head_dim = query.shape[1], query.shape[3]
    # Tiles of float32 or of wide heads at 128 x 128 do not fit an SM's shared memory.
    block = _largest_block(length, 128 if head_dim <= 64 and query.dtype == jnp.bfloat16 else 64)
    backward = min(block, 32)
    blocks = gpu_attention.BlockSizes(block, block, backward, backward, backward, backward)

    def kernel(query: Array, key: Array, value: Array, segments: Array | None) -> Array:
        groups = query.shape[2] // key.shape[2]
        key, value = (jnp.repeat(heads, groups, axis=2) for heads in (key, value))
        return gpu_attention.mha(
            query, key, value, segments, head_dim**-0.5, True, block_sizes=blocks, interpret=interpret
        )

    return _on_each_shard("pallas_gpu_mha", kernel, query, key, value, segment_ids)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Cut of a kernel's work: the largest square of queries and keys, and whether one backward kernel does all."""

    size: int = 512
    fused_backward: bool = False


def tpu_splash(
    query: Array, key: Array, value: Array, segment_ids: Array | None, interpret: bool, tiles: Tiles = Tiles()
) -> Array:
    """Splash attention of jax.experimental.pallas.ops.tpu; shapes as in `attend`, which checks them."""

    def kernel(query: Array, key: Array, value: Array, segments: Array | None) -> Array:
        attention = _splash_kernel(np.arange(query.shape[1]), query.shape[2], 1, interpret, tiles)
        return _call_splash(attention, query, key, value, None if segments is None else (segments, segments))

    return _on_each_shard("tpu_splash", kernel, query, key, value, segment_ids)


def tpu_splash_chunks(
    query: Array,
    key: Array,
    value: Array,
    segment_ids: Segmented | None,
    chunks: Array,
    interpret: bool,
    tiles: Tiles = Tiles(),
) -> Array:
    """Splash attention of one device's two chunks of queries to all keys; see `blockwise_chunks` for the shapes."""
    length = key.shape[1]
    parts = length // query.shape[1]
    positions = zigzag(parts)[:, None] * (length // (CHUNKS * parts)) + np.arange(length // (CHUNKS * parts))
    whole = _splash_kernel(positions.reshape(-1), query.shape[2], parts, interpret, tiles)
    return _call_splash(_splash_share(whole, chunks[0], parts), query, key, value, segment_ids)


def _splash_kernel(positions: np.ndarray, num_heads: int, parts: int, interpret: bool, tiles: Tiles) -> Any:
    """The kernel for queries at these positions, in `parts` equal shards, and keys 0, 1, 2, …"""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length = positions.shape[0]
    of_queries, of_keys = _largest_block(length // parts, tiles.size), _largest_block(length, tiles.size)
    apart = None if tiles.fused_backward else of_queries, None if tiles.fused_backward else of_keys
    sizes = splash.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=of_keys,
        block_q_dq=apart[0],
        block_kv_dq=apart[1],
        use_fused_bwd_kernel=tiles.fused_backward,
    )
    causal = splash.CausalMask((length, length))
    causal.q_sequence = positions.astype(np.int32)
    return splash.make_splash_mha(
        splash.MultiHeadMask([causal] * num_heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=parts,
        # Output and log-sum-exp, by the name that `remat_policy` may keep them under.
        residual_checkpoint_name="attention_context",
        interpret=interpret,
    )


def _splash_share(kernel: Any, part: Array, parts: int) -> Any:
    """The kernel of one shard of the queries, whose number is known on the device alone."""

    def of_part(array: Array | None, axis: int) -> Array | None:
        if array is None:
            return None
        size = array.shape[axis] // parts
        return jax.lax.dynamic_slice_in_dim(array, part * size, size, axis)

    def of_mask(mask: Any) -> Any:
        by_block = {name: of_part(getattr(mask, name), 1) for name in ("data_next", "mask_next", "block_mask")}
        return mask._replace(q_sequence=of_part(mask.q_sequence, 0), **by_block)

    leaves, rest = kernel.tree_flatten()
    return kernel.tree_unflatten(rest, [None if mask is None else of_mask(mask) for mask in leaves])


def _call_splash(kernel: Any, query: Array, key: Array, value: Array, segment_ids: Segmented | None) -> Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    scaled = (query * query.shape[3] ** -0.5).astype(query.dtype)
    heads_first = (jnp.swapaxes(heads, 1, 2) for heads in (scaled, key, value))
    ids = None if segment_ids is None else splash.SegmentIds(*segment_ids)
    return jnp.swapaxes(jax.vmap(kernel)(*heads_first, ids), 1, 2)


def _largest_block(length: int, limit: int) -> int:
    """The largest power of two up to `limit` that divides the length."""
    return min(limit, length & -length)


def _on_each_shard(
    name: str, kernel: Callable[..., Array], query: Array, key: Array, value: Array, segment_ids: Array | None
) -> Array:
    """Run the kernel per device shard of batch and heads: the partitioner cannot look inside a pallas call."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel(query, key, value, segment_ids)
    queries = split_over("activation_batch", "activation_length", "activation_heads", None)
    keys = split_over("activation_batch", "activation_length", "activation_kv_heads", None)
    if queries[1] is not None:
        raise UserError(f"{name} needs whole sequences but activation_length is split over {queries[1]!r}")
    if queries[2] != keys[2]:
        raise UserError(
            f"{name} needs query heads with their key heads, but activation_heads is split over {queries[2]!r} and "
            f"activation_kv_heads over {keys[2]!r}; give both the same axes in MeshConfig.rule_overrides"
        )
    segments = None if segment_ids is None else split_over("activation_batch", "activation_length")
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(queries, keys, keys, segments), out_specs=queries, check_vma=False
    )(query, key, value, segment_ids)

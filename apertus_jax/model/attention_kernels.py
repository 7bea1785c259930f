"""Fused attention kernels for accelerators (jax.experimental.pallas), held to `attend`'s contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from apertus_jax.errors import UserError

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


def tpu_splash(query: Array, key: Array, value: Array, segment_ids: Array | None, interpret: bool) -> Array:
    """Splash attention of jax.experimental.pallas.ops.tpu; shapes as in `attend`, which checks them."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length = query.shape[1]
    block = _largest_block(length, 512)

    def kernel(query: Array, key: Array, value: Array, segments: Array | None) -> Array:
        blocks: dict[str, Any] = dict.fromkeys(_SPLASH_BLOCKS, block)
        sizes = splash.BlockSizes(**blocks)
        causal = splash.CausalMask((length, length))
        attention = splash.make_splash_mha_single_device(
            splash.MultiHeadMask([causal] * query.shape[2]), block_sizes=sizes, interpret=interpret
        )
        scaled = (query * query.shape[3] ** -0.5).astype(query.dtype)
        heads_first = (jnp.swapaxes(heads, 1, 2) for heads in (scaled, key, value))
        ids = None if segments is None else splash.SegmentIds(segments, segments)
        return jnp.swapaxes(jax.vmap(attention)(*heads_first, ids), 1, 2)

    return _on_each_shard("tpu_splash", kernel, query, key, value, segment_ids)


_SPLASH_BLOCKS = (
    "block_q",
    "block_kv",
    "block_kv_compute",
    "block_q_dkv",
    "block_kv_dkv",
    "block_kv_dkv_compute",
    "block_q_dq",
    "block_kv_dq",
)


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
    queries = _split_over(mesh, "activation_batch", "activation_length", "activation_heads", None)
    keys = _split_over(mesh, "activation_batch", "activation_length", "activation_kv_heads", None)
    if queries[1] is not None:
        raise UserError(f"{name} needs whole sequences but activation_length is split over {queries[1]!r}")
    if queries[2] != keys[2]:
        raise UserError(
            f"{name} needs query heads with their key heads, but activation_heads is split over {queries[2]!r} and "
            f"activation_kv_heads over {keys[2]!r}; give both the same axes in MeshConfig.rule_overrides"
        )
    segments = None if segment_ids is None else _split_over(mesh, "activation_batch", "activation_length")
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(queries, keys, keys, segments), out_specs=queries, check_vma=False
    )(query, key, value, segment_ids)


def _split_over(mesh: AbstractMesh, *axes: str | None) -> PartitionSpec:
    """The partition of an array whose axes are called so; a mesh axis of one device splits nothing."""
    spec = nn.logical_to_mesh_axes(axes)
    assert spec is not None  # which it is for no axes at all
    named = ((entry,) if isinstance(entry, str) else entry or () for entry in spec)
    splitting = [tuple(axis for axis in names if mesh.shape.get(axis, 1) > 1) for names in named]
    return PartitionSpec(*(names or None for names in splitting))

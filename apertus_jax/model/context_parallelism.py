"""Context parallelism: each device attends from its share of the queries to all keys, gathered once per layer.

A causal row reads all keys before it, so devices with neighbouring rows would have very different work. The sequence is
cut into two chunks for each of c devices, and device d takes chunks d and 2c - 1 - d: each pair of chunks has as many
keys before it as any other (the zigzag order of llama 3, arXiv 2407.21783 §3.3.2, which gathers keys and values too).

Tokens and positions are put into that order before the first layer and hidden states back into their own after the
last one; in between only attention knows where its rows stand.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from apertus_jax.errors import UserError

Array = jax.Array
Segmented = tuple[Array, Array]
# query [B,T,N,H], key and value [B,S,K,H], segment ids of both, int32 [2] chunks of the queries → [B,T,N,H]
ChunkAttention = Callable[[Array, Array, Array, Segmented | None, Array], Array]

CHUNKS = 2  # for each device


def context_axes() -> tuple[str, ...]:
    """Returns the mesh axes, larger than 1, along which the axis rules in effect split sequences."""
    sizes = jax.sharding.get_abstract_mesh().shape
    entries = [axes for name, axes in nn.get_logical_axis_rules() if name == "activation_length"][:1]
    axes = [axis for entry in entries for axis in ((entry,) if isinstance(entry, str) else entry or ())]
    return tuple(axis for axis in axes if sizes.get(axis, 1) > 1)


def context_size() -> int:
    """Returns into how many shards the mesh and the axis rules in effect split sequences."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[axis] for axis in context_axes())


def check_context_length(length: int, parts: int) -> None:
    """Raises UserError unless a sequence can be cut into two chunks for each of `parts` devices."""
    if parts > 1 and length % (CHUNKS * parts):
        raise UserError(
            f"a sequence length of {length} does not divide into {CHUNKS} × context={parts} chunks, which balanced "
            "causal attention needs; change one of them"
        )


def zigzag(parts: int) -> np.ndarray:
    """Returns the chunks in the order in which `parts` devices keep them, two each: int [2 × parts]."""
    first = np.arange(parts)
    return np.stack([first, CHUNKS * parts - 1 - first], axis=1).reshape(-1)


def into_zigzag(array: Array) -> Array:
    """Puts [B,T] or [1,T], which every device has whole along T, into the zigzag order split over the context axes."""
    axes, parts = context_axes(), context_size()
    batch = "activation_batch" if array.shape[0] > 1 else None
    whole, split = split_over(batch, None), split_over(batch, "activation_length")
    share = functools.partial(_own_chunks, axes=axes, parts=parts)
    mesh = jax.sharding.get_abstract_mesh()
    return jax.shard_map(share, mesh=mesh, in_specs=whole, out_specs=split, check_vma=False)(array)


def out_of_zigzag(hidden: Array) -> Array:
    """Puts hidden states [B,T,D] of the zigzag order, split over the context axes, back into their own order.

    Every device keeps one chunk of even and one of odd number, so two permutations of chunks do it, without a gather.
    """
    axes, parts = context_axes(), context_size()
    spec = split_over("activation_batch", "activation_length", "activation_embed")
    holders = {int(chunk): place // CHUNKS for place, chunk in enumerate(zigzag(parts))}
    moves = [[(holders[CHUNKS * part + odd], part) for part in range(parts)] for odd in range(CHUNKS)]

    def exchange(local: Array) -> Array:
        first, second = jnp.split(local, CHUNKS, axis=1)
        # Device d keeps chunk d before chunk 2c - 1 - d; one of the two numbers is even.
        is_odd = jax.lax.axis_index(axes) % CHUNKS == 1
        even, odd = jnp.where(is_odd, second, first), jnp.where(is_odd, first, second)
        moved = [jax.lax.ppermute(chunk, axes, move) for chunk, move in zip((even, odd), moves, strict=True)]
        return jnp.concatenate(moved, axis=1)

    mesh = jax.sharding.get_abstract_mesh()
    return jax.shard_map(exchange, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(hidden)


def attend_in_parts(
    attention: ChunkAttention, query: Array, key: Array, value: Array, segment_ids: Array | None
) -> Array:
    """Causal attention of sequences in zigzag order over the context axes.

    Args:
      attention: what each device computes for its two chunks of queries and all keys in their own order.
      query: [B,T,N,H].
      key: [B,T,K,H]; gathered over the context axes once, and its gradient scattered once.
      value: as key.
      segment_ids: int32 [B,T] in their own order, whole on every device along T, or None.

    Returns:
      [B,T,N,H].
    """
    axes, parts = context_axes(), context_size()
    back = np.argsort(zigzag(parts))
    queries = split_over("activation_batch", "activation_length", "activation_heads", None)
    keys = split_over("activation_batch", "activation_length", "activation_kv_heads", None)
    if queries[2] != keys[2]:
        raise UserError(
            f"context={parts} needs query heads with their key heads, but activation_heads is split over "
            f"{queries[2]!r} and activation_kv_heads over {keys[2]!r}; give both the same axes in "
            "MeshConfig.rule_overrides"
        )

    def share(query: Array, key: Array, value: Array, segment_ids: Array | None) -> Array:
        chunks = _own_numbers(axes, parts)
        gathered = jax.lax.all_gather(jnp.stack([key, value]), axes, axis=2, tiled=True)
        key, value = (_chunks_in_order(heads, back) for heads in gathered)
        segments = None if segment_ids is None else (_own_chunks(segment_ids, axes, parts), segment_ids)
        return attention(query, key, value, segments, chunks)

    return jax.shard_map(
        share,
        mesh=jax.sharding.get_abstract_mesh(),
        in_specs=(queries, keys, keys, None if segment_ids is None else split_over("activation_batch", None)),
        out_specs=queries,
        check_vma=False,
    )(query, key, value, segment_ids)


def _own_numbers(axes: tuple[str, ...], parts: int) -> Array:
    """Inside of a shard_map: the numbers of this device's chunks, int32 [2]."""
    index = jax.lax.axis_index(axes).astype(jnp.int32)
    return jnp.stack([index, CHUNKS * parts - 1 - index])


def _own_chunks(array: Array, axes: tuple[str, ...], parts: int) -> Array:
    """Inside of a shard_map: this device's chunks of a whole [B,T]."""
    chunk = array.shape[1] // (CHUNKS * parts)
    numbers = _own_numbers(axes, parts)
    return jnp.concatenate(
        [jax.lax.dynamic_slice_in_dim(array, number * chunk, chunk, axis=1) for number in numbers], axis=1
    )


def _chunks_in_order(array: Array, order: Sequence[int] | np.ndarray) -> Array:
    """Takes the chunks of [B,T,…] along T in another order; slices, so that the partitioner sees no gather."""
    chunks = jnp.split(array, len(order), axis=1)
    return jnp.concatenate([chunks[chunk] for chunk in order], axis=1)


def split_over(*axes: str | None) -> PartitionSpec:
    """Returns the partition of an array whose axes are called so; a mesh axis of one device splits nothing."""
    spec = nn.logical_to_mesh_axes(axes)
    assert spec is not None  # which it is for no axes at all
    sizes = jax.sharding.get_abstract_mesh().shape
    named = ((entry,) if isinstance(entry, str) else entry or () for entry in spec)
    splitting = [tuple(axis for axis in names if sizes.get(axis, 1) > 1) for names in named]
    return PartitionSpec(*(names or None for names in splitting))

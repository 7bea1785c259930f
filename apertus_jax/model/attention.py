"""One causal attention, several implementations by name (model spec §2.1 step 5, §4.3).

`xla` is the plain one and the oracle of the tests. `xla_blockwise` never holds a T x S matrix and is the fast path on
CPU. `pallas_gpu_mha` and `tpu_splash` are fused kernels. None replaces another silently: what cannot run raises.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError
from apertus_jax.model import attention_kernels
from apertus_jax.model.attention_blockwise import blockwise_attention
from apertus_jax.model.config import ATTENTION_IMPLEMENTATIONS

Array = jax.Array
logger = logging.getLogger("apertus_jax.model")


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    segment_ids: Array | None = None,
    query_slots: Array | None = None,
    implementation: str = "xla",
    interpret: bool = False,
) -> Array:
    """softmax(q·k / sqrt(H)) · v over the keys at or before each query's own slot, float32 inside.

    query [B,T,N,H], key and value [B,S,K,H] with N a multiple of K (query head i reads kv head i // (N//K))
    → [B,T,N,H] in query's dtype.
    segment_ids int32[B,T] keeps documents apart (needs T == S). query_slots int32[B,T] says which key slot each query
    stands at, for decoding against a cache; None means slot t for query t. `interpret` runs the kernels on CPU.
    Raises UserError if the implementation is unknown or cannot run here on these shapes.
    """
    if implementation not in ATTENTION_IMPLEMENTATIONS:
        raise UserError(f"attention_implementation={implementation!r} must be one of {ATTENTION_IMPLEMENTATIONS}")
    if query_slots is not None:
        if implementation != "xla":
            raise UserError(f"attention_implementation={implementation!r} cannot read a cache; decode with 'xla'")
        return plain_attention(query, key, value, segment_ids, query_slots)
    if query.shape[1] != key.shape[1]:
        raise UserError(f"attention without query_slots needs as many keys as queries, not {key.shape[1]}")
    _log_once(implementation, jax.default_backend())
    return _IMPLEMENTATIONS[implementation](query, key, value, segment_ids, interpret)


@functools.cache
def _log_once(implementation: str, backend: str) -> None:
    logger.info("attention implementation: %s on %s", implementation, backend)


def attention_mask(query_slots: Array, num_slots: int, segment_ids: Array | None = None) -> Array:
    """True where a query may read a key: int32 [B,T] → bool [B,T,S]. Model spec §4.3."""
    mask = query_slots[:, :, None] >= jnp.arange(num_slots)[None, None, :]
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return mask


def plain_attention(
    query: Array, key: Array, value: Array, segment_ids: Array | None = None, query_slots: Array | None = None
) -> Array:
    """The oracle: all scores at once, memory B·N·T·S. Shapes as in `attend`."""
    batch, length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[2]
    if query_slots is None:
        query_slots = jnp.arange(length)[None, :]
    mask = attention_mask(query_slots, key.shape[1], segment_ids)[:, None, None]
    grouped = query.reshape(batch, length, num_kv_heads, num_heads // num_kv_heads, head_dim)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, key, preferred_element_type=jnp.float32) * head_dim**-0.5
    weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1).astype(value.dtype)
    context = jnp.einsum("BKGTS,BSKH->BTKGH", weights, value, preferred_element_type=jnp.float32)
    return context.reshape(query.shape).astype(query.dtype)


def _plain(query, key, value, segment_ids, interpret):
    del interpret
    return plain_attention(query, key, value, segment_ids)


def _blockwise(query, key, value, segment_ids, interpret):
    del interpret
    return blockwise_attention(query, key, value, segment_ids)


_IMPLEMENTATIONS: dict[str, Callable[..., Array]] = {
    "xla": _plain,
    "xla_blockwise": _blockwise,
    "pallas_gpu_mha": attention_kernels.pallas_gpu_mha,
    "tpu_splash": attention_kernels.tpu_splash,
}

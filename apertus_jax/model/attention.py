"""Causal attention: one entry, several implementations by name, intra-document masking by segment ids.

`xla` is the plain one and the oracle of the tests. `xla_blockwise` never holds a T x S matrix and is the fast path on
CPU. `pallas_gpu_mha` and `tpu_splash` are fused kernels. None replaces another silently: what cannot run raises, and
where scoring on CPU takes `xla_blockwise` for `xla`, a line says so. A new one is an `Implementation`: a row of
`IMPLEMENTATIONS` (docs/extending_the_model.md shows one), or one of an outside module (docs/plugins.md).

Source: docs/reference/model_and_training.md §2.1 step 5, §4.3.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError
from apertus_jax.model import attention_kernels
from apertus_jax.model.attention_blockwise import blockwise_attention, blockwise_chunks
from apertus_jax.model.attention_kernels import Tiles
from apertus_jax.model.context_parallelism import (
    ChunkAttention,
    attend_in_parts,
    context_size,
)

Array = jax.Array
logger = logging.getLogger("apertus_jax.model")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute attention, and what it needs.

    Attributes:
      function: query, key, value, segment_ids → context, shapes as in `attend`.
      platforms: where it runs, by JAX's names; () for everywhere.
      length_multiple: the sequence length is a multiple of this.
      min_head_dim: the smallest head_dim.
      needs_kernel: it is a fused kernel: `function` takes `interpret` as well, to run on CPU for tests.
      takes_tiles: `function` takes `tiles` as well, see `Tiles`.
      in_parts: the same for a share of the queries, cut into chunks, so that context parallelism divides the work;
        None where the partitioner splits `function` by itself.
      planned_as: the implementation whose memory `plan` counts for this one, because it can be traced anywhere; ""
        for its own.
    """

    function: Callable[..., Array]
    platforms: tuple[str, ...] = ()
    length_multiple: int = 1
    min_head_dim: int = 1
    needs_kernel: bool = False
    takes_tiles: bool = False
    in_parts: ChunkAttention | Callable[..., Array] | None = None
    planned_as: str = ""

    def runs_on(self, platform: str) -> bool:
        """Returns whether it runs on a platform, by JAX's name of it."""
        return not self.platforms or platform in self.platforms


def check_attention(
    implementation: str, length: int, head_dim: int, platform: str | None = None, interpret: bool = False
) -> None:
    """Checks that an implementation can run on sequences of a length; platform=None means the one JAX runs on.

    Raises:
      UserError: it is unknown, belongs to another platform, or cannot take the length or the head_dim.
    """
    if implementation not in IMPLEMENTATIONS:
        raise UserError(f"attention_implementation={implementation!r} must be one of {tuple(IMPLEMENTATIONS)}")
    needs, platform = IMPLEMENTATIONS[implementation], platform or jax.default_backend()
    if not interpret and not needs.runs_on(platform):
        raise UserError(
            f"attention_implementation={implementation!r} runs on {' and '.join(needs.platforms)} only and this is "
            f"{platform}; use 'xla' or 'xla_blockwise'"
        )
    if head_dim < needs.min_head_dim:
        raise UserError(
            f"{implementation} needs head_dim >= {needs.min_head_dim}, not {head_dim}; use "
            "attention_implementation='xla'"
        )
    if length % needs.length_multiple:
        raise UserError(
            f"{implementation} needs a length that is a multiple of {needs.length_multiple}, not {length}; change the "
            "window"
        )


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    segment_ids: Array | None = None,
    query_slots: Array | None = None,
    implementation: str = "xla",
    interpret: bool = False,
    tiles: Tiles = Tiles(),  # noqa: B008 (frozen)
) -> Array:
    """softmax(q·k / sqrt(H)) · v over the keys at or before each query's own slot, float32 inside.

    query [B,T,N,H], key and value [B,S,K,H] with N a multiple of K (query head i reads kv head i // (N//K))
    → [B,T,N,H] in query's dtype.
    segment_ids int32[B,T] keeps documents apart (needs T == S). query_slots int32[B,T] says which key slot each query
    stands at, for decoding against a cache; None means slot t for query t. `interpret` runs the kernels on CPU,
    `tiles` cut the work of those that take them.
    Where the mesh splits sequences into `zigzag_parts(implementation)` > 1, heads are in zigzag order.
    Raises UserError if the implementation is unknown or cannot run here on these shapes.
    """
    if query_slots is not None:
        if implementation != "xla":
            raise UserError(f"attention_implementation={implementation!r} cannot read a cache; decode with 'xla'")
        return plain_attention(query, key, value, segment_ids, query_slots)
    if query.shape[1] != key.shape[1]:
        raise UserError(f"attention without query_slots needs as many keys as queries, not {key.shape[1]}")
    platform = _platform_traced_for()
    check_attention(implementation, query.shape[1], query.shape[3], platform, interpret)
    _log_once(implementation, platform)
    chosen = IMPLEMENTATIONS[implementation]
    options: dict[str, Any] = {"interpret": interpret} if chosen.needs_kernel else {}
    if chosen.takes_tiles:
        options["tiles"] = tiles
    if zigzag_parts(implementation) > 1:
        assert chosen.in_parts is not None
        attention = functools.partial(chosen.in_parts, **options)
        return attend_in_parts(attention, query, key, value, segment_ids)
    return chosen.function(query, key, value, segment_ids, **options)


def _platform_traced_for() -> str:
    """The platform of the mesh in force, which need not be here when programs are compiled ahead; else JAX's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def zigzag_parts(implementation: str) -> int:
    """Returns over how many devices `attend` splits sequences that must be in zigzag order; 1 if in their own order."""
    return context_size() if IMPLEMENTATIONS[implementation].in_parts is not None else 1


@functools.cache
def _log_once(implementation: str, backend: str) -> None:
    logger.info("attention implementation: %s on %s", implementation, backend)


def attention_mask(query_slots: Array, num_slots: int, segment_ids: Array | None = None) -> Array:
    """True where a query may read a key: int32 [B,T] → bool [B,T,S].

    Source: docs/reference/model_and_training.md §4.3.
    """
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


# Name → implementation: the one list of them, read by configuration, `plan`, `doctor` and scoring.
IMPLEMENTATIONS = {
    "xla": Implementation(plain_attention),
    "xla_blockwise": Implementation(blockwise_attention, in_parts=blockwise_chunks),
    "pallas_gpu_mha": Implementation(
        attention_kernels.pallas_gpu_mha,
        platforms=("gpu",),
        length_multiple=16,
        min_head_dim=16,
        needs_kernel=True,
        planned_as="xla_blockwise",
    ),
    "tpu_splash": Implementation(
        attention_kernels.tpu_splash,
        platforms=("tpu",),
        length_multiple=128,
        needs_kernel=True,
        takes_tiles=True,
        in_parts=attention_kernels.tpu_splash_chunks,
        planned_as="xla_blockwise",
    ),
}
OWN = tuple(IMPLEMENTATIONS)
LONGEST_FOR_CHECKS = 1024
CLOSE = 2e-2  # of values around 1, in whatever precision matrices are multiplied


def add_attention(name: str, implementation: Implementation) -> None:
    """Makes an implementation one that `ModelConfig.attention_implementation` may name.

    Raises:
      UserError: another one has the name, or this is none.
    """
    if IMPLEMENTATIONS.get(name, implementation) is not implementation:
        raise UserError(f"{name} is the name of another attention implementation; call it otherwise")
    if not (isinstance(implementation, Implementation) and callable(implementation.function)):
        raise UserError(f"{name} is no attention Implementation of a function; give Implementation(function=…)")
    if implementation.planned_as not in ("", *OWN):
        raise UserError(f"planned_as={implementation.planned_as!r} of {name} must be one of {OWN}, or ''")
    IMPLEMENTATIONS[name] = implementation


def check_added_attention(implementation: str, length: int, head_dim: int) -> None:
    """Checks, before the first step, that an implementation from outside computes what the plain one does.

    Generation reads its cache with the plain one, whatever a model was trained with. Compared on random values, with
    documents and without, in up to 1,024 positions.

    Raises:
      UserError: it fails, or gives something else.
    """
    if implementation in OWN:
        return
    multiple = IMPLEMENTATIONS[implementation].length_multiple
    length = max(multiple, min(length, LONGEST_FOR_CHECKS) // multiple * multiple)
    keys = jax.random.split(jax.random.key(0), 3)
    query, key, value = (
        jax.random.normal(each, (1, length, count, head_dim)) for each, count in zip(keys, (2, 1, 1), strict=True)
    )
    documents = (jnp.arange(length, dtype=jnp.int32)[None] * 3) // length
    for segments in (None, documents):
        plain = plain_attention(query, key, value, segments)
        try:
            given = attend(query, key, value, segment_ids=segments, implementation=implementation)
        except UserError:
            raise
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"attention_implementation={implementation!r} fails with {told}; correct it") from error
        if given.shape != plain.shape or given.dtype != plain.dtype or not jnp.allclose(given, plain, atol=CLOSE):
            where = "" if segments is None else " where segment_ids keep documents apart"
            raise UserError(
                f"attention_implementation={implementation!r} does not compute what 'xla' does{where}; they must "
                "agree, since generation reads its cache with 'xla'"
            )

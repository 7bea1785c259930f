"""Goldfish hash of a document's own words: the same labels leave the loss wherever it is packed.

The hash of a label covers the last h labels of its document, fewer at the document's start, and nothing of its
neighbours. It is a tree of 32-bit mixing steps (the constants are those of MurmurHash3, public domain), so it is
sensitive to order, has no zero to collapse to, and is uniform from the first label on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from apertus_jax.objectives.windows import NO_SEGMENT, Array, fold_windows, prepend_context


def document_drops(
    labels: Array,
    k: int,
    h: int,
    segment_ids: Array | None = None,
    left_context: Array | None = None,
    document_keys: Array | None = None,
) -> jax.Array:
    """Labels int32[..., T] → bool[..., T], True where the label leaves the loss: its hash is below 2**32 / k.

    See `document_hashes` for the arguments.
    """
    threshold = -(-(2**32) // k)
    return document_hashes(labels, h, segment_ids, left_context, document_keys) < jnp.uint32(threshold)


def document_hashes(
    labels: Array,
    h: int,
    segment_ids: Array | None = None,
    left_context: Array | None = None,
    document_keys: Array | None = None,
) -> jax.Array:
    """Labels int32[..., T] → uniform uint32[..., T], a function of the document's last h labels up to each position.

    segment_ids int32[..., T]: which document of the row a label belongs to; None: the whole row is one document.
    left_context int32[..., ≥ h-1]: the labels of the first document that precede the row, oldest first,
    right-aligned, -1 where there is none; None: every document starts inside the row.
    document_keys uint32[..., T]: the document's key, the same at all its labels; None is the same as zeros.
    Raises UserError if left_context is shorter than h-1.
    """
    labels = jnp.asarray(labels, jnp.int32)
    length = labels.shape[-1]
    segments = jnp.zeros_like(labels) if segment_ids is None else jnp.asarray(segment_ids, jnp.int32)
    if left_context is not None and h > 1:
        labels, segments = prepend_context(labels, segments, left_context, h)
    leaves = {
        "hash": mix(labels.astype(jnp.uint32)),
        "count": jnp.ones_like(labels, jnp.uint32),
        "segment": segments,
    }
    folded = fold_windows(leaves, h, _merge, {"hash": 0, "count": 0, "segment": NO_SEGMENT})
    hashes = mix(folded["hash"] + folded["count"] * jnp.uint32(0x9E3779B1))[..., -length:]
    keys = jnp.uint32(0) if document_keys is None else jnp.asarray(document_keys).astype(jnp.uint32)
    return mix(hashes ^ keys)


def mix(value: jax.Array) -> jax.Array:
    """The MurmurHash3 finaliser: a bijection of uint32 in which each input bit moves every output bit."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return value ^ (value >> 16)


def _merge(recent: dict[str, jax.Array], older: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Joins two neighbouring windows; the older one counts only if it ends in the same document."""
    same = recent["segment"] == older["segment"]
    joined = _rotate_left(older["hash"] ^ _scramble(recent["hash"]), 13) * jnp.uint32(5) + jnp.uint32(0xE6546B64)
    return {
        "hash": jnp.where(same, joined, recent["hash"]),
        "count": recent["count"] + jnp.where(same, older["count"], jnp.uint32(0)),
        "segment": recent["segment"],
    }


def _scramble(value: jax.Array) -> jax.Array:
    return _rotate_left(value * jnp.uint32(0xCC9E2D51), 15) * jnp.uint32(0x1B873593)


def _rotate_left(value: jax.Array, bits: int) -> jax.Array:
    return (value << bits) | (value >> (32 - bits))

"""Goldfish hash of content: all copies of a document lose the same words, however laid out or tokenised.

The hashes of token ids start afresh wherever a copy has another line end, one word more, or other tokens, and what one
copy leaves out the next one teaches. Here a document is its stream of normalised bytes (see `anchors`). A byte is a
*hole* when a hash of it, of the seven bytes before it, and of the document's key falls below a threshold; a label
leaves the loss when a hole lies in its text. After an edit the holes are those of the other copies eight bytes later,
and no tokenization can learn a hole, because whichever token covers it is dropped. The key is that of the cluster of
duplicates, so a phrase is a hole in one cluster and not in the next, and the language of the phrase is still learnt.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.objectives.anchors import ANCHOR_BYTES, AnchorTable, Window
from apertus_jax.objectives.document_hash import mix
from apertus_jax.objectives.windows import NO_SEGMENT, Array, fold_windows, prepend_context, shift_right

_Leaves = tuple[Window[jax.Array], jax.Array]


def cluster_drops(
    labels: Array,
    k: int,
    h: int,
    anchors: AnchorTable,
    segment_ids: Array | None = None,
    left_context: Array | None = None,
    document_keys: Array | None = None,
) -> jax.Array:
    """Labels int32[..., T] → bool[..., T], True where the label's text holds a hole.

    h: the bytes before a label are looked for in the h-1 labels before it; runs of white space longer than that hide
    them. The other arguments are those of `document_hash.document_hashes`; labels outside the vocabulary have no text.
    """
    labels = jnp.asarray(labels, jnp.int32)
    length = labels.shape[-1]
    segments = jnp.zeros_like(labels) if segment_ids is None else jnp.asarray(segment_ids, jnp.int32)
    if left_context is not None and h > 1:
        labels, segments = prepend_context(labels, segments, left_context, h)
    window = _windows_before(labels, segments, h, anchors)
    window = Window(*(part[..., -length:] for part in window))
    labels = labels[..., -length:]
    keys = jnp.uint32(0) if document_keys is None else jnp.asarray(document_keys).astype(jnp.uint32)
    threshold = jnp.uint32(min(int(anchors.byte_rate(k) * 2**32), 2**32 - 1))

    text_length = _look_up(anchors.length, labels)
    words = [_look_up(anchors.text[:, word], labels) for word in range(anchors.text.shape[1])]
    dropped = jnp.zeros(labels.shape, bool)
    for place in range(int(anchors.length.max())):
        byte = (words[place // 4] >> (8 * (place % 4))) & 0xFF
        window = _append(window, Window(jnp.uint32(0), byte, jnp.uint32(1)))
        dropped |= (_hash(window, keys) < threshold) & (place < text_length)
    return dropped


def _windows_before(labels: jax.Array, segments: jax.Array, h: int, anchors: AnchorTable) -> Window[jax.Array]:
    """The last bytes of the document before each label, from at most h-1 labels."""
    zeros = jnp.zeros(labels.shape, jnp.uint32)
    if h == 1:
        return Window(zeros, zeros, zeros)
    leaves = (Window(*(_look_up(part, labels) for part in anchors.tail)), segments)
    window, ends_in = fold_windows(leaves, h - 1, _merge, padding=(Window(0, 0, 0), NO_SEGMENT))
    same = shift_right(ends_in, 1, NO_SEGMENT) == segments
    return Window(*(jnp.where(same, shift_right(part, 1, 0), 0) for part in window))


def _merge(recent: _Leaves, older: _Leaves) -> _Leaves:
    """Joins two neighbouring windows; the older one counts only if it ends in the same document."""
    (window, segment), (before, segment_before) = recent, older
    same = segment == segment_before
    return jax.tree.map(lambda both, alone: jnp.where(same, both, alone), _append(before, window), window), segment


def _append(window: Window[jax.Array], newer: Window[jax.Array]) -> Window[jax.Array]:
    """The last eight bytes of one window followed by another."""
    high, low = _shift_left(window.high, window.low, 8 * newer.filled)
    filled = jnp.minimum(window.filled + newer.filled, ANCHOR_BYTES)
    return Window(high | newer.high, low | newer.low, filled)


def _shift_left(high: jax.Array, low: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(high, low) shifted by 0 to 64 bits; a shift by all 32 bits of a word is never asked of the hardware."""
    far = bits >= 32
    high, low = jnp.where(far, low, high), jnp.where(far, 0, low)
    near = jnp.where(far, bits - 32, bits) & 31
    carried = (low >> 1) >> (31 - near)
    gone = bits >= 64
    return jnp.where(gone, 0, (high << near) | carried), jnp.where(gone, 0, low << near)


def _hash(window: Window[jax.Array], keys: jax.Array) -> jax.Array:
    """Uniform uint32 of a window and a key."""
    hashed = mix(window.high + window.filled * jnp.uint32(0x9E3779B1))
    return mix(mix(hashed ^ window.low) ^ keys)


def _look_up(table: np.ndarray, labels: jax.Array) -> jax.Array:
    """Entries of a table [V] at labels; 0 for labels outside the vocabulary."""
    inside = (labels >= 0) & (labels < len(table))
    return jnp.where(inside, jnp.take(jnp.asarray(table), labels, mode="clip"), 0)

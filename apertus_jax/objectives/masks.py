"""Loss masks that compose: each is a function of the batch, a list of them is their conjunction.

A new mask is three lines:

    def drop_digits(digit_ids):
        return lambda batch: ~jnp.isin(batch["tokens"][:, 1:], jnp.asarray(digit_ids))

    combine_masks([goldfish(), not_after_eod(2), drop_digits([…])], batch)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from apertus_jax.objectives.anchors import AnchorTable, VocabularyText, anchor_table
from apertus_jax.objectives.goldfish import check_goldfish, goldfish_mask

Batch = Mapping[str, jax.Array]
LossMask = Callable[[Batch], jax.Array]


def goldfish(
    k: int = 50,
    h: int = 50,
    strategy: str = "document",
    use_document_keys: bool = False,
    anchors: AnchorTable | VocabularyText | None = None,
) -> LossMask:
    """A mask that drops about one label in k, see `goldfish_mask`.

    Without document keys two copies of a text, found at two addresses, lose the same labels, which is the point of
    the objective; with them every document draws its own mask. Strategy "cluster" always uses them, and `anchors`:
    a table, or the vocabulary it is made of. Raises UserError for bad k, h or strategy, or missing anchors.
    """
    check_goldfish(k, h, strategy, anchors is not None)
    table = anchors if anchors is None or isinstance(anchors, AnchorTable) else anchor_table(anchors)
    keyed = use_document_keys or strategy == "cluster"

    def mask(batch: Batch) -> jax.Array:
        return goldfish_mask(
            _labels(batch),
            k,
            h,
            strategy,
            batch.get("segment_ids"),
            batch.get("left_context"),
            batch.get("document_keys") if keyed else None,
            table,
        )

    # The loader asks for it: how many labels of a cut document this mask needs from before the window.
    mask.left_context = 0 if strategy == "megatron" else h - 1
    return mask


def not_after_eod(eod_id: int) -> LossMask:
    """Drops the label whose input ends a document: the start of the next one cannot be foretold (model spec §5.3)."""
    return lambda batch: _inputs(batch) != eod_id


def not_padding(pad_id: int = -1) -> LossMask:
    """Drops labels that are padding."""
    return lambda batch: _labels(batch) != pad_id


def completion_only(start_id: int, end_id: int) -> LossMask:
    """Keeps what comes after `start_id` up to and including `end_id`, in each document: the assistant's words in chats.

    A completion whose start lies before the window is left out, since the row does not tell that it is one.
    """

    def mask(batch: Batch) -> jax.Array:
        inputs = _inputs(batch)
        index = jnp.arange(inputs.shape[-1], dtype=jnp.int32)
        closes = inputs == end_id
        if "segment_ids" in batch:
            new_document = jnp.diff(batch["segment_ids"], axis=1, prepend=batch["segment_ids"][:, :1]) != 0
            closes |= new_document & (inputs != start_id)
        last_start = jax.lax.cummax(jnp.where(inputs == start_id, index, -1), axis=1)
        last_close = jax.lax.cummax(jnp.where(closes, index, -1), axis=1)
        return last_start > last_close

    return mask


def combine_masks(masks: Sequence[LossMask], batch: Batch) -> jax.Array:
    """The weight of each label, float32[B, T]: 1 where every mask keeps it, times the batch's own `loss_weights`."""
    keep = jnp.ones(_labels(batch).shape, bool)
    for mask in masks:
        keep &= mask(batch)
    weights = keep.astype(jnp.float32)
    return weights * batch["loss_weights"] if "loss_weights" in batch else weights


def _inputs(batch: Batch) -> jax.Array:
    return jnp.asarray(batch["tokens"])[:, :-1]


def _labels(batch: Batch) -> jax.Array:
    return jnp.asarray(batch["tokens"])[:, 1:]

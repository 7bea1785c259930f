"""Goldfish loss mask: which labels stay in the loss, so that no long passage is learnt by heart.

About one label in k is dropped, chosen by a hash of the h labels that end at it, so that a repeated passage misses the
same words at every repetition (Hans et al., arXiv 2406.10209; Apertus, arXiv 2509.14233, appendix F).
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.objectives.anchors import AnchorTable
from apertus_jax.objectives.cluster_hash import cluster_drops
from apertus_jax.objectives.document_hash import document_drops
from apertus_jax.objectives.megatron_hash import megatron_drops
from apertus_jax.objectives.ordered_hash import LARGEST_WINDOW, ordered_drops
from apertus_jax.objectives.windows import Array
from apertus_jax.validation import require_list, require_whole_number, spelled

LARGEST = 1 << 31  # hashes are taken of 32 bits
STRATEGIES = ("document", "megatron", "megatron_v2", "cluster")
ROW_STRATEGIES = ("megatron", "megatron_v2")  # they look at the row alone and hash across its documents


def goldfish_mask(
    labels: Array,
    k: int = 50,
    h: int = 50,
    strategy: str = "document",
    segment_ids: Array | None = None,
    left_context: Array | None = None,
    document_keys: Array | None = None,
    anchors: AnchorTable | None = None,
    exempt_ids: Sequence[int] = (),
) -> jax.Array:
    """Labels int32[B, T] → bool[B, T], True where the label stays in the loss.

    Strategy "document" hashes the last h labels of the label's own document (fewer at its start): the same document has
    the same mask at every packing and every sequence length. It uses segment_ids int32[B, T], left_context int32[B, ≥
    h-1] and document_keys uint32[B, T], see `document_hash.document_hashes`. Strategy "megatron" is bit for bit the
    released models' mask: it hashes across document boundaries, keeps the first h-1 labels of every row, and ignores
    those three arguments (docs/reference/model_and_training.md §5.1). Strategy "megatron_v2" is the same with the hash
    of version 2, which hangs on the order of the labels and does not collapse (docs/reference/after_version_1.md §2).
    Strategy "cluster" places the holes by content, so that near-duplicates share them: see `cluster_hash`. It needs
    `anchors`, the text of the vocabulary, and document_keys that are those of clusters of duplicates (a token store's
    are); h only bounds how far back it looks for the eight bytes it hashes.

    Labels with one of `exempt_ids` stay in the loss under every strategy; version 2 exempts the special tokens.
    Raises UserError for an unknown strategy, k < 2, h < 1, "cluster" without anchors, or ids that are no token numbers.
    """
    check_goldfish(k, h, strategy, anchors is not None)
    exempt = check_exempt_ids(exempt_ids)
    if strategy == "megatron":
        drops = megatron_drops(labels, k, h)
    elif strategy == "megatron_v2":
        drops = ordered_drops(labels, k, h)
    elif strategy == "cluster":
        assert anchors is not None  # by check_goldfish
        drops = cluster_drops(labels, k, h, anchors, segment_ids, left_context, document_keys)
    else:
        drops = document_drops(labels, k, h, segment_ids, left_context, document_keys)
    return ~drops | _is_one_of(labels, exempt) if len(exempt) else ~drops


def check_goldfish(k: int, h: int, strategy: str, has_anchors: bool = False) -> None:
    """Raises UserError unless k ≥ 2 and h ≥ 1 are whole numbers and the strategy is known and has what it needs."""
    if strategy not in STRATEGIES:
        raise UserError(f"goldfish.strategy = {spelled(strategy)} is unknown; use one of {STRATEGIES}")
    if not _is_whole(k) or not 2 <= k < LARGEST:
        raise UserError(f"goldfish.k = {spelled(k)} must be a whole number of at least 2, one label in k is dropped")
    if not _is_whole(h) or not 1 <= h < LARGEST:
        raise UserError(f"goldfish.h = {spelled(h)} must be a whole number of at least 1, the labels that are hashed")
    if strategy == "megatron_v2" and h > LARGEST_WINDOW:
        raise UserError(f"goldfish.h = {h} is more than strategy='megatron_v2' takes; use at most {LARGEST_WINDOW}")
    if strategy == "cluster" and not has_anchors:
        raise UserError(
            "goldfish strategy='cluster' has no anchors: it hashes the text of tokens, not their ids; bind "
            "goldfish.anchors = @vocabulary_text() and vocabulary_text.store to the token store"
        )


def check_exempt_ids(ids: Sequence[int]) -> np.ndarray:
    """Returns the exempt ids, sorted, int32[n]; raises UserError unless they are token numbers."""
    require_list("goldfish.exempt_ids", ids)
    for number, each in enumerate(ids):
        require_whole_number(f"goldfish.exempt_ids[{number}]", each, at_least=0, at_most=LARGEST - 1)
    return np.unique(np.asarray(ids, np.int32))


def _is_one_of(labels: Array, sorted_ids: np.ndarray) -> jax.Array:
    """Labels int32[..., T] → bool[..., T], True for those among the sorted ids."""
    ids = jnp.asarray(sorted_ids)
    place = jnp.searchsorted(ids, jnp.asarray(labels, jnp.int32))
    return jnp.take(ids, place, mode="clip") == labels


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)

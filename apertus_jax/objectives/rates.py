"""Realised drop rates of Goldfish strategies, and where they drop."""

from __future__ import annotations

import dataclasses

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.objectives.anchors import AnchorTable
from apertus_jax.objectives.goldfish import STRATEGIES, goldfish_mask
from apertus_jax.objectives.megatron_hash import megatron_keys
from apertus_jax.objectives.ordered_hash import ordered_keys

_LABELS_AT_ONCE = 2**20
KEYS = {"megatron": megatron_keys, "megatron_v2": ordered_keys}


@dataclasses.dataclass(frozen=True)
class DropRate:
    """Counts over documents that each open a row.

    `first` counts the labels before the first full window of h; `collapsed_windows` are full windows whose published
    key is 0, None for a strategy that has no such key.
    """

    labels: int
    dropped: int
    first_labels: int
    first_dropped: int
    windows: int
    collapsed_windows: int | None

    @property
    def rate(self) -> float:
        """The share of labels that leave the loss; 1/k is meant."""
        return self.dropped / self.labels

    @property
    def first_rate(self) -> float:
        """The same among the first h-1 labels of each document."""
        return self.first_dropped / max(self.first_labels, 1)

    @property
    def collapsed_share(self) -> float | None:
        """The share of full windows whose key is 0."""
        return None if self.collapsed_windows is None else self.collapsed_windows / max(self.windows, 1)


def measure_drop_rate(
    documents: np.ndarray, strategy: str, k: int = 50, h: int = 50, anchors: AnchorTable | None = None
) -> DropRate:
    """Counts what a strategy drops from documents int[N, T], each the labels of a document that opens a row.

    `anchors` is for strategy "cluster", which here has no document keys.
    Raises UserError for an unknown strategy and for documents that are not a matrix.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"goldfish strategy={strategy!r} is unknown; use one of {STRATEGIES}")
    if documents.ndim != 2 or documents.size == 0:
        raise UserError(f"documents of shape {documents.shape} must be a matrix: one row of labels for each document")
    length = documents.shape[1]
    rows = max(_LABELS_AT_ONCE // length, 1)
    dropped, first_dropped, collapsed = 0, 0, 0
    for start in range(0, len(documents), rows):
        labels = documents[start : start + rows].astype(np.int32)
        drops = ~np.asarray(goldfish_mask(labels, k, h, strategy, anchors=anchors))
        dropped += int(drops.sum())
        first_dropped += int(drops[:, : h - 1].sum())
        if strategy in KEYS:
            collapsed += int((np.asarray(KEYS[strategy](labels, h))[:, h - 1 :] == 0).sum())
    return DropRate(
        labels=documents.size,
        dropped=dropped,
        first_labels=len(documents) * min(h - 1, length),
        first_dropped=first_dropped,
        windows=len(documents) * max(length - h + 1, 0),
        collapsed_windows=collapsed if strategy in KEYS else None,
    )

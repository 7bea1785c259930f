"""Training objective: cross-entropy in token tiles under loss masks that compose."""

from apertus_jax.objectives.anchors import AnchorTable, anchor_table, normalized
from apertus_jax.objectives.cross_entropy import cross_entropy, mean_loss, token_losses
from apertus_jax.objectives.goldfish import goldfish_mask
from apertus_jax.objectives.masks import (
    Batch,
    ContextMask,
    LossMask,
    combine_masks,
    completion_only,
    goldfish,
    not_after_eod,
    not_padding,
    on_sources,
)
from apertus_jax.objectives.rates import DropRate, measure_drop_rate

__all__ = [
    "AnchorTable",
    "anchor_table",
    "normalized",
    "Batch",
    "ContextMask",
    "DropRate",
    "LossMask",
    "combine_masks",
    "completion_only",
    "cross_entropy",
    "goldfish",
    "goldfish_mask",
    "mean_loss",
    "measure_drop_rate",
    "not_after_eod",
    "not_padding",
    "on_sources",
    "token_losses",
]

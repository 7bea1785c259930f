"""Optimizers: AdEMAMix and AdamW, clipping, and learning-rate schedules that count samples."""

from apertus_jax.optimization.adamw import adamw
from apertus_jax.optimization.ademamix import AdemamixState, ademamix
from apertus_jax.optimization.chain import optimizer_chain, scale_by_learning_rate, weight_decay_mask
from apertus_jax.optimization.clipping import clip_by_global_norm, global_norm
from apertus_jax.optimization.sample_counts import add_samples, sample_count, sample_count_to_int
from apertus_jax.optimization.schedules import (
    Schedule,
    ScheduleOfRun,
    constant_schedule,
    cosine_schedule,
    last_sample_of,
    of_run,
    resolve_learning_rate,
    wsd_schedule,
)

__all__ = [
    "AdemamixState",
    "Schedule",
    "ScheduleOfRun",
    "adamw",
    "add_samples",
    "ademamix",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_schedule",
    "global_norm",
    "last_sample_of",
    "of_run",
    "optimizer_chain",
    "resolve_learning_rate",
    "sample_count",
    "sample_count_to_int",
    "scale_by_learning_rate",
    "weight_decay_mask",
    "wsd_schedule",
]

"""Run length: learning rates in fractions of it, and schedules that end before it does."""

from __future__ import annotations

import logging
from collections.abc import Callable

import optax

from apertus_jax.data.sample_order.batch_history import BatchHistory
from apertus_jax.optimization import (
    Schedule,
    ScheduleOfRun,
    last_sample_of,
    optimizer_chain,
)
from apertus_jax.optimization.chain import make_optimizer, weight_decay_mask_with_alphas
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.run import ResolvedSchedule

# How the record of a run calls the samples that a schedule in fractions of the run was made for.
BINDING = "SAMPLES_OF_RUN"
_log = logging.getLogger(__name__)


def chain_of_run(
    optimizer: Callable[..., optax.GradientTransformationExtraArgs],
    schedule: ResolvedSchedule,
    training: TrainingConfig,
) -> optax.GradientTransformationExtraArgs:
    """Returns clipping and optimizer of a run; the state of the optimizer does not depend on the learning rate."""
    mask = weight_decay_mask_with_alphas if training.decay_xielu_alphas else None
    return optimizer_chain(make_optimizer(optimizer, schedule.learning_rate, mask), training.clip_norm)


def length_binding(learning_rate: float | Schedule, total_samples: int) -> dict[str, str]:
    """Returns what the configuration is extended by: a run that is made longer then has another learning rate."""
    return {BINDING: repr(total_samples)} if isinstance(learning_rate, ScheduleOfRun) else {}


def say_where_schedule_ends(schedule: ResolvedSchedule) -> None:
    """Warns of steps that the learning rate says nothing about, before the first step is done."""
    last = last_sample_of(schedule.learning_rate)
    total, total_steps = schedule.total_samples, schedule.total_steps
    if last is None or total == last:
        return
    if total > last:
        # The step that begins after the last sample, not the one that contains it.
        first = next_step(schedule.batches, last, total_steps)
        if first < total_steps:
            _log.warning(
                "the learning-rate schedule ends after %d samples and the run after %d: steps %d to %d train on at "
                "its final rate; give total_samples = %d, or the schedule in fractions of the run, or --steps=%d",
                last,
                total,
                first,
                total_steps - 1,
                total,
                first,
            )
        return
    _log.info("the run ends after %d samples, before the learning-rate schedule of %d samples does", total, last)


def next_step(history: BatchHistory, samples: int, total_steps: int) -> int:
    """Returns the first step that begins with at least `samples` consumed, at most `total_steps`."""
    low, high = history.segments[0].first_step, total_steps
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if history.first_sample(middle) >= samples else (middle + 1, high)
    return low

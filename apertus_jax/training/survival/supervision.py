"""Supervision of a run: its limits, its guard and its closer looks, as one setting."""

from __future__ import annotations

import dataclasses

from apertus_jax.training.config import free_to_change
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.run_watch import RunWatch
from apertus_jax.training.survival.step_guard import StepGuard
from apertus_jax.validation import fields_by_annotation


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Supervision:
    """Supervision of a run while it trains; gin files bind the fields of the three alone.

    Attributes:
      limits: how long the processes of a job wait for each other, and what a stuck step is.
      guard: which steps are skipped because their loss or gradient norm stands out.
      watch: which steps are computed twice, profiled, or looked at layer by layer.
    """

    # Which object they are is free to change; what decides a bit is a field of StepGuard.
    limits: JobLimits = free_to_change(JobLimits())
    guard: StepGuard = free_to_change(StepGuard())
    watch: RunWatch = free_to_change(RunWatch())

"""Training run: its length, batches and learning rate, and what else stays the same from the first step to the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apertus_jax.data.provenance.label_origins import LabelOrigins
from apertus_jax.data.sample_order.batch_history import BatchHistory, BatchSegment
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.optimization import Schedule, of_run
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.training.compiled_steps import Compile, compile_lowered
from apertus_jax.training.config import TrainingConfig, free_to_change
from apertus_jax.training.program import Program
from apertus_jax.training.survival.supervision import Supervision
from apertus_jax.validation import fields_by_annotation, require_count, require_number


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RunSchedule:
    """Length of a run, and what changes on its way: batch size and learning rate.

    Attributes:
      batch_schedule: samples per step.
      learning_rate: a number, or a schedule of the samples consumed.
      total_steps: steps of the whole run, not of this start.
      stop_step: stop after this step of the run as if asked to, so that another start can go on from it; None for no.
    """

    batch_schedule: BatchSchedule
    learning_rate: float | Schedule
    total_steps: int = free_to_change()
    stop_step: int | None = free_to_change(None)

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            require_number("RunSchedule.learning_rate", self.learning_rate, at_least=0)
        require_count("RunSchedule.total_steps", self.total_steps, at_least=1)
        require_count("RunSchedule.stop_step", self.stop_step, at_least=1, optional=True)

    def resolve(self, batches: BatchHistory) -> ResolvedSchedule:
        """Returns the schedule of a run that has these batches: fractions of the run become samples of it."""
        learning_rate = of_run(self.learning_rate, batches.first_sample(self.total_steps))
        return ResolvedSchedule(batches, learning_rate, self.total_steps, self.stop_step)

    def from_start(self, sequence_length: int) -> ResolvedSchedule:
        """Returns the schedule of a run that has these batches from its first step on."""
        return self.resolve(BatchHistory([BatchSegment(0, 0, self.batch_schedule, sequence_length)]))


@dataclasses.dataclass(frozen=True)
class ResolvedSchedule:
    """A `RunSchedule` once it is known what the run consumed before: optimizer, loop and records read this one.

    Attributes:
      batches: step ↔ samples and tokens, over everything that the run went through.
      learning_rate: a number, or a function of the samples consumed; the optimizer is made with this very object.
      total_steps: steps of the whole run.
      stop_step: the loop stops orderly after this step of the run; None for no.
    """

    batches: BatchHistory
    learning_rate: float | Schedule
    total_steps: int
    stop_step: int | None = None

    @property
    def total_samples(self) -> int:
        """Samples that the whole run consumes."""
        return self.batches.first_sample(self.total_steps)

    def learning_rate_of(self, step: int) -> float:
        """Returns the learning rate of a step (counted from 0), as the step itself computes it from its state."""
        rate = self.learning_rate
        return float(rate(self.batches.first_sample(step)) if callable(rate) else rate)


@dataclasses.dataclass(frozen=True)
class Caller:
    """Parts that the process which calls `pretrain` supplies; no bit of the run depends on them.

    Attributes:
      effective_config: returns the bindings in effect, for the record; the command line supplies it.
      compiler: makes executables of programs; `CompiledSteps().compile` lets several runs of a process share them.
    """

    effective_config: Callable[[], Mapping[str, str]] = dict
    compiler: Compile = compile_lowered


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """One run as the loop, its records and its end see it.

    Attributes:
      folder: where it writes.
      program: the compiled step on its mesh.
      schedule: its length, batches and learning rate.
      training: settings of the loop.
      metadata: JSON values that every checkpoint carries: digests of the data and of the configuration, architecture.
      origins: from which sources and in which languages the labels of its samples are.
      stages: sample numbers at which the stages of its mixture begin, the first at 0.
      bindings: the configuration in effect, as gin spells it; empty for a run that was started from Python.
      supervision: how long steps and saves may take, and which steps are looked at more closely.
    """

    folder: RunFolder
    program: Program
    schedule: ResolvedSchedule
    training: TrainingConfig
    metadata: Mapping[str, Any]
    origins: LabelOrigins
    stages: Sequence[int] = (0,)
    bindings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    supervision: Supervision = Supervision()  # noqa: RUF009 (frozen)

    @property
    def name(self) -> str:
        """What the run is called: the name that a person chose, or that of its folder."""
        return self.training.name or self.folder.path.name

"""Batch size schedule: which samples belong to which step, under one change of batch size.

Source: docs/reference/model_and_training.md §7.2.
"""

from __future__ import annotations

import dataclasses

from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation, require_count, require_whole_number

LARGEST_BATCH = 1 << 30  # rows are numbered in int32


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class BatchSchedule:
    """Steps of `initial` samples while fewer than `ramp_samples` are consumed, of `final` samples from then on.

    Steps and samples count from 0. The first larger step is the first one that begins with at least `ramp_samples`
    consumed, so a ramp that the initial batch does not divide ends after the step that crosses it.
    """

    initial: int
    final: int | None = None
    ramp_samples: int = 0

    def __post_init__(self):
        require_whole_number("BatchSchedule.initial", self.initial, at_least=1, at_most=LARGEST_BATCH)
        require_whole_number("BatchSchedule.final", self.final, at_least=1, at_most=LARGEST_BATCH, optional=True)
        require_count("BatchSchedule.ramp_samples", self.ramp_samples)
        if self.final is None and self.ramp_samples:
            raise UserError(
                f"BatchSchedule.ramp_samples = {self.ramp_samples} has no BatchSchedule.final to ramp to; give it"
            )

    @property
    def final_size(self) -> int:
        """The batch size after the ramp."""
        return self.initial if self.final is None else self.final

    @property
    def sizes(self) -> frozenset[int]:
        """Every batch size that there will be."""
        return frozenset({self.initial, self.final_size} if self.ramp_samples else {self.final_size})

    @property
    def ramp_steps(self) -> int:
        """The number of steps of the initial size (1,678,000 for 8B, 523,518 for 70B)."""
        return -(-self.ramp_samples // self.initial)

    def size_at(self, step: int) -> int:
        """Returns the global batch size of `step`."""
        return self.initial if step < self.ramp_steps else self.final_size

    def first_sample(self, step: int) -> int:
        """Returns the samples consumed before `step`, which is also the number of its first sample."""
        ramp_steps = self.ramp_steps
        return min(step, ramp_steps) * self.initial + max(0, step - ramp_steps) * self.final_size

    def step_of_sample(self, sample: int) -> int:
        """Returns the step that consumes sample number `sample`."""
        ramp_steps = self.ramp_steps
        ramp_end = ramp_steps * self.initial
        if sample < ramp_end:
            return sample // self.initial
        return ramp_steps + (sample - ramp_end) // self.final_size

    def total_steps(self, total_samples: int) -> int:
        """Returns the number of whole steps in `total_samples` (2,627,139 for 8B, 1,155,828 for 70B), rounded down."""
        return self.step_of_sample(total_samples)

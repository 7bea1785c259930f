"""Which samples belong to which step, under one change of batch size (model spec §7.2)."""

from __future__ import annotations

import dataclasses

from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class BatchSchedule:
    """Steps of `initial` samples while fewer than `ramp_samples` are consumed, of `final` samples from then on.

    Steps and samples count from 0. The first larger step is the first one that begins with at least `ramp_samples`
    consumed, so a ramp that the initial batch does not divide ends after the step that crosses it.
    """

    initial: int
    final: int | None = None
    ramp_samples: int = 0

    def __post_init__(self):
        if self.initial < 1 or (self.final is not None and self.final < 1):
            raise UserError(f"batch sizes are {self.initial} and {self.final}; both must be at least 1")
        if self.ramp_samples < 0:
            raise UserError(f"ramp_samples is {self.ramp_samples}; it must be 0 or more")
        if self.final is None and self.ramp_samples:
            raise UserError(f"ramp_samples is {self.ramp_samples} but there is no final batch size; give `final`")

    @property
    def final_size(self) -> int:
        """The batch size after the ramp."""
        return self.initial if self.final is None else self.final

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

"""Batch history of a run: its batch schedules one after another, each from the step where it began.

A run may go on with another batch size or another sequence length. What it did before stays as it was: the state of
the checkpoint says how many samples were consumed, and the new schedule counts from there.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class BatchSegment:
    """From step `first_step` on, which begins with sample number `first_sample`, batches are as `schedule` says.

    The schedule is one of samples consumed, so a change of size that was ahead when the run went
    on comes at the same sample.
    """

    first_step: int
    first_sample: int
    schedule: BatchSchedule
    sequence_length: int

    @property
    def counted_from_here(self) -> BatchSchedule:
        """The schedule as if step and samples began at 0 with the segment."""
        return self.schedule.counted_from(self.first_sample)


class BatchHistory:
    """step ↔ samples over every segment of a run, and the tokens trained before a step."""

    def __init__(self, segments: Sequence[BatchSegment]):
        """Segments are in the order of their first steps; where a segment begins is what it says, not what the
        one before had come to: records of versions that left out samples say so truly."""
        self.segments = tuple(segments)
        self._local = [segment.counted_from_here for segment in self.segments]
        self._first_steps = [segment.first_step for segment in self.segments]

    def followed_by(self, segment: BatchSegment) -> BatchHistory:
        """Returns the history that goes on with another segment."""
        return BatchHistory([*self.segments, segment])

    @property
    def latest(self) -> BatchSchedule:
        """The schedule that holds now."""
        return self.segments[-1].schedule

    @property
    def sizes(self) -> frozenset[int]:
        """The batch sizes of the steps to come."""
        return self._local[-1].sizes

    def sizes_between(self, first_step: int, stop_step: int) -> frozenset[int]:
        """Returns the batch sizes of the steps from `first_step` up to, without, `stop_step`."""
        ends = [*self._first_steps[1:], stop_step]
        found = (
            local.sizes_between(max(first_step - first, 0), min(end, stop_step) - first)
            for first, end, local in zip(self._first_steps, ends, self._local, strict=True)
        )
        return frozenset[int]().union(*found)

    def of_stream(self) -> BatchSchedule | BatchHistory:
        """Returns what a sample stream needs: the schedule alone where nothing ever changed."""
        first = self.segments[0]
        alone = len(self.segments) == 1 and first.first_step == first.first_sample == 0
        return first.schedule if alone else self

    def size_at(self, step: int) -> int:
        """Returns the global batch size of `step`."""
        number = self._segment_of_step(step)
        return self._local[number].size_at(step - self._first_steps[number])

    def first_sample(self, step: int) -> int:
        """Returns the samples consumed before `step`, which is also the number of its first sample."""
        number = self._segment_of_step(step)
        return self.segments[number].first_sample + self._local[number].first_sample(step - self._first_steps[number])

    def step_of_sample(self, sample: int) -> int:
        """Returns the step that consumed, or will consume, sample number `sample`; the last of them if there are more.

        Raises:
          UserError: no step did.
        """
        for number in reversed(range(len(self.segments))):
            within = sample - self.segments[number].first_sample
            if within >= 0:
                step = self._first_steps[number] + self._local[number].step_of_sample(within)
                if number + 1 == len(self.segments) or step < self._first_steps[number + 1]:
                    return step
        raise UserError(f"sample {sample} was in no batch of this run")

    def tokens_before(self, step: int) -> int:
        """Returns how many tokens were trained on before `step`: samples times the length that each had."""
        tokens = 0
        for number, segment in enumerate(self.segments):
            stop = step
            if number + 1 < len(self.segments):
                stop = min(step, self._first_steps[number + 1])
            if stop > segment.first_step:
                samples = self._local[number].first_sample(stop - segment.first_step)
                # What came before the first segment on record has no other length that we know of.
                samples += segment.first_sample if number == 0 else 0
                tokens += samples * segment.sequence_length
        return tokens

    def _segment_of_step(self, step: int) -> int:
        """Returns the number of the segment that a step lies in."""
        if step < self._first_steps[0]:
            raise UserError(f"the record of this run begins at step {self._first_steps[0]}; step {step} is not known")
        return bisect.bisect_right(self._first_steps, step) - 1

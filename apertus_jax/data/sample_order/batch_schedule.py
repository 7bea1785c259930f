"""Batch size schedule: which samples belong to which step, under any number of changes of batch size.

Source: docs/reference/model_and_training.md §7.2.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from apertus_jax.errors import UserError
from apertus_jax.validation import (
    fields_by_annotation,
    require_count,
    require_list,
    require_whole_number,
    spelled,
)

LARGEST_BATCH = 1 << 30  # rows are numbered in int32


class _Steps(NamedTuple):
    """Steps of one size: from step `first_step` on, which begins with sample number `first_sample`."""

    first_step: int
    first_sample: int
    size: int


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class BatchSchedule:
    """Steps of `initial` samples at first, and of another size from each of the `changes` on.

    Steps and samples count from 0. The first step of a new size is the first one that begins with at least so many
    samples consumed, so a piece that its batch does not divide ends after the step that crosses its end. A change that
    one step crosses together with the next one has no step of its own.

    Attributes:
      initial: samples of a step at first.
      final, ramp_samples: one change, as the released runs had it: `final` samples once `ramp_samples` are consumed.
      changes: any number of them in place of these two: pairs (samples consumed, samples of a step from then on), for
        example [(1000, 16), (5000, 64)].
    """

    initial: int
    final: int | None = None
    ramp_samples: int = 0
    changes: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        require_whole_number("BatchSchedule.initial", self.initial, at_least=1, at_most=LARGEST_BATCH)
        require_whole_number("BatchSchedule.final", self.final, at_least=1, at_most=LARGEST_BATCH, optional=True)
        require_count("BatchSchedule.ramp_samples", self.ramp_samples)
        if self.final is None and self.ramp_samples:
            raise UserError(
                f"BatchSchedule.ramp_samples = {self.ramp_samples} has no BatchSchedule.final to ramp to; give it"
            )
        object.__setattr__(self, "changes", _checked_changes(self.changes))
        if self.changes and self.final is not None:
            raise UserError(
                f"BatchSchedule.final = {self.final} is one change of size and BatchSchedule.changes = "
                f"{spelled(self.changes)} are all of them; leave one of the two out"
            )

    @functools.cached_property
    def _pieces(self) -> tuple[_Steps, ...]:
        """The steps of each size, in their order, without sizes that no step has."""
        changes = [(self.ramp_samples, self.final)] if self.final is not None else self.changes
        step, sample, size = 0, 0, self.initial
        pieces: list[_Steps] = []
        for start, next_size in changes:
            steps = max(0, -((sample - start) // size))
            if steps:
                pieces.append(_Steps(step, sample, size))
            step, sample, size = step + steps, sample + steps * size, next_size
        return (*pieces, _Steps(step, sample, size))

    @functools.cached_property
    def _first_steps(self) -> list[int]:
        return [piece.first_step for piece in self._pieces]

    @functools.cached_property
    def _first_samples(self) -> list[int]:
        return [piece.first_sample for piece in self._pieces]

    @property
    def final_size(self) -> int:
        """The batch size after the last change."""
        return self._pieces[-1].size

    @property
    def sizes(self) -> frozenset[int]:
        """Every batch size that there will be."""
        return frozenset(piece.size for piece in self._pieces)

    @property
    def ramp_steps(self) -> int:
        """The number of steps before the last change of size (1,678,000 for 8B, 523,518 for 70B)."""
        return self._pieces[-1].first_step

    def sizes_between(self, first_step: int, stop_step: int) -> frozenset[int]:
        """Returns the batch sizes of the steps from `first_step` up to, without, `stop_step`."""
        ends = [*self._first_steps[1:], None]
        return frozenset(
            piece.size
            for piece, end in zip(self._pieces, ends, strict=True)
            if max(piece.first_step, first_step) < (stop_step if end is None else min(end, stop_step))
        )

    def counted_from(self, samples: int) -> BatchSchedule:
        """Returns the schedule that is left after so many samples, as if steps and samples began at 0 there."""
        if self.final is not None:
            return dataclasses.replace(self, ramp_samples=max(0, self.ramp_samples - samples))
        passed = [size for start, size in self.changes if start <= samples]
        left = tuple((start - samples, size) for start, size in self.changes if start > samples)
        return BatchSchedule(passed[-1] if passed else self.initial, changes=left)

    def size_at(self, step: int) -> int:
        """Returns the global batch size of `step`."""
        return self._pieces[bisect.bisect_right(self._first_steps, step) - 1].size

    def first_sample(self, step: int) -> int:
        """Returns the samples consumed before `step`, which is also the number of its first sample."""
        piece = self._pieces[bisect.bisect_right(self._first_steps, step) - 1]
        return piece.first_sample + (step - piece.first_step) * piece.size

    def step_of_sample(self, sample: int) -> int:
        """Returns the step that consumes sample number `sample`."""
        piece = self._pieces[bisect.bisect_right(self._first_samples, sample) - 1]
        return piece.first_step + (sample - piece.first_sample) // piece.size

    def total_steps(self, total_samples: int) -> int:
        """Returns the number of whole steps in `total_samples` (2,627,139 for 8B, 1,155,828 for 70B), rounded down."""
        return self.step_of_sample(total_samples)

    def describe(self) -> dict[str, Any]:
        """Returns the schedule as JSON values that `BatchSchedule` takes again; without `changes` where it has none."""
        described = {name: value for name, value in dataclasses.asdict(self).items() if name != "changes"}
        return {"initial": self.initial, "changes": list(map(list, self.changes))} if self.changes else described


def _checked_changes(changes: object) -> tuple[tuple[int, int], ...]:
    """Returns the changes as pairs of whole numbers.

    Raises:
      UserError: they are no pairs, not in order, or of no possible size.
    """
    name, checked, reached = "BatchSchedule.changes", [], 0
    require_list(name, changes)
    assert isinstance(changes, Sequence)  # by require_list
    for number, change in enumerate(changes):
        place = f"{name}[{number}]"
        require_list(place, change)
        if len(change) != 2:
            raise UserError(f"{place} = {spelled(change)} must be two numbers: samples consumed, samples of a step")
        start, size = change
        require_count(f"{place}[0]", start, at_least=1)
        require_whole_number(f"{place}[1]", size, at_least=1, at_most=LARGEST_BATCH)
        if start <= reached:
            raise UserError(f"{place} = {spelled(change)} begins at or before the change ahead of it; sort them")
        checked.append((int(start), int(size)))
        reached = start
    return tuple(checked)

"""Experiment trackers: where the figures of a run go while it trains, beside `metrics.jsonl`, which is its own record.

`TrainingConfig.trackers = [@TensorBoardTracker(), @WandbTracker()]`; docs/plugins.md writes one of one's own. They are
told figures and never touch the state, so a run has the same bits with any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.training.records.telemetry import TensorBoardLog
from apertus_jax.validation import fields_by_annotation

MEMBERS = ("name", "keeps_points", "open", "write", "close")


@dataclasses.dataclass(frozen=True)
class Point:
    """Figures after `step` steps, by tag: `train/loss`, `evaluation/held_out/bits_per_byte`."""

    step: int
    figures: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """View of a run for trackers.

    Attributes:
      folder: the run folder; a tracker may write below a name of its own there that begins with `tracker_`.
      name: what people call the run.
      identifier: hexadecimal text that this run has at every start and no other run has.
      bindings: the configuration in effect, gin name → value as gin spells it.
      first_step: how many steps the run has done at this start.
      total_steps: how many it will do.
      points: all that was logged up to `first_step`, in order.
    """

    folder: epath.Path
    name: str
    identifier: str
    bindings: Mapping[str, str]
    first_step: int
    total_steps: int
    points: Sequence[Point]


class Tracker(Protocol):
    """A place that figures are written to, by the first process of a job alone.

    Names of classes that implement it end in `Tracker`: what gin binds to those may change between two starts of one
    run. A run that is killed does the steps after its last checkpoint again; that no point is there twice is kept so:

    - `keeps_points = False`: at each start the tracker begins anew with `run.points`, as a file that is written again.
    - `keeps_points = True`: what it was told stays, as in a service. Each point is given to it once over all starts; a
      tracker that is bound to a run later is first given what was logged before.

    Some have more, looked for by name: `check()` raises UserError where the tracker cannot work, before a run begins.
    What a tracker raises later ends the run with a line that names it; the run can go on from its last checkpoint.

    Attributes:
      name: unique among the trackers of a run, and the same at every start.
      keeps_points: see above.
    """

    name: str
    keeps_points: bool

    def open(self, run: TrackedRun) -> None:
        """Begins, before the first step of this start."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Takes figures by tag after `step` steps; steps ascend, and one step may come twice with other tags."""

    def close(self) -> None:
        """Ends, also after an error."""


@dataclasses.dataclass(eq=False)
@fields_by_annotation
class TensorBoardTracker:
    """TensorBoard event files in the run folder, without TensorFlow."""

    name: ClassVar[str] = "tensorboard"
    keeps_points: ClassVar[bool] = False

    def open(self, run: TrackedRun) -> None:
        """Writes everything up to the first step into one file, see `TensorBoardLog`."""
        self._log = TensorBoardLog(run.folder, run.first_step)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes one event."""
        self._log.write(step, figures)

    def close(self) -> None:
        """Closes the event file."""
        self._log.close()


def check_trackers(trackers: Sequence[Any]) -> None:
    """Raises UserError for what is no tracker, and for two of one name."""
    names = []
    for tracker in trackers:
        lacking = [member for member in MEMBERS if not hasattr(tracker, member)]
        if lacking or isinstance(tracker, type):
            kind = tracker.__name__ if isinstance(tracker, type) else type(tracker).__name__
            what = f"lacks {', '.join(lacking)}" if lacking else f"is a class; write @{kind}() with brackets"
            raise UserError(f"{kind} in TrainingConfig.trackers {what}; see apertus_jax/training/trackers.py")
        if not isinstance(tracker.name, str) or not tracker.name:
            raise UserError(f"the tracker {type(tracker).__name__} has the name {tracker.name!r}; give it a text")
        if tracker.name in names:
            raise UserError(f"two of TrainingConfig.trackers are called {tracker.name!r}; give them different names")
        names.append(tracker.name)
        getattr(tracker, "check", lambda: None)()

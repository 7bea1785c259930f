"""Limits of a job: how long its processes wait for each other, and how long a step and a save may take."""

from __future__ import annotations

import dataclasses
from typing import Literal

from apertus_jax.training.config import free_to_change
from apertus_jax.validation import fields_by_annotation, require_number

SHORTEST_LOST_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class JobLimits:
    """Times after which a job does not wait any longer, in seconds; no bit of the result depends on them.

    Attributes:
      start_seconds: for all processes to connect.
      lost_seconds: after one process died or stalled, within this time all others end with status 75 (see
        `REQUEUE_STATUS`) and a line that names it.
      end_seconds: how long a process that is done waits for the others.
      step_seconds: a step that takes longer is stuck: the stacks of all threads go to standard error; None: never.
      on_stuck: what is done then besides: "tell" a line, or "end" with status 75.
      save_seconds: a save that a signal or the file `exit` asked for has this time, or the process ends with status 75
        without it; None waits.
    """

    start_seconds: float = free_to_change(300.0)
    lost_seconds: float = free_to_change(100.0)
    end_seconds: float = free_to_change(300.0)
    step_seconds: float | None = free_to_change(None)
    on_stuck: Literal["tell", "end"] = free_to_change("tell")
    save_seconds: float | None = free_to_change(None)

    def __post_init__(self) -> None:
        require_number("JobLimits.lost_seconds", self.lost_seconds, at_least=SHORTEST_LOST_SECONDS)
        for name in ("start_seconds", "end_seconds"):
            require_number(f"JobLimits.{name}", getattr(self, name), at_least=1)
        for name in ("step_seconds", "save_seconds"):
            require_number(f"JobLimits.{name}", getattr(self, name), above=0, optional=True)

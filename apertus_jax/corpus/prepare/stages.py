"""Stages of `prepare`, in one table: plan → score → aggregate → decide → select → apply → finish.

A stage either writes one committed folder per unit, so that tasks can share the units, or sees the whole corpus at
once. Its folder lies in the work folder under a name that says what decided its content; that of `apply` and `finish`
is the output folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from apertus_jax.corpus.prepare.corpus_stages import AggregateStage, FinishStage, SelectStage
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.unit_stages import ApplyStage, DecideStage, ScoreStage


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the table.

    Attributes:
      name: what `prepare --stage` calls it.
      make: (preparation, the stages of the preparation by name) → the stage; None for the plan, which is made before.
      after: the stage that must be complete before this one begins.
      per_unit: whether it is done unit by unit; else it sees the whole corpus.
    """

    name: str
    make: Callable[[Preparation, Any], Any] | None = None
    after: str = ""
    per_unit: bool = False


STAGES = (
    Stage("plan"),
    Stage("score", ScoreStage, after="plan", per_unit=True),
    Stage("aggregate", AggregateStage, after="score"),
    Stage("decide", DecideStage, after="aggregate", per_unit=True),
    Stage("select", SelectStage, after="decide"),
    Stage("apply", ApplyStage, after="select", per_unit=True),
    Stage("finish", FinishStage, after="apply"),
)
ORDER = tuple(stage.name for stage in STAGES)


class Stages:
    """The stages of a preparation by name; each is made once in a process, and keeps what it has read."""

    def __init__(self, preparation: Preparation):
        self.preparation = preparation
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Returns a stage; it has `folder`, `kind`, `inputs` and `write`, see `unit_stages` and `corpus_stages`."""
        if name not in self._made:
            make = next(stage.make for stage in STAGES if stage.name == name)
            assert make is not None  # the plan is made before there are stages
            self._made[name] = make(self.preparation, self)
        return self._made[name]

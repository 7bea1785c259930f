"""Evaluation callbacks during training, every so many tokens, between steps.

The protocol lives here and the evaluators elsewhere, because training imports none of them. They read parameters and
never touch the state, the compiled step or the order of the data, so a run has the same bits with and without them.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from apertus_jax import sharding
from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.training.program import Program
from apertus_jax.training.run import ResolvedSchedule
from apertus_jax.validation import spelled

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ModelView:
    """View of a run for evaluators.

    Attributes:
      config: the architecture.
      params: the parameters on the devices; the next step overwrites them, so nothing may keep them.
      mesh: the devices; in a job of several processes every process calls the evaluator.
      axis_rules: how named axes are split over `mesh`.
      store: the token store that the run reads.
    """

    config: ModelConfig
    params: Any
    mesh: Mesh
    axis_rules: sharding.AxisRules
    store: TokenStore


class Evaluator(Protocol):
    """A callback of the training loop.

    Names of classes that implement it end in `Evaluator`: what gin binds to those may change between two starts of one
    run, because no bit of the run depends on them.

    Attributes:
      name: what its results are filed under; unique in a run.
      every_tokens: it runs after each step at which another multiple of so many trained tokens is reached, and after
        the last step.
    """

    name: str
    every_tokens: int

    def prepare(self, view: ModelView) -> None:
        """Loads what it needs, before the first step. Raises UserError when it cannot do its work on this run."""

    def __call__(self, view: ModelView, consumed: int) -> dict[str, float]:
        """Returns metrics by name after `consumed` trained tokens; `loss/Latn` is the part `Latn` of `loss`."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of one evaluator after one step."""

    name: str
    step: int
    tokens: int
    metrics: dict[str, float]
    seconds: float


def check_evaluators(evaluators: Sequence[Evaluator]) -> None:
    """Raises UserError when two evaluators have the same name, or one is to run every 0 tokens."""
    names = [evaluator.name for evaluator in evaluators]
    for evaluator in evaluators:
        if names.count(evaluator.name) > 1:
            raise UserError(f"two of pretrain.evaluators are called {evaluator.name!r}; give them different names")
        if evaluator.every_tokens < 1:
            raise UserError(f"every_tokens={evaluator.every_tokens} of {evaluator.name!r} must be at least 1")


class EvaluationSchedule:
    """Schedule of evaluators: which runs after which step."""

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        program: Program,
        store: TokenStore,
        schedule: ResolvedSchedule,
    ):
        self._evaluators = tuple(evaluators)
        self._program = program
        self._store = store
        self._schedule = schedule

    def tokens_after(self, step: int) -> int:
        """Returns how many tokens have been trained on after `step` steps."""
        return self._schedule.batches.tokens_before(step)

    def due_after(self, step: int) -> list[Evaluator]:
        """Returns the evaluators that run after `step` steps."""
        if step == 0:
            return []
        before, now = self.tokens_after(step - 1), self.tokens_after(step)
        return [
            evaluator
            for evaluator in self._evaluators
            if step == self._schedule.total_steps or now // evaluator.every_tokens > before // evaluator.every_tokens
        ]

    def prepare(self, params: Any) -> None:
        """Has every evaluator load what it needs."""
        for evaluator in self._evaluators:
            evaluator.prepare(self._view(params))

    def run(self, evaluator: Evaluator, params: Any, step: int) -> Evaluation:
        """Runs one evaluator on the parameters after `step` steps."""
        jax.block_until_ready(params)  # the time of the steps before is not the evaluator's
        started = time.monotonic()
        tokens = self.tokens_after(step)
        found = evaluator(self._view(params), tokens)
        try:
            metrics = {name: float(value) for name, value in found.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"the evaluator {evaluator.name!r} gives {spelled(found)}; it must give numbers by name"
            ) from error
        seconds = time.monotonic() - started
        _log.info("evaluated %s after step %d in %.1f s", evaluator.name, step, seconds)
        return Evaluation(evaluator.name, step, tokens, metrics, seconds)

    def _view(self, params: Any) -> ModelView:
        program = self._program
        return ModelView(program.config, params, program.mesh, program.rules, self._store)

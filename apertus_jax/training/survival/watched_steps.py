"""Watched steps: runs the steps of a loop and looks at those that its settings name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from apertus_jax.training.evaluators import Evaluation
from apertus_jax.training.run import TrainingRun
from apertus_jax.training.state import TrainState
from apertus_jax.training.survival import layer_figures
from apertus_jax.training.survival.profiler_window import ProfilerWindow
from apertus_jax.training.survival.replay_check import checked_step
from apertus_jax.training.survival.step_watchdog import StepWatchdog


class WatchedSteps:
    """The steps of one start: watchdog, replay check, profiler window and figures of layers; a context manager.

    Attributes:
      watchdog: of this process; what is no step runs under its `paused`.
      data_seconds: for how long the loop has waited for batches since the last row.
      figures: of the layers at the last step, None when they are not due.
    """

    def __init__(self, run: TrainingRun, first_step: int):
        self._run = run
        self._compiled: set[int] = set()
        self._done = first_step
        self._profiler = ProfilerWindow(run.folder.path, run.supervision.watch)
        self._stack = contextlib.ExitStack()
        self.watchdog = StepWatchdog(run.supervision.limits, run.folder.checkpoints, first_step=first_step)
        self.data_seconds = 0.0
        self.figures: Evaluation | None = None

    def __enter__(self) -> WatchedSteps:
        self._stack.enter_context(self.watchdog)
        self._stack.enter_context(self._profiler)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def timed(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Passes batches through and adds up the time that the loop waits for them."""
        source = iter(batches)
        while True:
            started = time.monotonic()
            batch = next(source, None)
            self.data_seconds += time.monotonic() - started
            if batch is None:
                return
            yield batch

    def row_written(self) -> None:
        """Begins a new row: waiting is counted from here, and the run folder is looked at for the file `profile`."""
        self.data_seconds = 0.0
        self._profiler.look_for_file()

    def step(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, jax.Array]]:
        """Runs the next step as `Program.step` does, `state` is donated.

        Raises:
          TemporaryFailure: a replay of the step had other bits.
        """
        program, watch, number = self._run.program, self._run.supervision.watch, self._done + 1
        rows = batch["tokens"].shape[0]
        if rows not in self._compiled:
            with self.watchdog.paused():
                program.compile(rows)
            self._compiled.add(rows)
        before = layer_figures.kept(state.params) if _due(number, watch.layers_every) else None
        self._profiler.before(number, state.samples_consumed)
        if _due(number, watch.replay_every):
            state, metrics = checked_step(program, state, batch, number)
        else:
            state, metrics = program.step(state, batch)
        self._profiler.after(number, metrics["loss"])
        self.watchdog.begun(number, metrics["loss"])
        self._done = number
        self.figures = None if before is None else self._figures(before, state.params)
        return state, metrics

    def _figures(self, before: Any, after: Any) -> Evaluation:
        started = time.monotonic()
        program = self._run.program
        figures = layer_figures.layer_figures(before, after, program.config.xielu_beta, program.mesh)
        tokens = self._run.schedule.batches.tokens_before(self._done)
        return Evaluation(layer_figures.NAME, self._done, tokens, figures, time.monotonic() - started)


def _due(number: int, every: int) -> bool:
    return every > 0 and number % every == 0

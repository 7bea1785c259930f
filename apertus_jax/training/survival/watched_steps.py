"""Watched steps: runs the steps of a loop and looks at those that its settings name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from apertus_jax import sharding
from apertus_jax.data.loader.device_batches import put_on_devices
from apertus_jax.training.evaluators import Evaluation
from apertus_jax.training.run import TrainingRun
from apertus_jax.training.state import TrainState
from apertus_jax.training.survival import language_figures, layer_figures
from apertus_jax.training.survival.profiler_window import ProfilerWindow
from apertus_jax.training.survival.replay_check import checked_step
from apertus_jax.training.survival.step_watchdog import StepWatchdog
from apertus_jax.training.train_step import make_gradients


class WatchedSteps:
    """The steps of one start: watchdog, replay check, profiler window and figures of layers; a context manager.

    Attributes:
      watchdog: of this process; what is no step runs under its `paused`.
      data_seconds: for how long the loop has waited for batches since the last row.
      figures: of layers and of languages at the last step, as far as they are due.
    """

    def __init__(self, run: TrainingRun, first_step: int):
        self._run = run
        self._compiled: set[int] = set()
        self._done = first_step
        self._gradient_norms, self._sums_by_origin = _looks(run)
        self._profiler = ProfilerWindow(run.folder.path, run.supervision.watch)
        self._stack = contextlib.ExitStack()
        self.watchdog = StepWatchdog(run.supervision.limits, run.folder.checkpoints, first_step=first_step)
        self.data_seconds = 0.0
        self.figures: list[Evaluation] = []

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
        self.figures = []
        if _due(number, watch.languages_every):
            self.figures.append(self._by_language(state, batch))
        before, norms, seconds = None, None, 0.0
        if _due(number, watch.layers_every):
            norms, seconds = self._looked(state, batch, self._gradient_norms)
            before = layer_figures.kept(state.params)
        self._profiler.before(number, state.samples_consumed)
        if _due(number, watch.replay_every):
            state, metrics = checked_step(program, state, batch, number)
        else:
            state, metrics = program.step(state, batch)
        self._profiler.after(number, metrics["loss"])
        self.watchdog.begun(number, metrics["loss"])
        self._done = number
        if before is not None:
            self.figures.append(self._of_layers(before, state.params, norms, seconds))
        return state, metrics

    def _looked(self, state: TrainState, batch: Mapping[str, Any], function: Any, *more: Any) -> tuple[Any, float]:
        """Returns what a look at a step finds, and the seconds it took; compiling it is no step that is stuck."""
        jax.block_until_ready(state.samples_consumed)  # the time of the steps before is not the look's
        started = time.monotonic()
        with self.watchdog.paused():
            found = jax.device_get(self._run.program.look(function, state, batch, *more))
        return found, time.monotonic() - started

    def _of_layers(self, before: Any, after: Any, norms: Mapping[str, Any] | None, seconds: float) -> Evaluation:
        jax.block_until_ready(after)
        started = time.monotonic() - seconds
        program = self._run.program
        figures = layer_figures.layer_figures(before, after, program.config.xielu_beta, program.mesh, norms)
        return self._evaluation(layer_figures.NAME, self._done, figures, started)

    def _by_language(self, state: TrainState, batch: Mapping[str, Any]) -> Evaluation:
        program, origins, size = self._run.program, self._run.origins, batch["tokens"].shape[0]
        rows = {"origins": origins.of_samples(batch["sample_ids"])}  # those of this process
        placed = put_on_devices(rows, program.batch_sharding, size, sharding.rows_of_process(program.mesh, size))
        (losses, labels), seconds = self._looked(state, batch, self._sums_by_origin, placed["origins"])
        started = time.monotonic() - seconds
        figures = language_figures.language_figures(origins.origins, losses, labels)
        return self._evaluation(language_figures.NAME, self._done + 1, figures, started)

    def _evaluation(self, name: str, step: int, figures: dict[str, float], started: float) -> Evaluation:
        tokens = self._run.schedule.batches.tokens_before(step)
        return Evaluation(name, step, tokens, figures, time.monotonic() - started)


def _looks(run: TrainingRun) -> tuple[Any, Any]:
    """Returns the functions that look at a step: gradient norms, sums by origin; None where nobody asks for them."""
    program, watch = run.program, run.supervision.watch
    config, objective, accumulation = program.config, program.objective, program.accumulation
    norms = sums = None
    if watch.layers_every:
        gradients = make_gradients(config, objective, accumulation, program.batch_shards)
        norms = layer_figures.make_gradient_norms(gradients)
    if watch.languages_every:
        count = len(run.origins.origins)
        sums = language_figures.make_sums_by_origin(config, objective, accumulation, count)
    return norms, sums


def _due(number: int, every: int) -> bool:
    return every > 0 and number % every == 0

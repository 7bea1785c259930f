"""Local runs of a sweep: one after another in this process, compiled programs shared, failures kept and passed over."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import traceback
from collections.abc import Sequence
from typing import Any

import gin
from etils import epath

from apertus_jax import clock, configuration
from apertus_jax.configuration.modules import failure_of_module
from apertus_jax.process.failures import as_user_error
from apertus_jax.process.malloc_trim import return_freed_memory
from apertus_jax.storage.artifacts import write_atomically
from apertus_jax.sweeps.planned_runs import COMMAND, PlannedRun
from apertus_jax.sweeps.sweep_folder import FAILURES_FOLDER
from apertus_jax.terminal.screen import Screen
from apertus_jax.terminal.terminal_text import one_line
from apertus_jax.training.compiled_steps import CompiledSteps
from apertus_jax.training.run import Caller

FINISHED, FINISHED_BEFORE, STOPPED, FAILED, NOT_BEGUN = "finished", "finished before", "stopped", "failed", "not begun"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of one run of a sweep.

    Attributes:
      name: of the run.
      state: finished, finished before, stopped, failed or not begun.
      summary: what `pretrain` returned; empty for a run that failed.
      error: one line, of a run that failed.
      seconds: that this start of it took.
    """

    name: str
    state: str
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


def perform(runs: Sequence[PlannedRun], root: epath.Path, programs: CompiledSteps) -> list[Outcome]:
    """Trains every run that is not finished, in order; what fails is kept, and the next one begins.

    A run that was asked to stop (by a signal or the file `exit` in its folder) stops the whole sweep: the same command
    goes on from there.
    """
    console, outcomes = Screen(stderr=True), []
    for number, run in enumerate(runs, 1):
        console.rule(f"{number}/{len(runs)} {run.name}")
        outcome = _perform_one(run, root, programs)
        outcomes.append(outcome)
        if outcome.state == STOPPED and not _was_to_stop(outcome):
            outcomes += [Outcome(each.name, NOT_BEGUN) for each in runs[number:]]
            break
        return_freed_memory()
    return outcomes


def _perform_one(run: PlannedRun, root: epath.Path, programs: CompiledSteps) -> Outcome:
    """Trains one run in this process; whatever it raises is its outcome, an interruption excepted."""
    failure = root / FAILURES_FOLDER / f"{run.name}.json"
    finished_before, started = run.is_finished(), time.monotonic()
    try:
        run.configure()
        summary = gin.get_configurable(COMMAND)(caller=Caller(compiler=programs.compile))
    except Exception as error:
        line = _told(error, run.name)
        _log.error("run %s failed: %s", run.name, line)
        failure.parent.mkdir(parents=True, exist_ok=True)
        told = {"error": line, "time": clock.now().isoformat(), "traceback": traceback.format_exc()}
        write_atomically(failure, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        return Outcome(run.name, FAILED, error=line, seconds=time.monotonic() - started)
    failure.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    if not summary.get("finished"):
        return Outcome(run.name, STOPPED, summary, seconds=seconds)
    return Outcome(run.name, FINISHED_BEFORE if finished_before else FINISHED, summary, seconds=seconds)


def _told(error: Exception, name: str) -> str:
    told = as_user_error(error, name)
    if told is not None:
        return one_line(told)
    return failure_of_module(error) or f"internal error: {type(error).__name__}: {one_line(error)}"


def _was_to_stop(outcome: Outcome) -> bool:
    """Returns whether the run stopped where `RunSchedule.stop_step` says, and not because someone asked."""
    stop_step = configuration.built_arguments(COMMAND)["schedule"].stop_step
    return stop_step is not None and outcome.summary["step"] >= stop_step

"""Training loop: steps, metrics, evaluations, checkpoints, and preemption."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.data.loader.device_batches import DeviceBatches
from apertus_jax.data.sample_order.batch_history import BatchHistory
from apertus_jax.errors import TemporaryFailure
from apertus_jax.optimization import sample_count_to_int
from apertus_jax.training.evaluators import EvaluationSchedule
from apertus_jax.training.multihost import any_process, is_first, meet
from apertus_jax.training.preemption import StopRequests
from apertus_jax.training.records.recorder import Recorder
from apertus_jax.training.run import TrainingRun
from apertus_jax.training.state import TrainState
from apertus_jax.training.survival.stop_agreement import StopAgreement
from apertus_jax.training.survival.watched_steps import WatchedSteps

SAVE_ATTEMPTS = 3
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class LoopState:
    """State of the loop: train state after `step` steps, and the metrics of steps not yet written as a row."""

    state: TrainState
    step: int
    stopped_by: str | None
    pending: list[dict[str, float]]


def train(
    run: TrainingRun,
    start: LoopState,
    batches: DeviceBatches,
    checkpoints: Checkpointer,
    evaluations: EvaluationSchedule,
    agreement: StopAgreement | None = None,
) -> LoopState:
    """Runs the steps from `start.step` to the end of the run, saving on schedule, on request, and before a stop.

    With no step left it only brings the outputs to where the state stands: a run may be ended at an earlier checkpoint.

    The order within a step is what makes a kill at any moment harmless:

      1. The step itself. Its state is donated, so from here on only the new one exists.
      2. The row of the log, every `log_every` steps, after all metrics since the last have come to the host. That is
         also where a run of steps that were not finite ends, before such a state can be saved.
      3. Requests to stop. Who asks may be about to kill, so 4 is left out then; the next start makes up for it.
      4. Evaluations, between steps.
      5. The checkpoint. It comes last because it vouches for a log that is complete up to its step: the next start cuts
         off what was logged after it and does those steps again. Rows of steps that belong to the next row travel in it
         as `pending`.

    Args:
      run: folder, compiled step, schedule and settings.
      start: the state that was restored or initialised; `state` is donated.
      batches: those of the steps to come; closed at the end.
      checkpoints: where states are saved; every save is committed when this returns.
      evaluations: which evaluator runs after which step.
      agreement: by which the processes of a job stop after the same step; None for one process.

    Returns:
      Where the loop stands after the last step that ran.

    Raises:
      UserError: too many steps in a row that were not finite, a full disk, or whatever an evaluator refuses.
    """
    schedule, training = run.schedule, run.training
    recorder = Recorder(run, pending=list(start.pending))
    state, step, stopped_by = start.state, start.step, None
    saved = start.step if start.step else None

    def save(wait: bool) -> None:
        nonlocal saved
        # Fetching raises when the updates were not finite: such a state is never saved as one to go on from.
        recorder.fetch(saved)
        check_samples(state, schedule.batches, step)
        metadata = {**run.metadata, "step": step, "pending": list(recorder.pending)}
        save_with_retries(checkpoints, step, state, metadata, wait)
        saved = step

    def evaluate(missing_only: bool = False) -> None:
        for evaluator in evaluations.due_after(step):
            if not (missing_only and recorder.has_evaluation(evaluator.name, step)):
                recorder.write_evaluation(evaluations.run(evaluator, state.params, step))

    evaluations.prepare(state.params)
    if step < schedule.total_steps:
        # Compiled before the outputs are opened, so that what does not compile leaves them as they were; every size of
        # batch that this start comes to, so that no step in the middle of a run waits for the compiler or fails in it.
        for size in sorted(schedule.batches.sizes_between(step, schedule.stop_step or schedule.total_steps)):
            run.program.compile(size)
        meet("compiled")
    recorder.open(step)
    try:
        with StopRequests(run.folder.path) as requests, WatchedSteps(run, step) as steps:
            if step == schedule.total_steps and recorder.pending:  # it was saved between two rows
                recorder.write_row(step)
            # Those of the checkpoint's own step that a stop or a kill had prevented.
            with steps.watchdog.paused():
                evaluate(missing_only=True)
            for batch in steps.timed(batches):
                state, metrics = steps.step(state, batch)
                # Metrics stay on the device: looking at them would make the host wait for every single step.
                recorder.add(step, metrics)
                step += 1
                at_row = step % training.log_every == 0 or step == schedule.total_steps
                if at_row:
                    recorder.fetch(saved)
                    recorder.data_seconds = steps.data_seconds
                    recorder.write_row(step)
                    steps.row_written()
                for figures in steps.figures:
                    recorder.write_evaluation(figures)
                if agreement is None:
                    stopped_by = requests.stop_reason()
                else:  # all processes of a job have to stop after the same step; folders may be slow, and are shared
                    asked = requests.stop_reason(look_at_files=at_row and is_first())
                    stopped_by = agreement.reached(step, asked)
                if step == schedule.stop_step and stopped_by is None:
                    stopped_by = f"RunSchedule.stop_step = {schedule.stop_step}"
                if stopped_by is None:
                    with steps.watchdog.paused():
                        evaluate()
                if step == schedule.total_steps or stopped_by is not None:
                    break
                # Not waited for: files are written while the next steps run.
                if step % training.checkpoint_every == 0 or (at_row and any_process(requests.save_requested())):
                    with steps.watchdog.paused():
                        save(wait=False)
            # The step that ends the loop leaves it before the save above. `saved` equals it only when no step ran at
            # all, because the state was restored from this very checkpoint.
            bound = run.supervision.limits.save_seconds if stopped_by is not None else None
            with steps.watchdog.paused(), steps.watchdog.bounded(f"saving step {step}", bound):
                if saved != step:
                    save(wait=True)
                checkpoints.wait()
    finally:
        batches.close()
        recorder.close()
    return LoopState(state, step, stopped_by, recorder.pending)


def save_with_retries(
    checkpoints: Checkpointer, step: int, state: TrainState, metadata: Mapping[str, Any], wait: bool
) -> None:
    """Saves a state; where storage failed for a moment, again. What a save before it lost, this one makes good.

    Raises:
      UserError: it failed for good. In a job of several processes every failure is: they start again together.
    """
    attempts = SAVE_ATTEMPTS if jax.process_count() == 1 else 1
    for attempt in range(attempts):
        try:
            checkpoints.save(step, state, metadata, wait=wait)
            return
        except TemporaryFailure as error:
            if attempt == attempts - 1:
                raise
            _log.warning("%s; saving step %d, attempt %d of %d", error, step, attempt + 2, attempts)


def check_samples(state: TrainState, history: BatchHistory, step: int) -> None:
    """Raises RuntimeError unless the state has consumed what history says of `step` steps: one count for everything."""
    consumed, expected = samples_of(state), history.first_sample(step)
    if consumed != expected:
        raise RuntimeError(f"the state after step {step} has consumed {consumed} samples, the data says {expected}")


def samples_of(state: TrainState) -> int:
    """Returns how many samples a state has consumed; every process has the number."""
    return sample_count_to_int(jax.device_get(state.samples_consumed))

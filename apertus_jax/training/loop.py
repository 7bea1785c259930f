"""The loop: steps, numbers, checkpoints, and orderly stops."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.data import BatchSchedule
from apertus_jax.data.device_batches import DeviceBatches
from apertus_jax.errors import UserError
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.evaluators import Evaluation, EvaluationSchedule
from apertus_jax.training.flops import train_flops_per_token
from apertus_jax.training.processes import any_process, is_first
from apertus_jax.training.program import Program
from apertus_jax.training.state import TrainState
from apertus_jax.training.stopping import StopRequests
from apertus_jax.training.telemetry import MetricsLog, ProgressLine, TensorBoardLog, read_evaluations

AVERAGED = ("loss", "gradient_norm", "update_norm", "kept_fraction")
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class LoopResult:
    """Where the loop stands: the state after `step` steps, and the metrics of steps not yet written as a row."""

    state: TrainState
    step: int
    stopped_by: str | None
    pending: list[dict[str, float]]


@dataclasses.dataclass
class Recorder:
    """Turns the metrics of single steps into rows: each row averages the steps since the row before."""

    folder: epath.Path
    program: Program
    batch_schedule: BatchSchedule
    learning_rate: Any
    training: TrainingConfig
    total_steps: int
    pending: list[dict[str, float]]
    on_device: list[tuple[int, Mapping[str, jax.Array]]] = dataclasses.field(default_factory=list)
    skipped_in_a_row: int = 0

    def open(self, first_step: int) -> None:
        """Opens the outputs; rows beyond `first_step` are cut off, because those steps run again."""
        self._is_writer = is_first()
        if self._is_writer:
            self._metrics = MetricsLog(self.folder, first_step)
            self._tensorboard = TensorBoardLog(self.folder, first_step)
            self._evaluated = {(row["evaluator"], row["step"]) for row in read_evaluations(self.folder)}
        self._progress = ProgressLine(self.total_steps, first_step, enabled=self._is_writer)
        self._flops_per_token = train_flops_per_token(self.program.config, self.program.sequence_length)
        self._row_started = time.monotonic()
        self._steps_timed = 0

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Keeps the metrics of a step on the device until someone needs them."""
        self.on_device.append((step, metrics))
        self._steps_timed += 1

    def fetch(self, last_good: int | None) -> None:
        """Brings metrics to the host and stops the run when too many steps in a row were not finite.

        Raises:
          UserError: names step, samples and the last good checkpoint.
        """
        for step, metrics in self.on_device:
            row = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if row["skipped"] else 0
            if self.skipped_in_a_row > self.training.max_skipped_in_a_row:
                self.on_device = []
                raise UserError(self._not_finite(step, row, last_good))
            self.pending.append(row)
        self.on_device = []

    def _not_finite(self, step: int, row: Mapping[str, float], last_good: int | None) -> str:
        first = self.batch_schedule.first_sample(step)
        last = first + self.batch_schedule.size_at(step) - 1
        good = "none was written yet" if last_good is None else f"step {last_good} in {self.folder / 'checkpoints'}"
        return (
            f"step {step} gave loss {row['loss']}, gradient norm {row['gradient_norm']} and update norm "
            f"{row['update_norm']} on samples {first} to "
            f"{last}; its update was not applied; the last good checkpoint is {good}; lower the learning rate, look at "
            "these samples, or set TrainingConfig.max_skipped_in_a_row to go on past them"
        )

    def write_row(self, step: int) -> None:
        """Writes the row of the steps up to `step` (a count) to all outputs."""
        seconds = max(time.monotonic() - self._row_started, 1e-9)
        length = self.program.sequence_length
        last = step - 1
        tokens_timed = self._steps_timed * self.batch_schedule.size_at(last) * length
        finite = [row for row in self.pending if not row["skipped"]] or self.pending
        samples = self.batch_schedule.first_sample(step)
        row = {
            "step": step,
            "samples": samples,
            "tokens": samples * length,
            **{name: float(np.mean([entry[name] for entry in finite])) for name in AVERAGED},
            "skipped": int(sum(entry["skipped"] for entry in self.pending)),
            "learning_rate": learning_rate_at(self.learning_rate, self.batch_schedule.first_sample(last)),
            "tokens_per_second": tokens_timed / seconds,
            "model_flops_per_second": tokens_timed * self._flops_per_token / seconds,
            "seconds_left": (self.total_steps - step) * seconds / max(self._steps_timed, 1),
        }
        self.pending = []
        self._steps_timed = 0
        self._row_started = time.monotonic()
        if self._is_writer:
            self._metrics.write(row)
            self._tensorboard.write(step, {f"train/{k}": v for k, v in row.items() if k != "step"})
        self._progress.update(row)

    def has_evaluation(self, name: str, step: int) -> bool:
        """Returns whether a start of the run before this one wrote that evaluation. Every process must call it."""
        return any_process(self._is_writer and (name, step) in self._evaluated)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes the result of an evaluator to all outputs; its time does not count as time of the steps."""
        self._row_started += evaluation.seconds
        if self._is_writer:
            row = dataclasses.asdict(evaluation)
            self._metrics.write({"step": row.pop("step"), "evaluator": row.pop("name"), **row})
            tagged = {f"evaluation/{evaluation.name}/{name}": value for name, value in evaluation.metrics.items()}
            self._tensorboard.write(evaluation.step, tagged)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items() if "/" not in name)
        self._progress.note(f"step {evaluation.step}/{self.total_steps}  {evaluation.name}: {shown}")

    def close(self) -> None:
        """Closes the outputs."""
        self._progress.close()
        if self._is_writer:
            self._metrics.close()
            self._tensorboard.close()


def learning_rate_at(learning_rate: Any, samples: int) -> float:
    """Returns the learning rate of a step that begins with `samples` consumed."""
    return float(learning_rate(samples)) if callable(learning_rate) else float(learning_rate)


def train(
    program: Program,
    start: LoopResult,
    batches: DeviceBatches,
    checkpoints: Checkpointer,
    folder: epath.Path,
    batch_schedule: BatchSchedule,
    learning_rate: Any,
    training: TrainingConfig,
    total_steps: int,
    metadata: Mapping[str, Any],
    evaluations: EvaluationSchedule,
) -> LoopResult:
    """Runs steps `start.step … total_steps - 1`, saving on schedule, on request, and before an orderly stop.

    Evaluators run between steps and before the checkpoint of the same step; an evaluation that an orderly stop or a
    kill prevented is made up for at the next start. `batches` is closed at the end. Returns the state after the last
    step that ran.
    """
    recorder = Recorder(
        folder, program, batch_schedule, learning_rate, training, total_steps, pending=list(start.pending)
    )
    state, step, stopped_by = start.state, start.step, None
    saved = start.step if start.step else None

    def save(wait: bool) -> None:
        nonlocal saved
        recorder.fetch(saved)
        checkpoints.save(step, state, {**metadata, "step": step, "pending": list(recorder.pending)}, wait=wait)
        saved = step

    def evaluate(missing_only: bool = False) -> None:
        for evaluator in evaluations.due_after(step):
            if not (missing_only and recorder.has_evaluation(evaluator.name, step)):
                recorder.write_evaluation(evaluations.run(evaluator, state.params, step))

    evaluations.prepare(state.params)
    program.compile(batch_schedule.size_at(step))
    recorder.open(step)
    try:
        with StopRequests(folder) as requests:
            evaluate(missing_only=True)
            for batch in batches:
                state, metrics = program.step(state, batch)
                recorder.add(step, metrics)
                step += 1
                at_row = step % training.log_every == 0 or step == total_steps
                if at_row:
                    recorder.fetch(saved)
                    recorder.write_row(step)
                if jax.process_count() == 1 or at_row:
                    reason = requests.stop_reason()
                    if any_process(reason is not None):
                        stopped_by = reason or "another process"
                if stopped_by is None:
                    evaluate()
                if step == total_steps or stopped_by is not None:
                    break
                if step % training.checkpoint_every == 0 or (at_row and any_process(requests.save_requested())):
                    save(wait=False)
            if saved != step:
                save(wait=True)
            checkpoints.wait()
    finally:
        batches.close()
        recorder.close()
    return LoopResult(state, step, stopped_by, recorder.pending)

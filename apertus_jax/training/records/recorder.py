"""Recorder: metrics of steps averaged into logged rows, evaluations, and the guard against non-finite steps."""

from __future__ import annotations

import bisect
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.training.evaluators import Evaluation
from apertus_jax.training.multihost import any_process, is_first
from apertus_jax.training.planning.devices import peak_flops_per_second
from apertus_jax.training.planning.flops import train_flops_per_token
from apertus_jax.training.records.goodput import StartsLog
from apertus_jax.training.records.telemetry import (
    MetricsLog,
    ProgressLine,
    read_evaluations,
    read_metrics,
    read_rows,
)
from apertus_jax.training.records.tracking import Tracking
from apertus_jax.training.run import TrainingRun

AVERAGED = ("loss", "gradient_norm", "update_norm", "kept_fraction")
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Recorder:
    """Turns the metrics of single steps into rows: each row averages the steps since the row before.

    `data_seconds` is how long the loop waited for batches meanwhile; the loop sets it.
    """

    run: TrainingRun
    pending: list[dict[str, float]]
    on_device: list[tuple[int, Mapping[str, jax.Array]]] = dataclasses.field(default_factory=list)
    skipped_in_a_row: int = 0
    spiked_in_a_row: int = 0
    data_seconds: float = 0.0

    def open(self, first_step: int) -> None:
        """Opens the outputs; rows beyond `first_step` are cut off, because those steps run again."""
        self._is_writer = is_first()
        if self._is_writer:
            rows = read_rows(self.run.folder.metrics)  # also those that are cut off: trackers have been told of them
            self._metrics = MetricsLog(self.run.folder.path, first_step)
            self._tracking = Tracking(self.run, first_step, rows)
            self._starts = StartsLog(self.run.folder.path, first_step)
            self._evaluated = {(row["evaluator"], row["step"]) for row in read_evaluations(self.run.folder.path)}
            if any(row["step"] == first_step for row in read_metrics(self.run.folder.path)):
                self.pending = []  # a run that ended here wrote them, and now it is longer
        self._progress = ProgressLine(self.run.schedule.total_steps, first_step, enabled=self._is_writer)
        self._flops_per_token = train_flops_per_token(self.run.program.config, self.run.program.sequence_length)
        self._peak = peak_flops_per_second(self.run.program.mesh.devices.flat)
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
            spiked = bool(row.get("spiked"))
            self.spiked_in_a_row = self.spiked_in_a_row + 1 if spiked else 0
            if spiked:
                row["at_step"] = float(step)
                self._tell_spike(step, row, last_good)
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if row["skipped"] and not spiked else 0
            if self.skipped_in_a_row > self.run.training.max_skipped_in_a_row:
                self.on_device = []
                raise UserError(self._not_finite(step, row, last_good))
            self.pending.append(row)
        self.on_device = []

    def _spike(self, row: Mapping[str, float]) -> dict[str, Any]:
        """Returns what the log says of a skipped step: it, its samples, and what it was compared with."""
        step = int(row["at_step"])
        first = self.run.schedule.batches.first_sample(step)
        last = first + self.run.schedule.batches.size_at(step) - 1
        names = ("loss", "gradient_norm", "running_loss", "running_norm")
        return {"step": step, "first_sample": first, "last_sample": last, **{name: row[name] for name in names}}

    def _tell_spike(self, step: int, row: Mapping[str, float], last_good: int | None) -> None:
        """Logs a skipped step.

        Raises:
          UserError: it is one too many in a row.
        """
        spike = self._spike(row)
        line = (
            f"step {step} was skipped as a spike: loss {row['loss']:.4g} (running mean {row['running_loss']:.4g}), "
            f"gradient norm {row['gradient_norm']:.4g} (running mean {row['running_norm']:.4g}), on samples "
            f"{spike['first_sample']} to {spike['last_sample']}"
        )
        if self.spiked_in_a_row < self.run.program.guard.max_in_a_row:
            _log.warning("%s", line)
            return
        good = "none was written yet" if last_good is None else f"step {last_good} in {self.run.folder.checkpoints}"
        self.on_device = []
        raise UserError(
            f"{line}, the {self.spiked_in_a_row}th in a row (StepGuard.max_in_a_row); the last good checkpoint is "
            f"{good}; lower the learning rate, look at these samples, or widen StepGuard"
        )

    def _not_finite(self, step: int, row: Mapping[str, float], last_good: int | None) -> str:
        first = self.run.schedule.batches.first_sample(step)
        last = first + self.run.schedule.batches.size_at(step) - 1
        good = "none was written yet" if last_good is None else f"step {last_good} in {self.run.folder.checkpoints}"
        return (
            f"step {step} gave loss {row['loss']}, gradient norm {row['gradient_norm']} and update norm "
            f"{row['update_norm']} on samples {first} to "
            f"{last}; its update was not applied; the last good checkpoint is {good}; lower the learning rate, look at "
            "these samples, or set TrainingConfig.max_skipped_in_a_row to go on past them"
        )

    def write_row(self, step: int) -> None:
        """Writes the row of the steps up to `step` (a count) to all outputs."""
        seconds = max(time.monotonic() - self._row_started, 1e-9)
        tokens = self.run.schedule.batches.tokens_before(step)
        # Steps of one row can differ in size, and steps before a resume belong to the row but not to its time.
        tokens_timed = tokens - self.run.schedule.batches.tokens_before(step - self._steps_timed)
        finite = [row for row in self.pending if not row["skipped"]] or self.pending
        row: dict[str, Any] = {
            "step": step,
            "samples": self.run.schedule.batches.first_sample(step),
            "tokens": tokens,
            **{name: float(np.mean([entry[name] for entry in finite])) for name in AVERAGED},
            "skipped": int(sum(entry["skipped"] for entry in self.pending)),
        }
        timed = self._steps_timed > 0
        if timed:  # else another start did these steps, perhaps at another rate
            row |= {
                "learning_rate": self.run.schedule.learning_rate_of(step - 1),
                "tokens_per_second": tokens_timed / seconds,
                "model_flops_per_second": tokens_timed * self._flops_per_token / seconds,
                "seconds_left": (self.run.schedule.total_steps - step) * seconds / self._steps_timed,
                "data_seconds": self.data_seconds,
            }
            if (peak := peak_device_memory(self.run.program.mesh.local_devices)) is not None:
                row["device_memory_peak"] = peak
            if self._peak is not None:  # on hardware that `devices` knows
                row["mfu"] = row["model_flops_per_second"] / self._peak
        if len(stages := self.run.stages) > 1:
            row["stage"] = bisect.bisect_right(stages, row["samples"] - 1) - 1  # of its last sample
        if spikes := [entry for entry in self.pending if entry.get("spiked")]:
            row["spikes"] = [self._spike(entry) for entry in spikes]
        self.pending = []
        self._steps_timed = 0
        self._row_started = time.monotonic()
        if self._is_writer:
            self._metrics.write(row)
            self._tracking.write(row)
            self._starts.reached(step)
        if timed:
            self._progress.update(row)

    def has_evaluation(self, name: str, step: int) -> bool:
        """Returns whether a start of the run before this one wrote that evaluation. Every process must call it."""
        return any_process(self._is_writer and (name, step) in self._evaluated)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes the result of an evaluator to all outputs; its time does not count as time of the steps."""
        self._row_started += evaluation.seconds
        if self._is_writer:
            fields = dataclasses.asdict(evaluation)
            row = {"step": fields.pop("step"), "evaluator": fields.pop("name"), **fields}
            self._metrics.write(row)
            self._tracking.write(row)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items() if "/" not in name)
        self._progress.note(f"step {evaluation.step}/{self.run.schedule.total_steps}  {evaluation.name}: {shown}")

    def close(self) -> None:
        """Closes the outputs."""
        self._progress.close()
        if self._is_writer:
            self._metrics.close()
            self._tracking.close()
            self._starts.close()


def peak_device_memory(devices: Sequence[jax.Device]) -> int | None:
    """Returns the most bytes that any of these devices had in use so far; None where devices do not say."""
    stats = [device.memory_stats() or {} for device in devices]
    return max((int(found["peak_bytes_in_use"]) for found in stats if "peak_bytes_in_use" in found), default=None)

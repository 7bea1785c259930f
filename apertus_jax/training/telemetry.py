"""What a run says while it runs: metrics.jsonl, TensorBoard events and a progress line."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from apertus_jax.artifacts import write_atomically

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Appends JSON rows to `metrics.jsonl`: one per logged step, and one per evaluation.

    A row of an evaluation has "evaluator" and its numbers under "metrics". Rows after a restored step are cut off
    first, because those steps run again.
    """

    def __init__(self, run_folder: epath.PathLike, first_step: int):
        self.path = epath.Path(run_folder) / METRICS_FILE
        kept = [row for row in _read_rows(self.path) if row["step"] <= first_step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a")

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one row and hands it to the operating system, so that a kill loses nothing that was shown."""
        self._file.write(json.dumps(_json_value(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(run_folder: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of training steps in `metrics.jsonl`; a last line that a kill cut short is left out."""
    return [row for row in _read_rows(epath.Path(run_folder) / METRICS_FILE) if "evaluator" not in row]


def read_evaluations(run_folder: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of evaluations in `metrics.jsonl`: step, tokens, evaluator, seconds, and metrics by name."""
    return [row for row in _read_rows(epath.Path(run_folder) / METRICS_FILE) if "evaluator" in row]


def _read_rows(path: epath.Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _json_value(value: Any) -> Any:
    """JSON has no NaN; a metric that is not finite is spelled as text."""
    if isinstance(value, Mapping):
        return {name: _json_value(entry) for name, entry in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoardLog:
    """Writes scalar summaries as TensorBoard event records, without TensorFlow."""

    def __init__(self, run_folder: epath.PathLike, first_step: int):
        folder = epath.Path(run_folder) / TENSORBOARD_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():020d}.from_step_{first_step}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if first_step:
            session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(wall_time=time.time(), step=first_step, session_log=session))

    def _write(self, event: event_pb2.Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one event with every scalar of a step."""
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        summary = summary_pb2.Summary(value=values)
        self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Closes the event file."""
        self._records.close()


class ProgressLine:
    """A live bar on a terminal; a plain line per logged step elsewhere."""

    def __init__(self, total_steps: int, first_step: int, enabled: bool = True):
        self._interactive = enabled and sys.stderr.isatty()
        self._enabled = enabled
        self._total_steps = total_steps
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._interactive,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=first_step, numbers="compiling")
        self._progress.start()

    def update(self, row: Mapping[str, Any]) -> None:
        """Shows the numbers of one logged step."""
        numbers = (
            f"loss {row['loss']:.4f}  grad {row['gradient_norm']:.3f}  lr {row['learning_rate']:.2e}  "
            f"{row['tokens_per_second']:,.0f} tok/s  {row['model_flops_per_second'] / 1e9:,.1f} GFLOP/s"
        )
        self._progress.update(self._task, completed=row["step"], numbers=numbers)
        if self._enabled and not self._interactive:
            eta = format_seconds(row["seconds_left"])
            print(f"step {row['step']}/{self._total_steps}  {numbers}  eta {eta}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints a line; above the bar where there is one."""
        if self._interactive:
            self._progress.console.print(text, highlight=False)
        elif self._enabled:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the bar on the screen and gives the terminal back."""
        self._progress.stop()


def format_seconds(seconds: float) -> str:
    """Spells a duration: 42s, 3m07s, 2h05m."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"

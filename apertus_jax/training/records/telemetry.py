"""Training telemetry: metrics.jsonl, TensorBoard events, the progress line, MFU."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from apertus_jax.storage.artifacts import write_atomically
from apertus_jax.storage.json_reader import JSONError, parse_json
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.terminal.progress import ProgressBars
from apertus_jax.training.records.event_files import EVENT_FILES, read_scalars

FILE_VERSION = "brain.Event:2"
FROM_STEP = "from_step"
NOT_FINITE = ("nan", "inf", "-inf")


class MetricsLog:
    """Appends JSON rows to `metrics.jsonl`: one per logged step, and one per evaluation.

    A row of an evaluation has "evaluator" and its numbers under "metrics". Rows after a restored step are cut off
    first, because those steps run again. `mfu`, model FLOP/s as a share of the devices' bfloat16 peak, is in rows of
    runs on hardware whose peak is known.
    """

    def __init__(self, run_folder: epath.PathLike, first_step: int):
        self.path = RunFolder(run_folder).metrics
        kept = [row for row in read_rows(self.path) if row["step"] <= first_step]
        write_atomically(self.path, "".join(json.dumps(json_value(row)) + "\n" for row in kept))
        self._file = self.path.open("a")

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one row and hands it to the operating system, so that a kill loses nothing that was shown."""
        self._file.write(json.dumps(json_value(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(run_folder: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of training steps in `metrics.jsonl`; a last line that a kill cut short is left out."""
    return [row for row in read_rows(RunFolder(run_folder).metrics) if "evaluator" not in row]


def read_evaluations(run_folder: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of evaluations in `metrics.jsonl`: step, tokens, evaluator, seconds, and metrics by name."""
    return [row for row in read_rows(RunFolder(run_folder).metrics) if "evaluator" in row]


def read_rows(path: epath.Path) -> list[dict[str, Any]]:
    """Returns all rows of a `metrics.jsonl`, each once."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    seen: set[tuple[Any, Any]] = set()
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            row = parse_json(line, f"{path}, line {number}", allow_nan=True)
        except JSONError:
            continue  # a kill cut it short, or it is damaged: the others still count
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            continue
        place = row["step"], row.get("evaluator")
        if place not in seen:
            seen.add(place)
            rows.append(_number_value(row))
    return rows


def json_value(value: Any) -> Any:
    """Returns a value as JSON holds it, which has no NaN: a metric that is not finite is spelled as text."""
    if isinstance(value, Mapping):
        return {name: json_value(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [json_value(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number_value(value: Any) -> Any:
    """Returns a value of a row as it was before `json_value` spelled what is not finite."""
    if isinstance(value, Mapping):
        return {name: _number_value(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_number_value(entry) for entry in value]
    return float(value) if isinstance(value, str) and value in NOT_FINITE else value


class TensorBoardLog:
    """Writes scalar summaries as TensorBoard event records, without TensorFlow.

    A run that goes on at a step first writes everything up to that step into one file and removes the older ones: the
    steps after it run again, and each point is there once, whoever reads the files. What the files of before have lost
    comes from `metrics.jsonl`.
    """

    def __init__(self, run_folder: epath.PathLike, first_step: int):
        folder = RunFolder(run_folder).tensorboard
        folder.mkdir(parents=True, exist_ok=True)
        older = sorted(folder.glob(EVENT_FILES), key=lambda path: path.name)
        name = f"events.out.tfevents.{time.time_ns():020d}"
        if first_step:
            write_atomically(
                folder / f"{name}.{FROM_STEP}_0_to_{first_step}", _events_up_to(run_folder, folder, first_step)
            )
        for path in older:
            path.unlink()
        self._file = (folder / f"{name}.{FROM_STEP}_{first_step}").open("wb")
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(wall_time=time.time(), file_version=FILE_VERSION))

    def _write(self, event: event_pb2.Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one event with every scalar of a step."""
        self._write(_event(step, time.time(), scalars))

    def close(self) -> None:
        """Closes the event file."""
        self._records.close()


def scalars_of_row(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns what TensorBoard is told of a row of `metrics.jsonl`: tag → value."""
    if "evaluator" in row:
        return {f"evaluation/{row['evaluator']}/{name}": float(value) for name, value in row["metrics"].items()}
    # Lists name single steps, which no curve shows.
    numbers = {name: value for name, value in row.items() if name != "step" and not isinstance(value, list)}
    return {f"train/{name}": float(value) for name, value in numbers.items()}


def _event(step: int, wall_time: float, scalars: Mapping[str, float]) -> event_pb2.Event:
    values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=values))


def _events_up_to(run_folder: epath.PathLike, folder: epath.Path, last_step: int) -> bytes:
    """Returns the content of an event file with every point up to a step once, in the order of steps."""
    points: dict[int, dict[str, tuple[float, float]]] = {}
    for step, wall_time, tag, value in read_scalars(folder):
        if step <= last_step:
            points.setdefault(step, {}).setdefault(tag, (wall_time, value))
    for row in read_rows(RunFolder(run_folder).metrics):
        if row["step"] <= last_step:
            for tag, value in scalars_of_row(row).items():
                points.setdefault(row["step"], {}).setdefault(tag, (time.time(), value))
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    # A TensorBoard that is open has the older files in mind: the restart makes it forget them.
    restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    records.write(event_pb2.Event(wall_time=time.time(), file_version=FILE_VERSION).SerializeToString())
    records.write(event_pb2.Event(wall_time=time.time(), step=0, session_log=restart).SerializeToString())
    for step, tags in sorted(points.items()):
        times: dict[float, dict[str, float]] = {}
        for tag, (wall_time, value) in tags.items():
            times.setdefault(wall_time, {})[tag] = value
        for wall_time, scalars in times.items():
            records.write(_event(step, wall_time, scalars).SerializeToString())
    return buffer.getvalue()


class ProgressLine:
    """A live bar on a terminal; a plain line per logged step elsewhere."""

    def __init__(self, total_steps: int, first_step: int, enabled: bool = True):
        self._enabled = enabled
        self._total_steps = total_steps
        self._bars = ProgressBars(enabled, stay=True).start()
        self._bar = self._bars.bar("step", total_steps, first_step, "compiling")

    def update(self, row: Mapping[str, Any]) -> None:
        """Shows the numbers of one logged step."""
        numbers = (
            f"loss {row['loss']:.4f}  grad {row['gradient_norm']:.3f}  lr {row['learning_rate']:.2e}  "
            f"{row['tokens_per_second']:,.0f} tok/s  {row['model_flops_per_second'] / 1e9:,.1f} GFLOP/s"
        )
        if "mfu" in row:
            numbers += f"  {row['mfu']:.1%} MFU"
        self._bar.move(row["step"], numbers)
        if self._enabled and not self._bars.shown:
            eta = format_seconds(row["seconds_left"])
            self._bars.print(f"step {row['step']}/{self._total_steps}  {numbers}  eta {eta}")

    def note(self, text: str) -> None:
        """Prints a line; above the bar where there is one."""
        if self._enabled:
            self._bars.print(text)

    def close(self) -> None:
        """Leaves the bar on the screen and gives the terminal back."""
        self._bars.stop()


def format_seconds(seconds: float) -> str:
    """Spells a duration: 42s, 3m07s, 2h05m."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"

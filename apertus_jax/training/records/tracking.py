"""Tracking of a run: figures go to its trackers, each point once over all starts."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import write_atomically
from apertus_jax.storage.json_reader import JSONError, read_json_object
from apertus_jax.training.records.telemetry import scalars_of_row
from apertus_jax.training.run import TrainingRun
from apertus_jax.training.trackers import Point, TensorBoardTracker, TrackedRun, Tracker

Row = Mapping[str, Any]
_log = logging.getLogger(__name__)


class Tracking:
    """The trackers of one start, open.

    `tracked.json` holds an identifier of the run and, for each tracker that keeps points, up to which step it has those
    of training and of each evaluator. It is written at a start alone: a row stands in metrics.jsonl before any tracker
    is told of it, so that the rows that are found there at the next start are what was told since.
    """

    def __init__(self, run: TrainingRun, first_step: int, rows: Sequence[Row]):
        """Opens the trackers; `rows` are all of metrics.jsonl, those beyond `first_step` too."""
        self._trackers = run.training.trackers
        self._marks: dict[str, dict[str, int]] = {}
        kept = [row for row in rows if row["step"] <= first_step]
        identifier = ""
        if not all(isinstance(tracker, TensorBoardTracker) for tracker in self._trackers):
            identifier = self._recall(run.folder.tracked, rows)
        self._open: list[Tracker] = []
        points = [Point(row["step"], scalars_of_row(row)) for row in kept]
        folder, steps = run.folder.path, run.schedule.total_steps
        view = TrackedRun(folder, run.name, identifier, dict(run.bindings), first_step, steps, points)
        for tracker in self._trackers:
            with _told(tracker, "open"):
                tracker.open(view)
            self._open.append(tracker)
            if tracker.keeps_points:
                self._say_what_stays(tracker, first_step)
                for row in kept:
                    self._write(tracker, row)

    def write(self, row: Row) -> None:
        """Tells every tracker of a row that stands in metrics.jsonl."""
        for tracker in self._trackers:
            self._write(tracker, row)

    def close(self) -> None:
        """Closes all trackers; what one of them raises is a warning, since it may be the second error."""
        for tracker in self._open:
            try:
                tracker.close()
            except Exception as error:
                _log.warning("the tracker %s did not close: %s: %s", tracker.name, type(error).__name__, error)
        self._open = []

    def _write(self, tracker: Tracker, row: Row) -> None:
        if tracker.keeps_points and row["step"] <= self._marks[tracker.name].get(_series(row), -1):
            return
        with _told(tracker, f"take the figures of step {row['step']}"):
            tracker.write(row["step"], scalars_of_row(row))

    def _recall(self, path: epath.Path, rows: Sequence[Row]) -> str:
        """Reads up to where each tracker was told, brings it up to this start, writes it; returns the identifier."""
        record = _read(path)
        last: dict[str, int] = {}
        for row in rows:
            last[_series(row)] = max(row["step"], last.get(_series(row), -1))
        for mark in record["trackers"].values():
            if mark["open"]:  # it was told all that was logged
                names = mark["steps"].keys() | last.keys()
                mark["steps"] = {name: max(mark["steps"].get(name, -1), last.get(name, -1)) for name in names}
                mark["open"] = False
        for tracker in self._trackers:
            if tracker.keeps_points:
                mark = record["trackers"].setdefault(tracker.name, {"steps": {}})
                mark["open"] = True
                self._marks[tracker.name] = mark["steps"]
        write_atomically(path, json.dumps(record, indent=2, sort_keys=True) + "\n")
        return record["identifier"]

    def _say_what_stays(self, tracker: Tracker, first_step: int) -> None:
        told = max(self._marks[tracker.name].values(), default=-1)
        if told > first_step:
            _log.info(
                "%s has figures up to step %d and keeps them; the steps from %d on are done again",
                tracker.name,
                told,
                first_step,
            )


def _series(row: Row) -> str:
    """Returns whose row it is: an evaluator's, by name, or "" for training's."""
    return row.get("evaluator", "")


def _read(path: epath.Path) -> dict[str, Any]:
    """Returns the content of tracked.json, a new one where there is none.

    Raises:
      UserError: it is damaged.
    """
    if not path.exists():
        return {"identifier": secrets.token_hex(8), "trackers": {}}
    try:
        record = read_json_object(path)
        trackers = record["trackers"]
        whole = isinstance(record["identifier"], str) and all(
            isinstance(mark["open"], bool) and all(type(step) is int for step in mark["steps"].values())
            for mark in trackers.values()
        )
    except (JSONError, KeyError, AttributeError, TypeError) as error:
        raise UserError(_damaged(path, str(error))) from error
    if not whole:
        raise UserError(_damaged(path, "values of another kind"))
    return record


def _damaged(path: epath.Path, why: str) -> str:
    return f"{path} is damaged ({why}); restore it, or remove it: trackers are then told everything again"


@contextlib.contextmanager
def _told(tracker: Tracker, what: str) -> Iterator[None]:
    """Turns whatever a tracker raises into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"the tracker {tracker.name} cannot {what} ({told}); mend it or leave it out of TrainingConfig.trackers, "
            "and start again: the run goes on from its last checkpoint"
        ) from error

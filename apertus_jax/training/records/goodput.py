"""Goodput: the share of a run's time, over all its starts, that went into steps which count."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.storage.json_reader import JSONError, parse_json
from apertus_jax.storage.run_folder import RunFolder

_since = time.time()  # when this process began, or ended its last run


class StartsLog:
    """Appends to `starts.jsonl` when this start began, when its steps began, and when each row was reached.

    Times are seconds since 1970 by the clock of the first process. A kill loses at most the last line.
    """

    def __init__(self, run_folder: epath.PathLike, first_step: int):
        """Opens the file; steps begin now."""
        self._path = RunFolder(run_folder).starts
        self._file = self._path.open("a")
        self._write({"event": "start", "began": _since, "time": time.time(), "step": first_step})

    def reached(self, step: int) -> None:
        """Says that so many steps are done."""
        self._write({"event": "reached", "time": time.time(), "step": step})

    def close(self) -> None:
        """Closes the file."""
        global _since
        _since = time.time()
        self._file.close()

    def _write(self, event: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()


@dataclasses.dataclass(frozen=True)
class Goodput:
    """Time of a run by what it went into, in seconds.

    Attributes:
      starts: how often it was started.
      whole: from the beginning of the first start to the last row.
      kept: in steps that count, with the evaluations and saves between them.
      again: in steps that a later start did again.
      starting: before the first step of each start: joining, reading, compiling, restoring.
      between: between two starts, and after the last row of a start that ended.
    """

    starts: int
    whole: float
    kept: float
    again: float
    starting: float
    between: float

    @property
    def share(self) -> float:
        """What share of the time counts."""
        return self.kept / self.whole if self.whole > 0 else 0.0

    def told(self) -> str:
        """Returns all of it in words."""
        parts = {"starting": self.starting, "steps done again": self.again, "between starts": self.between}
        spelled = ", ".join(f"{name} {100 * seconds / max(self.whole, 1e-9):.1f} %" for name, seconds in parts.items())
        return f"{100 * self.share:.1f} % of {self.whole:,.0f} s in {self.starts} starts ({spelled})"


def read_goodput(run_folder: epath.PathLike) -> Goodput | None:
    """Returns where the time of a run went; None where nothing is recorded. Damaged lines are passed over."""
    path = RunFolder(run_folder).starts
    if not path.exists():
        return None
    events = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            event = parse_json(line, f"{path}, line {number}")
        except JSONError:
            continue
        if isinstance(event, dict) and isinstance(event.get("time"), float) and isinstance(event.get("step"), int):
            events.append(event)
    return goodput_of(events)


def goodput_of(events: Sequence[Mapping[str, Any]]) -> Goodput | None:
    """Returns where the time went, from the lines of `starts.jsonl` in order; None when no start is among them."""
    starts: list[list[Mapping[str, Any]]] = []
    for event in events:
        if event.get("event") == "start" and isinstance(event.get("began"), float):
            starts.append([event])
        elif starts:
            starts[-1].append(event)
    if not starts:
        return None
    kept = again = starting = between = 0.0
    for number, start in enumerate(starts):
        following = starts[number + 1][0] if number + 1 < len(starts) else None
        goes_on_at = start[-1]["step"] if following is None else following["step"]
        starting += start[0]["time"] - start[0]["began"]
        good = _seconds_to(start, goes_on_at)
        kept += good
        again += start[-1]["time"] - start[0]["time"] - good
        if following is not None:
            between += max(0.0, following["began"] - start[-1]["time"])
    whole = starts[-1][-1]["time"] - starts[0][0]["began"]
    return Goodput(len(starts), whole, kept, again, starting, between)


def _seconds_to(start: Sequence[Mapping[str, Any]], step: int) -> float:
    """Returns how long a start took to reach `step`, or all of its steps when it did not; evenly within a row."""
    begun = start[0]["time"]
    for before, after in zip(start, start[1:], strict=False):
        if after["step"] > step:
            share = max(0, step - before["step"]) / (after["step"] - before["step"])
            return before["time"] - begun + share * (after["time"] - before["time"])
    return start[-1]["time"] - begun

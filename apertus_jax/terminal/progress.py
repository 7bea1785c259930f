"""Progress of commands, on standard error: bars on a terminal, elsewhere a line every so many seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

from apertus_jax.terminal.terminal_text import printable

Item = TypeVar("Item")
BAR_WIDTH = 20
LINE_SECONDS = 15.0  # between two lines where there is no terminal, or no bar on it
SILENT_LINES = 4  # so many lines are left out while nothing is known but that the command is at work

_at_work: list[ProgressBars] = []
_last_line = time.monotonic()


class Bar:
    """One bar."""

    def __init__(self, bars: Any, task: Any):
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        """Says that so many more are done."""
        self._bars.advance(self._task, count)

    def move(self, done: int, text: str = "") -> None:
        """Says how many are done, and what else there is to say about them."""
        self._bars.update(self._task, completed=done, text=text)


class ProgressBars:
    """Bars on a terminal; elsewhere the lines of a `Heartbeat`, if there is one. A context manager.

    Args:
      wanted: False shows nothing on a terminal either.
      stay: whether bars stay on the screen when their work is done.
    """

    def __init__(self, wanted: bool = True, stay: bool = False):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from apertus_jax.terminal.screen import Screen

        console = Screen(stderr=True)
        self.shown = wanted and console.is_terminal
        name, text = (TextColumn(each, markup=False) for each in ("{task.description}", "{task.fields[text]}"))
        columns = (name, MofNCompleteColumn(), BarColumn(BAR_WIDTH), text, TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=not stay, disable=not self.shown)

    def start(self) -> Self:
        """Takes the terminal; where `with` does not fit."""
        self._bars.start()
        _at_work.append(self)
        return self

    def stop(self) -> None:
        """Gives the terminal back."""
        self._bars.stop()
        if self in _at_work:
            _at_work.remove(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def bar(self, description: str, total: int | None, done: int = 0, text: str = "") -> Bar:
        """Adds a bar; `total` is None where nobody knows it."""
        return Bar(self._bars, self._bars.add_task(description, total=total, completed=done, text=text))

    def track(self, items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
        """Passes items through and shows how far they are; the bar goes with the last one."""
        task = self._bars.add_task(description, total=total, text="")
        for item in items:
            yield item
            self._bars.advance(task)
        self._bars.remove_task(task)

    def print(self, text: str) -> None:
        """Prints a line, above the bars where they are shown."""
        global _last_line
        if self.shown:
            self._bars.console.print(text, highlight=False, markup=False)
        else:
            _last_line = time.monotonic()
            print(printable(text), file=sys.stderr, flush=True)

    def told(self) -> str:
        """Returns how far the work is, in words; "" when there is none under way."""
        under_way = [task for task in self._bars.tasks if task.total is None or task.completed < task.total]
        return ", ".join(
            f"{task.description} {task.completed:,.0f}{'' if task.total is None else f' of {task.total:,.0f}'}"
            f"{' ' if task.fields['text'] else ''}{task.fields['text']}"
            for task in under_way
        )


class Heartbeat:
    """Says every so many seconds that a command is at work and how far, unless a bar shows it; a context manager.

    Args:
      command: its name.
      seconds: between two lines.
    """

    def __init__(self, command: str, seconds: float = LINE_SECONDS):
        self._command, self._seconds = command, seconds
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds):
            line = self.line()
            if line:
                print(printable(line), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Returns what there is to say now; "" when a bar or a line has just said it."""
        if any(bars.shown for bars in _at_work) or time.monotonic() - _last_line < self._seconds:
            return ""
        elapsed = time.monotonic() - self._started
        told = "; ".join(filter(None, (bars.told() for bars in _at_work)))
        if not told and elapsed < SILENT_LINES * self._seconds:
            return ""
        return f"{self._command}: {told or 'at work'}, {elapsed:,.0f} s"


def track(items: Iterable[Item], description: str, total: int, wanted: bool = True) -> Iterator[Item]:
    """Passes items through under a bar of their own."""
    with ProgressBars(wanted) as bars:
        yield from bars.track(items, description, total)

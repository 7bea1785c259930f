"""Progress of the stages on a terminal: one bar per stage, units as they are done."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, Self

logger = logging.getLogger("prepare")


class StageProgress:
    """Bars of rich on a terminal, log lines elsewhere; nothing when switched off."""

    def __init__(self, shown: bool):
        self._shown = shown
        self._bars: Any = None

    def __enter__(self) -> Self:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console(stderr=True)
            columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Opens a stage of `total` units (None: one piece of work); call what it gives after each unit."""
        if self._bars is None:
            yield lambda number: None
            return
        task = self._bars.add_task(name, total=1 if total is None else total)
        yield lambda number: self._bars.advance(task)
        if total is None:
            self._bars.advance(task)

    def note(self, text: str) -> None:
        """Says something beside the bars."""
        if self._shown:
            logger.info(text)

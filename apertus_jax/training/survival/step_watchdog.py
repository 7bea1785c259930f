"""Step watchdog: dumps the stacks of a process whose step takes too long, says so, and ends it where that is wanted."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from etils import epath

from apertus_jax.terminal.terminal_text import printable
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.requeue import end_for_requeue, restart_point

LOOKS_PER_LIMIT = 10
LONGEST_PAUSE = 1.0


class StepWatchdog:
    """Watches the steps of one process from a thread of its own; a context manager.

    Steps run on the devices after the host has asked for them, so what counts is when their results are there; time in
    which the host waits for data counts as time of the step. Where the watching thread itself does not come to run,
    because native code keeps the interpreter, a thread without the interpreter dumps the stacks after twice the limit.
    """

    def __init__(
        self,
        limits: JobLimits,
        checkpoints: epath.PathLike,
        end: Callable[[str, epath.PathLike], None] = end_for_requeue,
        stacks: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        first_step: int = 0,
    ):
        """Prepares the watch.

        Args:
          limits: how long steps and saves may take.
          checkpoints: where a restart would go on from.
          end: ends the process, see `end_for_requeue`.
          stacks: where stacks are dumped, a file of the operating system; standard error when None.
          clock: tells the time in seconds.
          first_step: how many steps are done when the first one begins.
        """
        self._limits, self._checkpoints, self._end, self._clock = limits, checkpoints, end, clock
        self._stacks = sys.__stderr__ if stacks is None else stacks
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._under_way: deque[tuple[int, Any]] = deque()  # steps whose results are not seen yet
        self._last_step, self._since = first_step, clock()
        self._paused, self._told = 0, False
        self._bounds: list[tuple[str, float, float]] = []  # what, seconds, when it is over
        given = [seconds for seconds in (limits.step_seconds, limits.save_seconds) if seconds is not None]
        self._pause = min(LONGEST_PAUSE, min(given) / LOOKS_PER_LIMIT) if given else None
        self._thread = threading.Thread(target=self._watch, name="step-watchdog", daemon=True)

    def __enter__(self) -> StepWatchdog:
        if self._pause is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._pause is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def begun(self, step: int, result: Any) -> None:
        """Takes a step that the devices were asked for, counted from 1, and an array that is there when it is done."""
        if self._limits.step_seconds is not None:
            with self._lock:
                self._under_way.append((step, result))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While the block runs nothing counts as time of a step: it compiles, evaluates or saves."""
        self._paused += 1
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1
                self._since = self._clock()

    @contextlib.contextmanager
    def bounded(self, what: str, seconds: float | None) -> Iterator[None]:
        """Ends the process for requeue when the block takes longer than `seconds`; None bounds nothing."""
        if seconds is None:
            yield
            return
        bound = (what, seconds, self._clock() + seconds)
        self._bounds.append(bound)
        try:
            yield
        finally:
            self._bounds.remove(bound)

    def look(self) -> None:
        """Looks once how far the steps are, and acts when something takes too long."""
        now = self._clock()
        for what, seconds, deadline in list(self._bounds):
            if now > deadline:
                self._dump()
                self._end(f"{what} took longer than {seconds:g} s", self._checkpoints)
        limit = self._limits.step_seconds
        with self._lock:
            while self._under_way and self._under_way[0][1].is_ready():
                self._last_step, self._since, self._told = self._under_way.popleft()[0], now, False
            stuck_for = now - self._since
            if limit is None or self._paused or self._told or stuck_for <= limit:
                return
            self._told = True
        self._dump()
        reason = f"step {self._last_step + 1} takes {stuck_for:.1f} s, JobLimits.step_seconds = {limit:g}; the stacks "
        reason += "of its threads stand above"
        if self._limits.on_stuck == "end":
            self._end(reason, self._checkpoints)
        else:
            line = f"apertus: {reason}; JobLimits.on_stuck = 'end' would end it, {restart_point(self._checkpoints)}"
            print(printable(line), file=sys.stderr, flush=True)

    def _dump(self) -> None:
        if self._stacks is not None:
            faulthandler.dump_traceback(self._stacks, all_threads=True)

    def _watch(self) -> None:
        assert self._pause is not None
        limit = self._limits.step_seconds
        while not self._closed.wait(self._pause):
            if limit is not None and self._stacks is not None:
                exits = self._limits.on_stuck == "end"
                faulthandler.dump_traceback_later(2 * limit, file=self._stacks, exit=exits)
            self.look()

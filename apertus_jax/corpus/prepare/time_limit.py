"""A limit on the time that one document may take."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TimeLimitExceeded(Exception):
    """The work inside `time_limit` took too long."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeLimitExceeded inside the block when it runs longer than `seconds`.

    The alarm is that of the process, so the block must run in the main thread; elsewhere use a process of its own.

    Raises:
      RuntimeError: called outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("time_limit needs the main thread of its process")

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeLimitExceeded

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

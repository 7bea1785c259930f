"""Termination signals and time limits: SIGTERM ends a command as Ctrl-C does, an alarm ends what takes too long."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
REPEAT_SECONDS = 1.0
SIGNAL_STATUS = 128  # what shells add to the number of the signal


def told(interruption: KeyboardInterrupt) -> str:
    """Returns what ended the command, for its one line."""
    return str(interruption) if isinstance(interruption, Interruption) else "interrupted"


class Interruption(KeyboardInterrupt):
    """A signal that ends the command; whatever cleans up after Ctrl-C cleans up after it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}; run the same command again to go on")
        self.number = number


def exit_status(interruption: KeyboardInterrupt) -> int:
    """Returns the exit status of an interrupted command: 130 after Ctrl-C, 143 after SIGTERM."""
    return SIGNAL_STATUS + (interruption.number if isinstance(interruption, Interruption) else signal.SIGINT)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP raise `Interruption` in the main thread, as SIGINT does.

    Only in the process that entered: worker processes that it forks end at once, as they would have. Signals that are
    ignored (nohup) or that something else handles stay as they are, and so do all outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Interruption(number)

    taken = [number for number in ENDING_SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


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
    # Again and again: code in between may catch the first.
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

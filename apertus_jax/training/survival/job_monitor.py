"""Job monitor: finds the process that died or stalled, ends the others in time, and agrees with them where to stop.

JAX's own heartbeat ends processes too, after the same limit, but without a word of who was lost; so each process beats
here as well, and sooner. JAX aborts at once, not to be caught, where process 0 dies, which holds its service.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import jax
from etils import epath

from apertus_jax.errors import TemporaryFailure
from apertus_jax.training.survival.job_channel import JobChannel
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.requeue import end_for_requeue
from apertus_jax.training.survival.stop_agreement import StopAgreement

LONGEST_INTERVAL = 2.0
BEATS_PER_LIMIT = 20
# Shares of `JobLimits.lost_seconds`: silence that counts as lost, and how long the others are given to read of it.
SILENT_SHARE, TELLING_SHARE = 0.5, 0.2
ENDED = "ended"
NEW_BEATS = 2  # after the first that is read: one may have been on its way when its process died
LONGEST_REASON = 300

# How XLA's statuses begin where they are raised as a ValueError.
_STATUS = re.compile(r"(UNKNOWN|INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|FAILED_PRECONDITION): ")
_log = logging.getLogger(__name__)


class Channel(Protocol):
    """Channel between the processes of a job, as far as the monitor needs it; see `JobChannel`."""

    index: int
    count: int

    def put(self, name: str, text: str) -> None:
        """Leaves a text."""

    def read(self, folder: str) -> dict[str, str]:
        """Returns the texts under a folder."""

    def leave(self) -> None:
        """Does not wait for the others at the end."""


class Silence:
    """Silence of each process of a job, by this process's own clock: the others' clocks may differ."""

    def __init__(self, count: int, now: float):
        self._last: dict[int, tuple[str, float]] = {index: ("", now) for index in range(count)}

    def hear(self, beats: Mapping[str, str], now: float) -> None:
        """Takes the newest beat of each process."""
        for index, (before, _) in self._last.items():
            beat = beats.get(str(index), "")
            if beat != before:
                self._last[index] = (beat, now)

    def longest(self, now: float) -> tuple[int, float]:
        """Returns the process that is silent for the longest, and for how many seconds; those that are done are not."""
        waiting = {index: now - since for index, (beat, since) in self._last.items() if beat != ENDED}
        return max(waiting.items(), key=lambda entry: entry[1], default=(0, 0.0))


class JobMonitor:
    """The watch of one process over the job that it belongs to, while one run lasts; a context manager.

    Two threads: one beats and listens, which blocks while process 0 does not answer, and one looks at the clock.
    """

    def __init__(
        self,
        limits: JobLimits,
        checkpoints: epath.PathLike,
        channel: Channel,
        end: Callable[[str, epath.PathLike], None] = end_for_requeue,
    ):
        self._limits, self._checkpoints, self._channel, self._end = limits, checkpoints, channel, end
        self._interval = min(LONGEST_INTERVAL, limits.lost_seconds / BEATS_PER_LIMIT)
        self._closed = threading.Event()
        self._beats = 0
        self._answered = time.monotonic()
        self._silence = Silence(channel.count, self._answered)
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._beat_and_listen, "job-beats"), (self._watch_the_clock, "job-clock"))
        ]
        self.agreement = StopAgreement(channel)

    def __enter__(self) -> JobMonitor:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                self._fail(error)
        finally:
            self._closed.set()
            for thread in self._threads:  # the first may wait for an answer that does not come
                if thread.is_alive():
                    thread.join(2 * self._interval)
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._channel.put(f"alive/{self._channel.index}", ENDED)

    def _fail(self, error: BaseException) -> None:
        """Tells the others of an error here; returns when all have failed alike or were told.

        Raises:
          TemporaryFailure: a collective failed and every process still answers. The others are told of it: one that
            waits in the same collective would do so for ever.
        """
        line = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
        if _is_of_devices(error):
            # Collectives fail a moment after a neighbour dies, sooner than anybody knows who it was.
            _log.warning("a computation failed (%s); looking which process was lost", line)
            if self._all_others_answer():
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    self._say_lost(self._channel.index, f"ended with {line}")
                    self._wait_until_all_have_read()
                self._channel.leave()
                raise TemporaryFailure(f"{line}; every process of the job still answers; start it again") from error
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._channel.put(f"failed/{self._channel.index}", line)
            deadline = time.monotonic() + self._limits.lost_seconds * TELLING_SHARE
            while time.monotonic() < deadline:
                if len(self._channel.read("failed")) == self._channel.count:
                    return
                time.sleep(self._interval / 4)
            self._say_lost(self._channel.index, f"ended with {line}")
            self._wait_until_all_have_read()
        self._channel.leave()

    def _all_others_answer(self) -> bool:
        """Waits until each other process has beaten again or is done; False when the watch was closed meanwhile.

        One that is lost does not beat. However late process 0 finds it, it then names it and this process is ended,
        so that a collective that failed here is never told in the place of the loss that it failed by.
        """
        heard: dict[int, set[str]] = {
            index: set() for index in range(self._channel.count) if index != self._channel.index
        }
        while not all(ENDED in beats or len(beats) > NEW_BEATS for beats in heard.values()):
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # the clock decides whether process 0 is lost
                for index, beat in self._channel.read("alive").items():
                    heard.get(int(index), set()).add(beat)
            if self._closed.wait(self._interval / 2):
                return False
        return True

    def _beat_and_listen(self) -> None:
        while not self._closed.wait(self._interval):
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # the clock decides
                self.tick()

    def tick(self) -> None:
        """Beats once and reads what the others say; ends the process when one of them is lost."""
        channel = self._channel
        self._beats += 1
        channel.put(f"alive/{channel.index}", str(self._beats))
        if channel.index == 0:
            self._judge()
        if lost := channel.read("lost"):
            channel.put(f"alive/{channel.index}", ENDED)
            if channel.index == 0:  # its end would be taken for another loss
                self._wait_until_all_have_read()
            self._end(next(iter(lost.values())), self._checkpoints)
        self.agreement.listen()
        self._answered = time.monotonic()

    def _judge(self) -> None:
        """Process 0 says who is lost, so that all say the same."""
        now = time.monotonic()
        self._silence.hear(self._channel.read("alive"), now)
        index, seconds = self._silence.longest(now)
        if seconds > self._limits.lost_seconds * SILENT_SHARE:
            reason = f"is silent for {seconds:.1f} s (JobLimits.lost_seconds = {self._limits.lost_seconds:g})"
            self._say_lost(index, f"died or stalled: it {reason}")

    def _say_lost(self, index: int, what: str) -> None:
        """Leaves word of a lost process; the first word stands, so that all say the same."""
        if not self._channel.read("lost"):
            self._channel.put("lost/first", _told_of(index, self._channel.count, what))

    def _wait_until_all_have_read(self) -> None:
        deadline = time.monotonic() + self._limits.lost_seconds * TELLING_SHARE
        while time.monotonic() < deadline:
            beats = self._channel.read("alive")
            if sum(beat == ENDED for beat in beats.values()) >= self._channel.count - 1:
                return
            time.sleep(self._interval / 4)

    def _watch_the_clock(self) -> None:
        looked = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            if now - looked > self._limits.lost_seconds * SILENT_SHARE / 2:
                self._answered = now  # this process slept itself, and hears in a moment what the others made of it
            looked = now
            if now - self._answered > self._limits.lost_seconds * SILENT_SHARE:
                reason = f"died or stalled: it has not answered for {now - self._answered:.1f} s"
                self._end(_told_of(0, self._channel.count, reason), self._checkpoints)

    def aborted(self) -> None:
        """Ends the process where JAX aborts it."""
        reason = "died, or the network to it: JAX ended this process, its message stands above"
        self._end(_told_of(0, self._channel.count, reason), self._checkpoints)


def _is_of_devices(error: BaseException) -> bool:
    """Returns whether a computation or collective failed, at the bottom of an error; JAX raises two kinds for it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, jax.errors.JaxRuntimeError) or (isinstance(seen, ValueError) and _STATUS.match(str(seen))):
            return True
        seen = seen.__cause__
    return False


def _told_of(index: int, count: int, what: str) -> str:
    return f"process {index} of {count} {what}"


@contextlib.contextmanager
def abort_calls(function: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `abort()` of any thread calls a function first; Python's own handlers come too late for it.

    The call is made by the thread that aborts, outside of Python, so it is a plain function call and no interruption.
    """
    handler_type = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = handler_type(lambda number: function())
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    before = libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)


@contextlib.contextmanager
def watched_job(limits: JobLimits, checkpoints: epath.PathLike) -> Iterator[StopAgreement | None]:
    """Watches over the job of this process while the block runs; without others there is nothing to watch or agree."""
    if jax.process_count() == 1:
        yield None
        return
    monitor = JobMonitor(limits, checkpoints, JobChannel())
    with abort_calls(monitor.aborted), monitor:
        yield monitor.agreement

"""Stop agreement: the processes of a job stop after the same step, soon after one of them is asked to."""

from __future__ import annotations

import threading
import time
from typing import Any

POLL_SECONDS = 0.05
LONGEST_LISTENING = 0.5
REQUEST = "stop"


class StopAgreement:
    """Agreement of a job on the step after which it stops, as one process knows of it.

    One that is asked to stop leaves a note. A thread of every process reads it, holds its loop between two steps, says
    how far it has come, and waits until all have: they stop at the step after the furthest. The steps under way need no
    word of the loops that are held, so nobody waits in a circle, and steps that nobody stops cost no message.
    """

    def __init__(self, channel: Any):
        self._channel = channel
        self._lock = threading.Lock()
        self._step = 0
        self._asked = self._held = False
        self._stop_step: int | None = None
        self._reason = ""

    def reached(self, step: int, reason: str | None) -> str | None:
        """Returns why the loop stops after `step` steps, or None; every process says the same at the same step.

        Args:
          step: steps done, ascending.
          reason: why this process is asked to stop, None when it is not.
        """
        with self._lock:
            self._step = step
            if self._stop_step is not None:
                return self._reason if step >= self._stop_step else None
        if reason is not None and not self._asked:
            self._asked = True
            self._channel.put(f"{REQUEST}/first", reason)
        return None

    def listen(self) -> None:
        """Looks for a note, and agrees where to stop when there is one; one thread calls it every now and then."""
        if self._stop_step is not None or not (notes := self._channel.read(REQUEST)):
            return
        if not self._held:  # until all have come; the thread goes on beating meanwhile
            self._lock.acquire()
            self._held = True
            self._channel.put(f"{REQUEST}_at/{self._channel.index}", str(self._step))
        deadline = time.monotonic() + LONGEST_LISTENING
        while len(found := self._channel.read(f"{REQUEST}_at")) < self._channel.count:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)
        self._stop_step = max(map(int, found.values())) + 1
        self._reason = next(iter(notes.values()))
        self._held = False
        self._lock.release()

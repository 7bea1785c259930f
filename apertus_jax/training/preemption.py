"""Preemption: saving and stopping a run on signals (SIGTERM, SIGUSR2) and trigger files.

Source: docs/reference/model_and_training.md §7.3.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from etils import epath

from apertus_jax.storage.run_folder import EXIT_TRIGGER, SAVE_TRIGGER

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class StopRequests:
    """Collects SIGTERM and SIGUSR2 (save, then exit) and the files `save` and `exit` in the run folder.

    Handlers only set a flag: the loop saves between two steps, never inside one. Previous handlers come back when the
    context ends. Outside the main thread signals cannot be caught, and only the trigger files work.
    """

    def __init__(self, run_folder: epath.PathLike):
        self._folder = epath.Path(run_folder)
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = signal.Signals(number)

    def stop_reason(self, look_at_files: bool = True) -> str | None:
        """Returns why the run should save and exit now, or None. Removes an `exit` file it acts on."""
        if self._received is not None:
            return self._received.name
        return f"the file {EXIT_TRIGGER}" if look_at_files and self._take(EXIT_TRIGGER) else None

    def save_requested(self) -> bool:
        """Returns whether a `save` file asked for a checkpoint; the file is removed."""
        return self._take(SAVE_TRIGGER)

    def _take(self, name: str) -> bool:
        trigger = self._folder / name
        if not trigger.exists():
            return False
        trigger.unlink(missing_ok=True)
        return True

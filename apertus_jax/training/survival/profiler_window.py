"""Profiler window: records a few steps for TensorBoard's profile viewer, at a step or on demand."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

import jax
from etils import epath

from apertus_jax.storage.listing import is_local
from apertus_jax.storage.run_folder import PROFILE_TRIGGER, PROFILES_FOLDER
from apertus_jax.training.multihost import is_first
from apertus_jax.training.survival.run_watch import RunWatch

_log = logging.getLogger(__name__)


class ProfilerWindow:
    """Starts and stops JAX's profiler between steps; a context manager.

    After `RunWatch.profile_step`, and on the file `profile` in the run folder, the first process records itself;
    SIGUSR1 makes the process record that gets it. Read it with `tensorboard --logdir=RUN/profiles` and its profile
    plug-in, or open its `trace.json.gz` in a viewer of traces. A profiler that fails is told and ends no run.
    """

    def __init__(self, run_folder: epath.Path, watch: RunWatch):
        self._folder, self._watch = run_folder, watch
        self._asked = False
        self._last: int | None = None  # step after which the window closes
        self._previous: Any = None

    def __enter__(self) -> ProfilerWindow:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGUSR1, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._stop()
        if self._previous is not None:
            signal.signal(signal.SIGUSR1, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def look_for_file(self) -> None:
        """Looks whether a person asked for a window by the file `profile`, which is removed."""
        trigger = self._folder / PROFILE_TRIGGER
        if is_first() and trigger.exists():
            trigger.unlink(missing_ok=True)
            self._asked = True

    def before(self, step: int, ready: jax.Array) -> None:
        """Opens the window when it is due; `ready` is of the state before the step, counted from 1."""
        at_step = self._watch.profile_step is not None and step == self._watch.profile_step + 1 and is_first()
        if self._last is not None or not (self._asked or at_step):
            return
        self._asked = False
        if not is_local(self._folder):
            _log.warning("no profile is recorded: %s is no folder of this machine", self._folder)
            return
        jax.block_until_ready(ready)  # the steps before are not part of it
        try:
            jax.profiler.start_trace(str(self._folder / PROFILES_FOLDER))
        except (RuntimeError, OSError) as error:
            _log.warning("the profiler did not start: %s", error)
            return
        self._last = step + self._watch.profile_steps - 1
        _log.info("the profiler records steps %d to %d", step, self._last)

    def after(self, step: int, result: jax.Array) -> None:
        """Closes the window after its last step, once `result` of that step is there."""
        if self._last is not None and step >= self._last:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        self._last = None
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError) as error:
            _log.warning("the profile was not written: %s", error)
            return
        _log.info("a profile is in %s", self._folder / PROFILES_FOLDER)

"""Ending for requeue: one line and status 75, from whichever thread finds that this process cannot go on."""

from __future__ import annotations

import os
import sys
import threading

from etils import epath

from apertus_jax.errors import REQUEUE_STATUS
from apertus_jax.storage.run_folder import list_steps
from apertus_jax.terminal.terminal_text import printable

LISTING_SECONDS = 2.0

_ending = threading.Lock()


def restart_point(checkpoints: epath.PathLike) -> str:
    """Returns from where a restart goes on, in words; a folder that does not answer soon is not waited for."""
    found: list[list[int]] = []

    def look() -> None:
        found.append(list_steps(checkpoints, committed=True))

    thread = threading.Thread(target=look, name="restart-point", daemon=True)
    thread.start()
    thread.join(LISTING_SECONDS)
    if not found:
        return f"the restart goes on from the newest checkpoint in {checkpoints}, which does not answer now"
    if not found[0]:
        return "the restart begins at step 0, there is no checkpoint yet"
    return f"the restart goes on from step {found[0][-1]}"


def end_for_requeue(reason: str, checkpoints: epath.PathLike) -> None:
    """Prints why this process ends and from where a restart goes on, and ends it at once with status 75.

    Nothing is cleaned up: whatever would be waits for processes or devices that do not answer, and what is on disk may
    be left at any moment. The first of several threads that call this ends the process, the others wait.
    """
    _ending.acquire()
    line = f"apertus: {reason}; {restart_point(checkpoints)}; exit status {REQUEUE_STATUS} asks to be started again"
    print(printable(line), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(REQUEUE_STATUS)

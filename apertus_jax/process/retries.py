"""Retries: reads and writes that fail for a moment are done again, a bounded number of times, and the log says so."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 1.0  # doubled after each attempt: 15 s in all
# What networks, and file systems behind them, say of a failure that may pass.
TRANSIENT_ERRORS = frozenset(
    (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.ECONNREFUSED)
    + (errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EINTR, errno.EREMOTEIO)
)
# The same as libraries of object stores and TensorStore spell it, by the name of the class or in the text.
TRANSIENT_CLASSES = frozenset(
    ("ServiceUnavailable", "TooManyRequests", "InternalServerError", "GatewayTimeout", "DeadlineExceeded")
    + ("UnavailableError", "AbortedError", "DeadlineExceededError", "EndpointConnectionError", "ReadTimeoutError")
)
_TRANSIENT_TEXT = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|Input/output error|Stale file handle|Connection (reset|timed out))",
    re.IGNORECASE,
)
_log = logging.getLogger(__name__)


def is_transient(error: BaseException) -> bool:
    """Returns whether an error of storage, or one that caused it, may pass by itself."""
    seen: BaseException | None = error
    while seen is not None:
        if _is_transient_itself(seen):
            return True
        seen = seen.__cause__
    return False


def _is_transient_itself(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TRANSIENT_ERRORS
    if type(error).__name__ in TRANSIENT_CLASSES or isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, ValueError | RuntimeError | OSError) and bool(_TRANSIENT_TEXT.search(str(error)))


def retried(
    function: Callable[[], Result],
    doing: str,
    attempts: int = ATTEMPTS,
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """Calls a function, which may be called again, until no transient error comes out of it.

    Args:
      function: reads or writes; a call that failed has left nothing that a second one minds.
      doing: what it does, for the log: "reading the batch of step 7".
      attempts: calls in all.
      pause: waits so many seconds: 1, 2, 4, …

    Raises:
      BaseException: what the last call raised, or the first that is not transient.
    """
    for attempt in range(1, attempts):
        try:
            return function()
        except Exception as error:  # Orbax raises no narrower one, from that of the storage
            if not is_transient(error):
                raise
            seconds = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
            told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            _log.warning("%s failed (%s); attempt %d of %d in %g s", doing, told, attempt + 1, attempts, seconds)
            pause(seconds)
    return function()

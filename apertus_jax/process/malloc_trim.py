"""malloc_trim: a long-lived process gives freed memory back to the system.

Measured on `prepare` with a million tiny documents (pyarrow 25, glibc): Arrow's own allocator keeps 100 MB of what a
worker has freed; the C library keeps some 50 MB until it is asked. A process that asks after each of many small units
faults the same pages in again and again (2.5 % of `prepare` over 13 units of a megabyte), so it asks now and then.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

# Read when pyarrow is loaded, so it is set for child processes and, by the command line, before any import.
ARROW_ALLOCATOR = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
SECONDS_BETWEEN = 5.0
_next_time = 0.0


def return_freed_memory() -> bool:
    """Returns freed memory to the operating system, once in `SECONDS_BETWEEN` at most.

    Returns:
      whether it was asked for: False soon after the last time, and where the C library has no way to ask.
    """
    global _next_time
    trim = _trim()
    if trim is None or time.monotonic() < _next_time:
        return False
    trim(0)
    _next_time = time.monotonic() + SECONDS_BETWEEN
    return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Returns glibc's `malloc_trim`."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)

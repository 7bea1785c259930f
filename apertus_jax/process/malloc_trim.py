"""malloc_trim: a long-lived process gives freed memory back to the system.

Measured on `prepare` with a million tiny documents (pyarrow 25, glibc): Arrow's own allocator keeps 100 MB of what a
worker has freed; the C library keeps some 50 MB until it is asked.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

# Read when pyarrow is loaded, so it is set for child processes and, by the command line, before any import.
ARROW_ALLOCATOR = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


def return_freed_memory() -> bool:
    """Returns freed memory to the operating system; False where the C library has no way to ask for it."""
    trim = _trim()
    if trim is None:
        return False
    trim(0)
    return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Returns glibc's `malloc_trim`."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)

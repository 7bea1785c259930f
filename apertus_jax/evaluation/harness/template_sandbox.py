"""Template sandbox: limits on time and memory for what task files and model folders make us run.

Jinja's sandbox keeps a template from Python's insides and from loops over large ranges, but neither from loops in
loops nor from texts that double until memory is full; and a regular expression may take longer than anybody waits.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox

from apertus_jax.errors import UserError
from apertus_jax.process.interruptions import TimeLimitExceeded, time_limit

SECONDS = 5.0
MAX_BYTES = 1 << 30
PROCESS_SIZE = Path("/proc/self/statm")  # in pages, the first number; Linux only


class CostlyTemplateError(jinja2.TemplateError):
    """A template, or another thing that a stranger wrote, takes too long or makes too much."""


class LimitedTemplate(jinja2.Template):
    """A template whose rendering is `limited`."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Returns the text.

        Raises:
          CostlyTemplateError: it takes too long or makes too much.
        """
        with limited():
            return super().render(*args, **kwargs)


class LimitedSandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits on what compiling and rendering take."""

    template_class = LimitedTemplate

    def from_string(self, *args: Any, **kwargs: Any) -> jinja2.Template:
        """Compiles a template, which computes what is constant in it.

        Raises:
          CostlyTemplateError: that alone takes too long or makes too much.
        """
        with limited():
            return super().from_string(*args, **kwargs)


@contextlib.contextmanager
def limited(seconds: float | None = None) -> Iterator[None]:
    """Stops what takes longer than `seconds` (None: `SECONDS`) or `MAX_BYTES` more memory than the process has.

    Raises:
      CostlyTemplateError: it did.
      UserError: not in the main thread, where alone Python can be stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("task files have a time limit, which needs the main thread; evaluate tasks from there")
    seconds = SECONDS if seconds is None else seconds
    try:
        with _memory_limit(), time_limit(seconds):
            yield
    except TimeLimitExceeded as error:
        raise CostlyTemplateError(f"it takes longer than {seconds:.0f} seconds") from error
    except (MemoryError, OverflowError) as error:
        raise CostlyTemplateError(f"it makes more than {MAX_BYTES >> 30} GiB") from error
    except RecursionError as error:
        raise CostlyTemplateError("it is nested too deeply") from error


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        size = int(PROCESS_SIZE.read_text().split()[0]) * resource.getpagesize()
    except OSError:  # another system than Linux
        yield
        return
    lowered = size + MAX_BYTES
    if soft != resource.RLIM_INFINITY:
        lowered = min(lowered, soft)
    resource.setrlimit(resource.RLIMIT_AS, (lowered, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

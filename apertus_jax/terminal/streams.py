"""Standard output, standard error and log lines of a command.

A terminal that is not UTF-8 gets escapes for the characters it lacks, a reader who leaves (`| head`) ends the output
and not the command, and log lines show the control characters of strangers' texts instead of sending them.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any

from apertus_jax.terminal.terminal_text import printable_text

UNENCODABLE = "backslashreplace"
STANDARD_ERROR = 2


class _Output(io.FileIO):
    """A stream of this process that goes nowhere once it cannot be written."""

    def write(self, content: Any) -> Any:
        """Writes, and tells the same when the reader has left; another failure is told once, of standard output."""
        try:
            return super().write(content)
        except BlockingIOError:
            raise
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if isinstance(error, BrokenPipeError) or self.fileno() == STANDARD_ERROR:
                return len(content)
            raise


class ShownLogs(logging.Formatter):
    """Log lines whose message cannot be taken for another line or obeyed by a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; further lines of one message are indented."""
        return printable_text(super().format(record)).replace("\n", "\n    ")


def prepare_streams() -> None:
    """Makes standard output and error take every character, and survive their reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and not isinstance(getattr(stream, "buffer", None), _Buffer):
            setattr(sys, name, _surviving(stream))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=UNENCODABLE)


class _Buffer(io.BufferedWriter):
    """Marks a stream that `prepare_streams` has made."""


def _surviving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Returns a text stream to the same place."""
    try:
        stream.flush()
        raw = _Output(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # no stream of the system
        return stream
    return io.TextIOWrapper(
        _Buffer(raw),
        encoding=stream.encoding,
        errors=UNENCODABLE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def prepare_logs() -> None:
    """Sends log lines to standard error; libraries only when they warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(ShownLogs("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)


def silence_late_storage_callbacks() -> None:
    """After a save that failed, storage threads still report to Orbax's closed event loop, each with a traceback.

    So do tasks of Orbax that nobody asked for their result any more. The failure itself is told in one line. Every
    other error that cannot be raised is reported as before.
    """
    previous = sys.unraisablehook
    if getattr(previous, "drops_late_storage_callbacks", False):
        return

    def report(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            previous(unraisable)

    report.drops_late_storage_callbacks = True  # type: ignore[attr-defined]  # functions take attributes
    sys.unraisablehook = report
    logging.getLogger("asyncio").addFilter(_is_not_of_a_late_save)


def _is_not_of_a_late_save(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not (message.startswith("Task exception was never retrieved") and "/orbax/checkpoint/" in message)

"""Terminal-safe text: documents on one line, with nothing that a terminal or page would obey."""

from __future__ import annotations

import re
from typing import Any

# Controls and escape sequences, separators of lines and paragraphs, and what turns the direction of writing.
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LONGEST_LINE = 1200  # a path or text of a megabyte is told by its two ends
OBEYED_IN_TEXT = re.compile(rf"(?![\n\t])(?:{OBEYED.pattern})")


def printable(value: Any) -> str:
    """Returns a value on one line without characters that would be obeyed rather than shown."""
    return OBEYED.sub("\N{REPLACEMENT CHARACTER}", str(value))


def printable_text(value: Any) -> str:
    """As `printable`, with line breaks and tabs kept."""
    return OBEYED_IN_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(value))


def one_line(error: BaseException) -> str:
    """Returns the message on one line, without the trail of calls that gin appends to it and what a terminal obeys."""
    line = printable(" ".join(str(error).partition("\n  In call to configurable")[0].split()))
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]}…{line[-LONGEST_LINE // 2 :]}"

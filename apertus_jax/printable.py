"""Text of documents as people may see it: on one line, with nothing that a terminal or a page would obey."""

from __future__ import annotations

import re
from typing import Any

# Controls and escape sequences, separators of lines and paragraphs, and what turns the direction of writing.
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(value: Any) -> str:
    """Returns a value on one line without characters that would be obeyed rather than shown."""
    return OBEYED.sub("\N{REPLACEMENT CHARACTER}", str(value))

"""Protocol of output filters: what `generate.output_filter` must offer.

`apertus_jax.release.output_filter.OutputFilter` is the one of this project. Packages do not import each other here: any
value with these members will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class FilteredText(Protocol):
    """One text on its way through a filter: pieces in, in order, and what may be shown out."""

    @property
    def stopped(self) -> bool:
        """Whether the text has ended, so that nothing that follows will be shown."""
        ...

    def feed(self, text: str) -> str:
        """Feeds decoded text, cut anywhere between characters; returns what may be shown by now."""
        ...

    def finish(self) -> str:
        """Ends the text; returns the rest of what may be shown."""
        ...

    def report(self) -> Mapping[str, Any]:
        """Returns what was done, for the result row and as JSON: counts and the filter's version, never text."""
        ...


class TextFilter(Protocol):
    """A filter that texts can be put through one by one."""

    @property
    def stops(self) -> bool:
        """Whether it can end a text; one that cannot is not asked before a text is complete."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the shown text, as JSON; raises UserError when the filter cannot be used."""
        ...

    def open(self, context: str = "") -> FilteredText:
        """Begins a text that continues `context`, a prompt: what is filtered may begin in it."""
        ...


def is_stopped(text_filter: TextFilter, context: str, text: str) -> bool:
    """Returns whether the beginning of a text, whatever follows, will be shown no further.

    The last character may be an incomplete one, which decodes to U+FFFD; that is left out.
    """
    stream = text_filter.open(context)
    stream.feed(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    return stream.stopped

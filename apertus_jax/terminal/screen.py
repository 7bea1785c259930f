"""Console of every command: shows what a text holds, and sends no control character but its own.

Names and texts that strangers wrote may hold characters that a terminal obeys.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from apertus_jax.terminal.terminal_text import printable_text


class Screen(Console):
    """A rich console whose text is shown, whatever it holds."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as rich does, with what a terminal would obey replaced."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable_text(segment.text), segment.style)

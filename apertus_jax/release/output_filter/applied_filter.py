"""Applied output filter (`generate.output_filter`): which file, whose signature, which action."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

from apertus_jax import clock
from apertus_jax.errors import UserError
from apertus_jax.release.output_filter.filter_file import ProtectedContent, read_filter
from apertus_jax.release.output_filter.hashing import read_string_key
from apertus_jax.release.output_filter.matching import Action, FilteredText
from apertus_jax.release.output_filter.output_filter_command import read_filter_bytes
from apertus_jax.release.output_filter.signing import load_public_key
from apertus_jax.validation import fields_by_annotation

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class OutputFilter:
    """A published filter and how to apply it; `apertus_jax.inference.text_filter` says what `generate` asks of it.

    Attributes:
      file: the filter's file, or the folder that `output-filter` wrote.
      public_key: of who must have signed it: 64 hexadecimal digits, or a PEM file.
      action: "redact" puts `replacement` in the place of each occurrence, "stop" ends the text before the first, "log"
        only counts.
      replacement: see above.
      string_key: file of the key that its strings were hashed with; "" for none.
      today: YYYY-MM-DD on which it must not be stale; "" for the day of loading. A stale filter is applied all the
        same, with a warning.
    """

    file: str
    public_key: str
    action: str = "redact"
    replacement: str = "[REDACTED]"
    string_key: str = ""
    today: str = ""

    def __post_init__(self) -> None:
        if self.action not in list(Action):
            raise UserError(f"OutputFilter.action = {self.action!r} must be one of {', '.join(Action)}")
        if self.today:
            clock.require_day(self.today, "OutputFilter.today")

    @functools.cached_property
    def protected(self) -> ProtectedContent:
        """The opened filter, read once.

        Raises:
          UserError: it is missing, has changed, or was signed by somebody else.
        """
        content, name = read_filter_bytes(self.file)
        string_key = read_string_key(self.string_key) if self.string_key else b""
        protected = read_filter(content, name, load_public_key(self.public_key), string_key)
        today = clock.require_day(self.today, "OutputFilter.today") if self.today else clock.today()
        if today.isoformat() >= protected.header.expires:
            _log.warning(
                "output filter %s, version %d of %s, is stale since %s: it lacks later removals; fetch a newer one",
                name,
                protected.header.version,
                protected.header.date,
                protected.header.expires,
            )
        return protected

    @property
    def stops(self) -> bool:
        """Whether an occurrence ends a text."""
        return self.action == Action.STOP

    def identity(self) -> dict[str, Any]:
        """Returns what decides which text is shown: digest of the filter's file, action and replacement."""
        return {"digest": self.protected.digest, "action": self.action, "replacement": self.replacement}

    def open(self, context: str = "") -> FilteredText:
        """Begins a text that continues `context`, see `FilteredText`."""
        return FilteredText(self.protected, Action(self.action), self.replacement, context)

"""PII policy: which personal data is replaced, in which sources, and by which of two rule sets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    from apertus_jax.validation import FilledIn

KINDS = ("email", "ip", "iban", "ahv", "card", "phone")
MARKERS = {kind: f"<{kind}-pii>" for kind in KINDS}
MODES = ("strict", "apertus")
# Telephone numbers carry no check digit, so many a number looks like one: they have to be asked for.
DEFAULT_KINDS = {"strict": ("email", "ip", "iban", "ahv", "card"), "apertus": ("email", "ip", "iban")}


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class PersonalDataPolicy:
    """PII that `rewrite` replaces.

    `strict` checks every candidate (boundaries, check digits, public addresses); `apertus` does what the formatter
    published with Apertus does, mistakes included (arXiv 2509.14233, section 3.1.2), and knows three kinds.

    Attributes:
      mode: `strict` or `apertus`.
      kinds: a selection of `email`, `ip`, `iban`, `ahv` (Swiss social insurance), `card`, `phone`; None means all
        that the mode knows, without `phone`.
      skip_sources: names of sources whose texts stay as they are (mathematics and code, where numbers are not people).
    """

    mode: str = "strict"
    if TYPE_CHECKING:
        kinds: FilledIn[tuple[str, ...]] = FilledIn()
    else:
        kinds: tuple[str, ...] | None = None
    skip_sources: tuple[str, ...] = ()

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"personal data: mode {self.mode!r} is not one of {', '.join(MODES)}; name one of them")
        if isinstance(self.kinds, str) or isinstance(self.skip_sources, str):
            raise UserError("personal data: kinds and skip_sources are lists of names, not one name; write ('email',)")
        known = DEFAULT_KINDS["apertus"] if self.mode == "apertus" else KINDS
        chosen = DEFAULT_KINDS[self.mode] if self.kinds is None else tuple(self.kinds)
        for kind in chosen:
            if kind not in known:
                raise UserError(
                    f"PersonalDataPolicy.kinds: mode {self.mode} does not know kind {kind!r}; choose from "
                    f"{', '.join(known)}"
                )
        # One order for every spelling of the same choice, so that columns and digests do not depend on it.
        object.__setattr__(self, "kinds", tuple(kind for kind in KINDS if kind in chosen))
        object.__setattr__(self, "skip_sources", tuple(sorted(set(self.skip_sources))))

    def applies_to(self, source: str) -> bool:
        """Returns whether texts of a source are rewritten under this policy."""
        return bool(self.kinds) and source not in self.skip_sources

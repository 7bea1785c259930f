"""Licence rule: which classes may be trained on, and what a missing or unknown licence means."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from apertus_jax.corpus.licences.classes import CLASSES, NOT_UNDERSTOOD, RATINGS
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

EVERY_SOURCE = "*"


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class LicenceRule:
    """Keeps out documents whose licence is not permitted or not understood, and where one is required those without.

    Web text is taken on the ground of opt-outs and needs no licence (arXiv 2509.14233, section 3.1); code and curated
    collections do. So silence about a licence keeps a document out only in the sources that are named as requiring
    one, while a licence that is known and not permitted keeps it out everywhere. So does a declaration that is not
    understood: whoever wrote it said something, and it may well be no.

    Attributes:
      permitted: classes of which one must be open to the user of the text: `public_domain`, `permissive`,
        `share_alike`, `copyleft`, `nc_nd`, `restricted`. `unknown` and `not_understood` cannot be permitted.
      required_sources: names of sources in which an unknown licence keeps a document out; `*` means all.
      rated_sources: names of sources (of code) in which a permissive licence must also be rated by the Blue Oak
        Council; `*` means all.
      lowest_rating: the lowest rating permitted there: `model`, `gold`, `silver`, `bronze` or `lead`.
    """

    permitted: tuple[str, ...] = ("public_domain", "permissive", "share_alike")
    required_sources: tuple[str, ...] = ()
    rated_sources: tuple[str, ...] = ()
    lowest_rating: str = "bronze"

    def __post_init__(self):
        for name in ("permitted", "required_sources", "rated_sources"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise UserError(f"LicenceRule.{name} is the text {value!r}; give a list of names")
            object.__setattr__(self, name, tuple(value))
        known = [name for name in CLASSES if name not in ("unknown", "not_understood")]
        for name in self.permitted:
            if name not in known:
                raise UserError(f"LicenceRule.permitted holds {name!r}; choose from {', '.join(known)}")
        if self.lowest_rating not in RATINGS[:-1]:
            raise UserError(
                f"LicenceRule.lowest_rating is {self.lowest_rating!r}; choose from {', '.join(RATINGS[:-1])}"
            )

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns why the document's licence keeps it out, or None. Reads `source` and the licence columns."""
        source, expression = row["source"], row["licence_expression"]
        if row["licence_class"] == "unknown":
            if _names(self.required_sources, source):
                return Verdict(Reason.LICENCE_UNKNOWN, f"licence required, evidence: {row['licence_evidence']}")
            return None
        open_ways = [name for name in row["licence_classes"] if name in self.permitted]
        if row["licence_class"] == "not_understood" or _leaves_doubt(expression):
            detail = expression or f"evidence: {row['licence_evidence']}"
            return Verdict(Reason.LICENCE_NOT_UNDERSTOOD, f"declared, not understood: {detail}")
        if not open_ways:
            return Verdict(Reason.LICENCE_NOT_PERMITTED, f"{expression} is {row['licence_class']}")
        if "permissive" in open_ways and _names(self.rated_sources, source) and "public_domain" not in open_ways:
            rating = row["licence_rating"]
            if RATINGS.index(rating) > RATINGS.index(self.lowest_rating):
                shown = rating or "not rated"
                return Verdict(Reason.LICENCE_NOT_PERMITTED, f"{expression} is {shown}, below {self.lowest_rating}")
        return None


def _leaves_doubt(expression: str) -> bool:
    """Returns whether a part that is not understood holds besides all others, and not by choice."""
    return NOT_UNDERSTOOD in expression and " OR " not in expression


def _names(sources: tuple[str, ...], source: str) -> bool:
    """Returns whether a list of sources names this one."""
    return EVERY_SOURCE in sources or source in sources

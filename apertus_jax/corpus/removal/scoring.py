"""Removal requests as a scorer and a rule of `prepare`."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax import clock
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.removal.text_normalization import NORMALIZATION, text_digest
from apertus_jax.corpus.removal.tombstones import Tombstones
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

PUBLIC_SUFFIXES = "publicsuffixlist"


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RemovalScoring:
    """Settings of the removal scorer: the tombstones, and the day on which they must be in effect.

    Attributes:
      tombstones: folder that `remove` wrote; "" for none, then only text digests are computed.
      today: YYYY-MM-DD; "" for the day on which scoring starts.
    """

    tombstones: str = ""
    today: str = ""

    def __post_init__(self) -> None:
        if self.today:
            clock.require_day(self.today, "RemovalScoring.today")

    def day(self) -> datetime.date:
        """Returns the day on which requests must be in effect."""
        return clock.parse_day(self.today) or clock.today()

    def on_day(self, day: str) -> RemovalScoring:
        """Returns the scoring of a corpus of this day (YYYY-MM-DD); one that names its own keeps it."""
        return self if self.today else dataclasses.replace(self, today=day)

    def build(self) -> RemovalScorer:
        """Opens the tombstones.

        Raises:
          UserError: the folder is not a complete one of tombstones.
        """
        return RemovalScorer(Tombstones.open(self.tombstones) if self.tombstones else None, self.day())


class RemovalScorer:
    """Columns `removal_request` (id of the request, or None) and `text_digest` (see `text_digest`)."""

    def __init__(self, tombstones: Tombstones | None, day: datetime.date):
        self.tombstones = tombstones
        self.day = day

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the two columns."""
        import pyarrow

        return [pyarrow.field("removal_request", pyarrow.string()), pyarrow.field("text_digest", pyarrow.string())]

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the scores. The day counts only through the requests that are in effect on it."""
        return {
            "tombstones": self.tombstones.digest if self.tombstones else None,
            "requests_in_effect": self.tombstones.num_in_effect(self.day) if self.tombstones else 0,
            "text_normalisation": NORMALIZATION,
            "unicode": unicodedata.unidata_version,
            PUBLIC_SUFFIXES: importlib.metadata.version(PUBLIC_SUFFIXES),
        }

    def applied(self) -> dict[str, Any] | None:
        """Returns the record of what is applied, for the manifest of the corpus; None without tombstones."""
        return self.tombstones.applied(self.day).as_json() if self.tombstones else None

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Mapping[str, Any]]:
        """Returns one row for each document."""
        return [self._score(document) for document in documents]

    def _score(self, document: RawDocument) -> dict[str, Any]:
        digest = text_digest(document.text)
        found = self.tombstones.match(document.document_id, document.url, digest, self.day) if self.tombstones else None
        return {"removal_request": found, "text_digest": digest}


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RemovalRule:
    """Keeps out what a granted request names."""

    def verdict(self, row: Mapping[str, Any], statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns the request that applies, by its id.

        Raises:
          UserError: the policy does not score removal requests.
        """
        if "removal_request" not in row:
            raise UserError("RemovalRule finds no column removal_request; add @RemovalScoring() to consent_scoring")
        request = row["removal_request"]
        return Verdict(Reason.REMOVED_ON_REQUEST, f"request {request}") if request else None

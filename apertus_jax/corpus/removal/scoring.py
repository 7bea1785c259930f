"""Removal requests among the scores and rules of `prepare`."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.removal.requests import parse_day
from apertus_jax.corpus.removal.text_normalisation import NORMALISATION, text_digest
from apertus_jax.corpus.removal.tombstones import Tombstones
from apertus_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow

PUBLIC_SUFFIXES = "publicsuffixlist"


@dataclasses.dataclass(frozen=True)
class RemovalScoring:
    """Which tombstones are looked up, and the day on which they must be in effect.

    Attributes:
      tombstones: folder that `remove` wrote; "" for none, then only text digests are computed.
      today: YYYY-MM-DD; "" for the day on which scoring starts.
    """

    tombstones: str = ""
    today: str = ""

    def __post_init__(self) -> None:
        if self.today and parse_day(self.today) is None:
            raise UserError(f"RemovalScoring.today = {self.today!r} is not a day; write YYYY-MM-DD")

    def day(self) -> datetime.date:
        """Returns the day on which requests must be in effect."""
        return parse_day(self.today) or datetime.datetime.now(datetime.UTC).date()

    def build(self) -> RemovalScorer:
        """Opens the tombstones.

        Raises:
          UserError: the folder is not a complete one of tombstones.
        """
        return RemovalScorer(Tombstones.open(self.tombstones) if self.tombstones else None, self.day())


class RemovalScorer:
    """Columns `removal_request` (id of the request, or None) and `text_digest` (see `text_digest`)."""

    def __init__(self, tombstones: Tombstones | None, day: datetime.date):
        """Takes opened tombstones and the day of the build."""
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
            "text_normalisation": NORMALISATION,
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

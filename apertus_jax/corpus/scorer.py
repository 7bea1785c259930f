"""The contract between `prepare` and everything it can know about a document.

A scorer looks at documents and writes columns; a rule looks at a row of columns and decides. Scores depend on nothing
but the document and the scorer's identity, so changing a threshold never scores again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Verdict

if TYPE_CHECKING:
    import pyarrow

Row = Mapping[str, Any]


class Scorer(Protocol):
    """Columns about documents: pure, and independent of how documents are grouped into batches."""

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns, their names unique among all scorers (robots_…, language_…)."""

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the scores, as JSON: options, versions of libraries, digests of lists and models."""

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document, in order, with exactly the columns of the schema."""


class Rule(Protocol):
    """A part of the policy: thresholds and choices, no work."""

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns why the document of this row must go, or None.

        `row` has the columns of all scorers; columns that consent forbade to compute are None. `statistics` are
        what the aggregation found over the whole corpus.
        """

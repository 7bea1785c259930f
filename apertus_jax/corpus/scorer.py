"""Contract of scorers and rules: what `prepare` can know about a document, and decide from it.

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
    """Columns about documents: pure, and independent of how documents are grouped into batches.

    Some have more, looked for by name: `applied()`, the record of what was applied, for the manifest of the corpus.
    """

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns, their names unique among all scorers (robots_…, language_…)."""

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the scores, as JSON: options, versions of libraries, digests of lists and models."""

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document, in order, with exactly the columns of the schema."""


class Sketch(Protocol):
    """Figures over the whole corpus, gathered document by document in bounded memory and in any order.

    Attributes:
      columns: what `add` reads of a row; `language`, the label that the document goes by, is always there.
    """

    @property
    def columns(self) -> Sequence[str]:
        """What `add` reads of a row."""

    def widen(self, other: Any) -> None:
        """Also gathers what a sketch asks that another rule declared under the same name; before the first row."""

    def add(self, row: Row) -> None:
        """Looks at the row of a document that consent allows."""

    def result(self) -> Any:
        """Returns the figures, JSON only."""


class Rule(Protocol):
    """A part of the policy: thresholds and choices, no work.

    Some have more, looked for by name, so that a new rule needs no place in `prepare`:

    - `statistics()` returns name → a fresh `Sketch`: what the rule must know of the whole corpus. Its `verdict` finds
      the result under that name.
    - `after_selection = True`: the rule is asked last, with the columns `duplicates_…` of the choice among copies, of
      which its fields `keep` and `near` decide; one of a policy. Of the scores it sees `APPLY_COLUMNS` alone.
    - `reads`, the columns of scorers that it decides by: a policy without them is refused, for the rule would be asked
      about nothing.
    - `names_language = True`: its field `trust_declared` says which language every document goes by; one of a policy.
    """

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns why the document of this row must go, or None.

        `row` has the columns of all scorers; columns that consent forbade to compute are None. `statistics` are
        name → result of the sketches of all rules; empty when a rule of consent is asked before the corpus is scored.
        """

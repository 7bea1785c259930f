"""PII counts of a document by kind, as a column."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.personal_data.policy import PersonalDataPolicy
from apertus_jax.corpus.personal_data.rewriting import rewrite
from apertus_jax.corpus.raw_document import RawDocument

if TYPE_CHECKING:
    import pyarrow

COLUMN = "personal_data_counts"
REVISION = 3  # raise when the same text can give other counts


@dataclasses.dataclass(frozen=True)
class PersonalDataScoring:
    """Counts of personal data under the policy that will rewrite the texts."""

    policy: PersonalDataPolicy = PersonalDataPolicy()

    def build(self) -> PersonalDataScorer:
        """Returns the scorer."""
        return PersonalDataScorer(self.policy)


class PersonalDataScorer:
    """Writes `personal_data_counts`: kind → number of values, or None where the policy skips the document's source."""

    def __init__(self, policy: PersonalDataPolicy):
        self._policy = policy

    def schema(self) -> list[pyarrow.Field]:
        """Returns the column: a structure of one int32 per kind of the policy."""
        import pyarrow

        kinds = [pyarrow.field(kind, pyarrow.int32()) for kind in self._policy.kinds]
        return [pyarrow.field(COLUMN, pyarrow.struct(kinds))]

    def identity(self) -> Mapping[str, Any]:
        """Returns the policy, the revision of the rules, and the Python release, which brings the table of networks."""
        return {
            "mode": self._policy.mode,
            "kinds": list(self._policy.kinds),
            "skip_sources": list(self._policy.skip_sources),
            "revision": REVISION,
            "python": platform.python_version(),
        }

    def score(self, documents: Sequence[RawDocument]) -> list[dict[str, dict[str, int] | None]]:
        """Returns the counts of each document; nothing that was found is kept."""
        policy = self._policy
        return [
            {COLUMN: rewrite(document.text, policy).counts if policy.applies_to(document.source) else None}
            for document in documents
        ]

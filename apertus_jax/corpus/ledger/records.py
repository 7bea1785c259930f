"""Ledger rows: one for each input document, with its scores, the decision, and the policy that made it.

OUTPUT/COMMITTED.json               plan, policy, digests of every part
OUTPUT/parts/NNNNNN/documents.parquet   what may be trained on
OUTPUT/parts/NNNNNN/ledger.parquet      every readable input document of the unit, kept or not
OUTPUT/parts/NNNNNN/quarantine.parquet  the rows that were no documents
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.corpus.documents import PREPARED_DOCUMENTS, PREPARED_KIND
from apertus_jax.storage import artifacts

if TYPE_CHECKING:
    import pyarrow

KIND = PREPARED_KIND
PART_KIND = "prepared_part"
PARTS = "parts"
DOCUMENTS_FILE, LEDGER_FILE, QUARANTINE_FILE = PREPARED_DOCUMENTS, "ledger.parquet", "quarantine.parquet"
STATISTICS_FILE, FUNNEL_FILE, POLICY_FILE, REPORT_FILE = "statistics.json", "funnel.json", "policy.json", "report.html"
FILES = (STATISTICS_FILE, FUNNEL_FILE, POLICY_FILE, REPORT_FILE)
KEEP, DROP = "keep", "drop"
# The verdicts of consent stand in every ledger: without its scorer each is `not_asked`, which is neither `unknown` (it
# was asked, and nothing spoke) nor null (another refusal came first).
NOT_ASKED = "not_asked"
CONSENT_VERDICTS = ("robots_verdict", "signals_verdict")


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one document, and what its text became.

    Attributes:
      reason: empty when it was kept.
      detail: the figures behind the reason.
      cluster: identity of the first document among its copies, empty when it has none.
      cluster_size: how many copies there are, itself included; 1 without any.
      kept_id: for a duplicate, the copy that stayed.
      personal_data: kind → how many spans were rewritten.
      text_sha256_out: of the text that was kept, empty when none was.
    """

    reason: str = ""
    detail: str = ""
    cluster: str = ""
    cluster_size: int = 1
    kept_id: str = ""
    personal_data: dict[str, int] = dataclasses.field(default_factory=dict)
    text_sha256_out: str = ""
    utf8_bytes_out: int = 0

    @classmethod
    def kept(cls, text: str, personal_data: dict[str, int], cluster: str, cluster_size: int) -> Decision:
        """Returns the decision to keep a document with this text."""
        content = text.encode()
        return cls(
            cluster=cluster,
            cluster_size=cluster_size,
            personal_data={kind: count for kind, count in personal_data.items() if count},
            text_sha256_out=hashlib.sha256(content).hexdigest(),
            utf8_bytes_out=len(content),
        )

    def columns(self) -> dict[str, Any]:
        """Returns the ledger's columns of this decision."""
        return {
            "decision": DROP if self.reason else KEEP,
            "reason": self.reason,
            "detail": self.detail,
            "cluster": self.cluster,
            "cluster_size": self.cluster_size,
            "kept_id": self.kept_id,
            "personal_data": sorted(self.personal_data.items()),
            "text_sha256_out": self.text_sha256_out,
            "utf8_bytes_out": self.utf8_bytes_out,
        }


def url_digest(url: str) -> str:
    """Returns the digest by which a document is found again by the exact address it had; empty without one."""
    return artifacts.digest_bytes(url.encode("utf-8", "surrogateescape")) if url else ""


def decision_fields(scores: Sequence[str]) -> list[pyarrow.Field]:
    """Returns the columns that a decision adds to a document's scores, which have columns of these names."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    return [
        pyarrow.field("language", text),
        pyarrow.field("decision", text),
        pyarrow.field("reason", text),
        pyarrow.field("detail", text),
        pyarrow.field("cluster", text),
        pyarrow.field("cluster_size", number),
        pyarrow.field("kept_id", text),
        pyarrow.field("personal_data", pyarrow.map_(text, number)),
        pyarrow.field("text_sha256_out", text),
        pyarrow.field("utf8_bytes_out", number),
        pyarrow.field("policy", text),
        pyarrow.field("policy_digest", text),
        pyarrow.field("code_version", text),
        pyarrow.field(NOT_ASKED, text),  # the questions that nobody asked, with commas between them
        *(pyarrow.field(name, text) for name in CONSENT_VERDICTS if name not in scores),
    ]


def ledger_schema(scores: pyarrow.Schema) -> pyarrow.Schema:
    """Returns the columns of the ledger for scores with these columns."""
    import pyarrow

    return pyarrow.schema([*scores, *decision_fields(scores.names)])


def with_decisions(scores: pyarrow.Table, decisions: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """Returns scores and the decisions about the same documents as rows of the ledger."""
    import pyarrow

    added = pyarrow.Table.from_pylist(list(decisions), schema=pyarrow.schema(decision_fields(scores.column_names)))
    names = [*scores.column_names, *added.column_names]
    return pyarrow.Table.from_arrays([*scores.columns, *added.columns], names=names)


def parts_of(prepared: epath.PathLike) -> list[epath.Path]:
    """Returns the part folders of a complete prepared corpus, in order.

    Raises:
      UserError: the folder is missing, incomplete, or something else.
    """
    manifest = artifacts.read_manifest(prepared, KIND)
    return [epath.Path(prepared) / PARTS / name for name in sorted(manifest["summary"]["parts"])]

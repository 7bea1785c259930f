"""Counts of a prepared corpus: documents, bytes and tokens by source, language and decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from apertus_jax.corpus.reasons import Reason

KEPT = "kept"
NOT_EVALUATED = "not evaluated"
MEASURES = ("documents", "utf8_bytes", "tokens")


@dataclasses.dataclass
class Funnel:
    """Sums over documents; adding two funnels gives that of both corpora.

    Attributes:
      counts: (source, language, decision) → documents, bytes and tokens as they came in; the decision is `kept` or a
        reason.
      bytes_out: bytes of the texts that were kept, after rewriting.
      personal_data: kind → spans rewritten in kept documents.
      quarantined: (source, reason) → rows that were no documents.
    """

    counts: dict[tuple[str, str, str], list[int]] = dataclasses.field(default_factory=dict)
    bytes_out: int = 0
    personal_data: dict[str, int] = dataclasses.field(default_factory=dict)
    quarantined: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    def add_document(self, row: Mapping[str, Any]) -> None:
        """Counts one row of the ledger."""
        key = (row["source"], row["language"] or NOT_EVALUATED, row["reason"] or KEPT)
        sums = self.counts.setdefault(key, [0, 0, 0])
        for place, value in enumerate((1, row["utf8_bytes"], row.get("tokens") or 0)):
            sums[place] += value
        self.bytes_out += row["utf8_bytes_out"]
        for kind, count in row["personal_data"]:
            self.personal_data[kind] = self.personal_data.get(kind, 0) + count

    def add_quarantined(self, row: Mapping[str, Any]) -> None:
        """Counts one row of the quarantine."""
        key = (row["source"], row["reason"])
        self.quarantined[key] = self.quarantined.get(key, 0) + 1

    def to_json(self) -> dict[str, Any]:
        """Returns the sums as JSON, in a fixed order."""
        return {
            "counts": [[*key, *sums] for key, sums in sorted(self.counts.items())],
            "bytes_out": self.bytes_out,
            "personal_data": dict(sorted(self.personal_data.items())),
            "quarantined": [[*key, count] for key, count in sorted(self.quarantined.items())],
        }

    @classmethod
    def sum(cls, parts: Iterable[Mapping[str, Any]]) -> Funnel:
        """Adds what `to_json` returned."""
        total = cls()
        for part in parts:
            for source, language, decision, *sums in part["counts"]:
                into = total.counts.setdefault((source, language, decision), [0, 0, 0])
                into[:] = [a + b for a, b in zip(into, sums, strict=True)]
            total.bytes_out += part["bytes_out"]
            for kind, count in part["personal_data"].items():
                total.personal_data[kind] = total.personal_data.get(kind, 0) + count
            for source, reason, count in part["quarantined"]:
                total.quarantined[source, reason] = total.quarantined.get((source, reason), 0) + count
        return total

    def totals(self) -> dict[str, int]:
        """Returns documents in, kept, dropped, and rows in quarantine."""
        documents = sum(sums[0] for sums in self.counts.values())
        kept = sum(sums[0] for (_, _, decision), sums in self.counts.items() if decision == KEPT)
        quarantined = sum(self.quarantined.values())
        return {"documents": documents, "kept": kept, "dropped": documents - kept, "quarantined": quarantined}

    def by(self, place: int) -> dict[str, dict[str, list[int]]]:
        """Returns value → decision → sums, for the source (0) or the language (1)."""
        table: dict[str, dict[str, list[int]]] = {}
        for key, sums in sorted(self.counts.items()):
            into = table.setdefault(key[place], {}).setdefault(key[2], [0, 0, 0])
            into[:] = [a + b for a, b in zip(into, sums, strict=True)]
        return table

    def decisions(self) -> dict[str, list[int]]:
        """Returns decision → sums: first every reason that occurred, in the order of the rules, then `kept`."""
        total: dict[str, list[int]] = {}
        for (_, _, decision), sums in self.counts.items():
            into = total.setdefault(decision, [0, 0, 0])
            into[:] = [a + b for a, b in zip(into, sums, strict=True)]
        order = [*map(str, Reason), KEPT]
        return {decision: total[decision] for decision in order if decision in total}

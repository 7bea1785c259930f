"""Inputs of the answers: everything that they are made of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from apertus_jax.release.data_summary.answers.template import NotAvailable
from apertus_jax.release.data_summary.domains import TopDomains
from apertus_jax.release.data_summary.facts import Facts
from apertus_jax.release.data_summary.history import History
from apertus_jax.release.data_summary.languages import measures
from apertus_jax.release.data_summary.ledger_sums import LedgerSums, Size
from apertus_jax.release.data_summary.prepared_corpus import PreparedCorpus

_MONTH = re.compile(r"(\d{4})-(\d{2})")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A prepared corpus, its sums, what was declared, and where in the chain of versions this is."""

    corpus: PreparedCorpus
    sums: LedgerSums
    facts: Facts
    history: History
    domains: TopDomains
    mask_domains: bool
    large_share: float

    @property
    def counted(self) -> bool:
        """Whether tokens were counted."""
        return bool(self.corpus.policy["tokenizer"])

    def measures(self, size: Size) -> dict[str, int]:
        """Returns a size as documents, bytes and, where they were counted, tokens."""
        return measures(size, self.counted)

    def kept_of(self, sources: Iterable[str]) -> Size:
        """Returns the size of what was kept of these sources."""
        names = set(sources)
        return self.sums.kept(lambda source, language: source in names)

    def uses(self, *categories: str) -> bool | NotAvailable:
        """Returns whether any source is of these categories; not available while a source is undeclared."""
        if self.facts.of_category(*categories):
            return True
        if unknown := self.facts.undescribed(self.corpus.sources):
            return NotAvailable(
                f"the origin of {', '.join(unknown)} is not declared; bind a SourceDescription in data_summary.sources"
            )
        return False

    def if_used(self, value: Any, what: str, *categories: str) -> Any:
        """Returns a value about sources of these categories, or why there is none."""
        used = self.uses(*categories)
        if isinstance(used, NotAvailable):
            return used
        return value if used else NotAvailable(f"not applicable: the corpus holds no {what}")

    def period(self, sources: Iterable[str]) -> str | None:
        """Returns MM/YYYY-MM/YYYY of what was kept of these sources, by the dates of its documents; None without."""
        names = set(sources)
        months = sorted(month for source, month in self.sums.months if source in names and _MONTH.fullmatch(month))
        return f"{as_month(months[0])}-{as_month(months[-1])}" if months else None


def as_month(month: str) -> str:
    """Returns MM/YYYY of YYYY-MM."""
    return _MONTH.sub(r"\2/\1", month)


def is_month(month: str) -> bool:
    """Returns whether a text is YYYY-MM."""
    return bool(_MONTH.fullmatch(month))

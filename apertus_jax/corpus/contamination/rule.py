"""Benchmark decontamination rule of the policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class ContaminationRule:
    """A document goes when it repeats more than `ratio` of a benchmark item, or when that could not be settled.

    Sources in `bypass_sources` (the probes and canaries themselves) stay; their scores are in the ledger all the same.
    """

    ratio: float = 0.5
    bypass_sources: tuple[str, ...] = ()
    reads: ClassVar[tuple[str, ...]] = ("contamination_ratio", "contamination_bound", "contamination_blocks")

    def __post_init__(self):
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, (int, float)) or not 0 <= self.ratio <= 1:
            raise UserError(f"ContaminationRule.ratio is {self.ratio!r}; give a number from 0 to 1")
        if isinstance(self.bypass_sources, str):
            raise UserError("ContaminationRule.bypass_sources is one string; give a list of source names")
        object.__setattr__(self, "bypass_sources", tuple(self.bypass_sources))

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns why the document of this row must go, or None; `row` has the column `source` besides the scores."""
        ratio = row.get("contamination_ratio")
        if ratio is None or row.get("source") in self.bypass_sources:
            return None
        item = f"{row['contamination_benchmark']} item {row['contamination_item']}"
        if ratio > self.ratio:
            blocks = row["contamination_blocks"]
            size = f"{sum(blocks)} tokens in {len(blocks)} block{'s' if len(blocks) > 1 else ''}"
            return Verdict(Reason.CONTAMINATION, f"{item}: {size}, ratio {ratio:.3f} > {self.ratio:g}")
        if row["contamination_bound"] > self.ratio:
            return Verdict(Reason.CONTAMINATION, f"{item}: the comparison ran into its work limit and was not settled")
        return None

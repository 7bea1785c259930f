"""Deduplication rule of the policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

CLUSTER_PREFIX = "duplicates_"


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class DuplicateRule:
    """Of each cluster the `keep` first documents that pass every other rule stay.

    `exact` removes documents with the same text, `near` (which includes them) those of the same MinHash cluster.
    """

    exact: bool = True
    near: bool = True
    keep: int = 1
    after_selection: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.keep, int) or isinstance(self.keep, bool) or self.keep < 1:
            raise UserError(f"DuplicateRule.keep is {self.keep!r}; give a whole number, at least 1")
        if self.near and not self.exact:
            raise UserError("DuplicateRule removes near duplicates but not exact ones; set exact too, or near to False")

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns why a document that did not survive goes.

        `row` has, besides the scores, the columns of the file of `choose_survivors` with the prefix `duplicates_`, none
        of them for a document without a row there. The detail names the survivor by `duplicates_survivor_id` if the row
        has it, else by its ordinal.
        """
        survivor = row.get("duplicates_survivor")
        if survivor is None or row["duplicates_survives"] or not self.exact:
            return None
        same = row["duplicates_exact"]
        if not same and not self.near:
            return None
        name = row.get("duplicates_survivor_id") or f"with ordinal {survivor}"
        if same:
            return Verdict(Reason.EXACT_DUPLICATE, f"same words as document {name}")
        return Verdict(Reason.NEAR_DUPLICATE, f"nearly the same as document {name}")

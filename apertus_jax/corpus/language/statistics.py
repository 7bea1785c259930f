"""Per-language confidence statistics of a corpus, and the score below which a label is in doubt."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError

STATISTICS_NAME = "language"
LOWEST_THRESHOLD = 0.3
HIGHEST_THRESHOLD = 0.9
# Scores are counted in steps of 1/10000, so that sums are exact and their order means nothing.
STEPS = 10_000


class LanguageStatistics:
    """Counts the scores of each label: rows one by one, or the counts of several tasks added together.

    Memory is bounded by the labels, not by the documents (at most 10,001 counts a label).
    """

    columns = ("language_label", "language_score")

    def __init__(self, sample_share: float = 1.0, seed: int = 0) -> None:
        if not 0 < sample_share <= 1:
            raise UserError(f"sample_share {sample_share} must be above 0 and at most 1")
        self._sample_share = sample_share
        self._seed = seed
        self._counts: dict[str, Counter[int]] = {}

    def add(self, row: Row) -> None:
        """Counts one row: `language_label` and `language_score`, and `document_id` where only a sample is taken.

        Rows without a score and rows of no language are passed over.
        """
        label, score = row["language_label"], row["language_score"]
        if label is None or score is None or label.startswith("und"):
            return
        if self._sample_share < 1 and not in_sample(row["document_id"], self._sample_share, self._seed):
            return
        self._counts.setdefault(label, Counter())[round(score * STEPS)] += 1

    def widen(self, other: LanguageStatistics) -> None:
        """Another rule's thresholds are the same ones."""

    def merge(self, other: LanguageStatistics) -> None:
        """Adds the counts of another part of the corpus."""
        for label, counts in other._counts.items():
            self._counts.setdefault(label, Counter()).update(counts)

    def result(self) -> dict[str, Any]:
        """Returns {"thresholds": label → τ, "languages": label → {"documents", "median", "deviation"}}, for JSON.

        τ = clip(median − standard deviation, 0.3, 0.9), the rule of FineWeb-2 (arXiv 2506.20920); the deviation is
        that of the whole population.
        """
        languages = {label: _figures(self._counts[label]) for label in sorted(self._counts)}
        thresholds = {
            label: round(min(max(figures["median"] - figures["deviation"], LOWEST_THRESHOLD), HIGHEST_THRESHOLD), 6)
            for label, figures in languages.items()
        }
        return {"thresholds": thresholds, "languages": languages}


def language_statistics(rows: Iterable[Row], sample_share: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Returns the result of `LanguageStatistics` over rows in any order, or over a sample of them by document id.

    Raises:
      UserError: the share is not in (0, 1].
    """
    statistics = LanguageStatistics(sample_share, seed)
    for row in rows:
        statistics.add(row)
    return statistics.result()


def in_sample(document_id: str, share: float, seed: int) -> bool:
    """Returns whether a document is in the sample: its keyed BLAKE2b digest, read as a fraction, is below the share."""
    digest = hashlib.blake2b(f"{seed}|{document_id}".encode(), digest_size=8, person=b"language-sample").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _figures(counts: Mapping[int, int]) -> dict[str, Any]:
    """Returns number, median and standard deviation of scores counted in steps."""
    number = sum(counts.values())
    total = sum(step * count for step, count in counts.items())
    squares = sum(step * step * count for step, count in counts.items())
    deviation = math.sqrt(number * squares - total * total) / number / STEPS
    median = (_ranked(counts, (number - 1) // 2) + _ranked(counts, number // 2)) / 2 / STEPS
    return {"documents": number, "median": round(median, 6), "deviation": round(deviation, 6)}


def _ranked(counts: Mapping[int, int], rank: int) -> int:
    """Returns the step of the score with that rank from 0."""
    for step in sorted(counts):
        rank -= counts[step]
        if rank < 0:
            return step
    raise AssertionError("rank is below the number of scores")

"""Benchmark overlap of a document: the two-stage rule of Apertus (arXiv 2509.14233, section 4.1.2).

First any shared run of 8 tokens, then matching blocks; blocks of fewer than 5 tokens do not count, and the ratio is
the share of the item's tokens in the blocks that do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apertus_jax.corpus.contamination.benchmark_index import BenchmarkIndex, read_benchmarks, tokens_of
from apertus_jax.corpus.contamination.matching import DocumentGrams, Work, WorkLimitError, matching_blocks
from apertus_jax.corpus.duplicates.words import unicode_versions
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

ALGORITHM_VERSION = 1


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class ContaminationScoring:
    """Options of the search for benchmark items and protected texts in documents.

    `benchmarks` are JSONL files of benchmark, item, text, or folders of them. `work_limit` bounds the steps that are
    spent on one document; what a document that needs more may repeat is reported as a bound above its ratio.
    """

    benchmarks: str | tuple[str, ...] = ()
    ngram: int = 8
    shortest_block: int = 5
    work_limit: int = 1 << 21

    def __post_init__(self):
        if isinstance(self.benchmarks, (str, os.PathLike)):
            object.__setattr__(self, "benchmarks", (os.fspath(self.benchmarks),) if self.benchmarks else ())
        object.__setattr__(self, "benchmarks", tuple(map(os.fspath, self.benchmarks)))
        for name, smallest in (("ngram", 1), ("shortest_block", 1), ("work_limit", 1000)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise UserError(f"ContaminationScoring.{name} is {value!r}; give a whole number, at least {smallest}")

    def build(self) -> ContaminationScorer:
        """Reads the benchmarks and returns the scorer.

        Raises:
          UserError: no benchmarks are given, they cannot be read, or no item is long enough to be found.
        """
        if not self.benchmarks:
            raise UserError("ContaminationScoring.benchmarks is empty; give JSONL files of benchmark, item, text")
        index = BenchmarkIndex(read_benchmarks(self.benchmarks), self.ngram)
        if index.too_short == len(index.items):
            raise UserError(f"benchmarks {', '.join(self.benchmarks)} hold no item of {self.ngram} tokens or more")
        return ContaminationScorer(self, index)


class ContaminationScorer:
    """Writes for each document the item that it repeats most. Follows the contract of `Scorer`."""

    def __init__(self, options: ContaminationScoring, index: BenchmarkIndex):
        self.options = options
        self.index = index

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns: the item that is repeated most, its blocks and ratio, and a bound on all ratios."""
        import pyarrow

        return [
            pyarrow.field("contamination_benchmark", pyarrow.string()),
            pyarrow.field("contamination_item", pyarrow.string()),
            pyarrow.field("contamination_blocks", pyarrow.list_(pyarrow.int64())),
            pyarrow.field("contamination_ratio", pyarrow.float64()),
            pyarrow.field("contamination_bound", pyarrow.float64()),
        ]

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the scores: options and the items, not where they lie."""
        options = {name: getattr(self.options, name) for name in ("ngram", "shortest_block", "work_limit")}
        return {
            "contamination": ALGORITHM_VERSION,
            **options,
            "items": len(self.index.items),
            "items_too_short": self.index.too_short,
            "benchmarks": self.index.digest,
            **unicode_versions(),
        }

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document.

        `contamination_blocks` are lengths in tokens, in the order of the document. No item is repeated by more than
        `contamination_bound`, which is the ratio itself unless work ran out before a comparison ended; then the item
        of that comparison is named if no item is known to be repeated.
        """
        return [self._row(tokens_of(document.text)) for document in documents]

    def _row(self, tokens: np.ndarray) -> dict[str, Any]:
        """Compares a document uint64[tokens] with its candidates and returns its row."""
        found, unresolved = self._compare(tokens)
        ratio, number, blocks = found or (0.0, None, [])
        bound = ratio
        if unresolved is not None:
            bound = max(ratio, unresolved[0])
            number = unresolved[1] if number is None else number
        item = None if number is None else self.index.items[number]
        return {
            "contamination_benchmark": item and item.benchmark,
            "contamination_item": item and item.item,
            "contamination_blocks": blocks,
            "contamination_ratio": ratio,
            "contamination_bound": bound,
        }

    def _compare(self, tokens: np.ndarray) -> tuple[tuple[float, int, list[int]] | None, tuple[float, int] | None]:
        """Returns (ratio, item, blocks) of the most repeated item and (bound, item) of what was not settled.

        Candidates are compared in the order of what they can reach at most, and those that cannot reach the best are
        left out; of equal ratios the first item counts.
        """
        candidates = self.index.candidates(tokens).tolist()
        if not candidates:
            return None, None
        work = Work(self.options.work_limit)
        grams = DocumentGrams(tokens, self.options.shortest_block)
        best: tuple[float, int, list[int]] | None = None
        unresolved: tuple[float, int] | None = None
        promising = []
        for number in candidates:
            item = self.index.item_tokens(number)
            try:
                work.spend(len(item))
            except WorkLimitError:
                # Nothing is known of this item and those after it.
                unresolved = (1.0, number)
                break
            promising.append((-grams.covered(item) / len(item), number))
        for negative_bound, number in sorted(promising):
            if best is not None and -negative_bound < best[0]:
                break
            item = self.index.item_tokens(number)
            try:
                found = matching_blocks(grams.segments(item, work), self.options.shortest_block, work)
            except WorkLimitError:
                unresolved = unresolved or (-negative_bound, number)
                continue
            blocks = [length for _, _, length in found]
            ratio = sum(blocks) / len(item)
            if blocks and (best is None or (-ratio, number) < (-best[0], best[1])):
                best = ratio, number, blocks
        return best, unresolved

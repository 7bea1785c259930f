"""Percentile thresholds of scores, measured on a uniform sample of the documents that consent allows.

Scores of a classifier are not calibrated, so a threshold is the score that a chosen share of documents exceeds. The
sample of a language is its documents with the smallest keyed hashes (a bottom-k sketch): uniform, independent of the
order of files and workers, and mergeable. Its record is the largest key that is in, the count and a digest; with the
seed this names every sampled document again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from apertus_jax.corpus.classifiers.keyed_hash import derived_keys
from apertus_jax.errors import UserError

SAMPLE_SIZE = 1_000_000
STATISTICS_NAME = "percentiles"
PURPOSE = "percentile sample"
ROWS_PER_BATCH = 4096
Record = np.dtype([("key", np.uint64), ("quality", np.float64), ("toxicity", np.float64)])


class BottomSample:
    """The `size` records with the smallest keys that were ever added: at most 2·size + one batch are held."""

    def __init__(self, size: int):
        self._size = size
        self._parts: list[np.ndarray] = []
        self._held = 0
        self.seen = 0

    def add(self, records: np.ndarray) -> None:
        """Adds records [n] of type `Record`."""
        self._parts.append(records)
        self._held += len(records)
        self.seen += len(records)
        if self._held > 2 * self._size:
            self._parts = [self.records()]
            self._held = len(self._parts[0])

    def merge(self, other: BottomSample) -> None:
        """Adds what another sample has seen; the result is that of one sample over both."""
        seen = self.seen + other.seen
        self.add(other.records())
        self.seen = seen

    def records(self) -> np.ndarray:
        """Returns the sample, sorted by key; scores break ties of copies, so that order never matters."""
        together = np.concatenate(self._parts) if self._parts else np.zeros(0, Record)
        order = np.lexsort((together["toxicity"], together["quality"], together["key"]))
        return together[order[: self._size]]


def quality_threshold(scores: np.ndarray, keep_share: float) -> float | None:
    """Returns the (1 − p) quantile: the smallest score that at least a share 1 − p of the scores does not exceed.

    Keeping what is greater keeps ⌊p·n⌋ of n distinct scores. None without scores.
    """
    ordered = np.sort(scores)
    if not len(ordered):
        return None
    rank = math.ceil((1 - Fraction(str(keep_share))) * len(ordered))
    return float(ordered[rank - 1]) if rank else -math.inf


def toxicity_threshold(scores: np.ndarray, drop_share: float) -> float | None:
    """Returns the smallest of the ⌊d·n⌋ largest scores; keeping what is smaller drops just these.

    None without scores; infinity where d·n is below 1 and nothing is dropped.
    """
    ordered = np.sort(scores)
    if not len(ordered):
        return None
    dropped = math.floor(Fraction(str(drop_share)) * len(ordered))
    return float(ordered[len(ordered) - dropped]) if dropped else math.inf


@dataclasses.dataclass(frozen=True)
class PercentileOptions:
    """Settings of percentiles: sample size and seed, and the shares that rules may ask for."""

    seed: int = 0
    sample_size: int = SAMPLE_SIZE
    quality_keep: tuple[float, ...] = (0.33, 0.10)
    toxicity_drop: tuple[float, ...] = (0.05,)
    language_column: str = "language"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          UserError: one is out of range.
        """
        if self.sample_size < 1:
            raise UserError(f"PercentileOptions.sample_size {self.sample_size} must be at least 1")
        for name in ("quality_keep", "toxicity_drop"):
            for share in getattr(self, name):
                if not 0 < share < 1:
                    raise UserError(f"PercentileOptions.{name} holds {share}; shares must lie between 0 and 1")


class PercentileSketch:
    """Samples of every language, fed row by row; sketches of parts of a corpus can be merged."""

    def __init__(self, options: PercentileOptions):
        self._options = options
        self._samples: dict[str, BottomSample] = {}
        self._waiting: dict[str, list[tuple[int, float, float]]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """What `add` reads of a row."""
        return ("sample_key", "quality_score", "toxicity_score", self._options.language_column)

    def widen(self, other: PercentileSketch) -> None:
        """Also measures the shares of another sketch that nothing was added to; one sample serves both."""
        mine, theirs = self._options, other._options
        shares: dict[str, Any] = {
            name: tuple(sorted({*getattr(mine, name), *getattr(theirs, name)}))
            for name in ("quality_keep", "toxicity_drop")
        }
        self._options = dataclasses.replace(mine, **shares)
        if self._options != dataclasses.replace(theirs, **shares):
            raise ValueError("sketches of other samples cannot be joined")

    def add(self, row: Mapping[str, Any]) -> None:
        """Looks at one row of scores; documents that were not evaluated are passed over."""
        key = row.get("sample_key")
        quality, toxicity = row.get("quality_score"), row.get("toxicity_score")
        if key is None or (quality is None and toxicity is None):
            return
        language = row.get(self._options.language_column) or "und"
        waiting = self._waiting.setdefault(language, [])
        waiting.append((key, math.nan if quality is None else quality, math.nan if toxicity is None else toxicity))
        if len(waiting) >= ROWS_PER_BATCH:
            self._flush(language)

    def add_columns(self, language: str, keys: np.ndarray, quality: np.ndarray, toxicity: np.ndarray) -> None:
        """Looks at many rows of one language: sample keys uint64 [n], scores float64 [n] with nan for none."""
        records = np.zeros(len(keys), Record)
        records["key"] = derived_keys(keys, PURPOSE, self._options.seed)
        records["quality"], records["toxicity"] = quality, toxicity
        self._samples.setdefault(language, BottomSample(self._options.sample_size)).add(records)

    def merge(self, other: PercentileSketch) -> None:
        """Adds what another sketch with the same options has seen."""
        if other._options != self._options:
            raise ValueError("sketches with different options cannot be merged")
        for language in sorted(other._waiting.keys() | other._samples.keys()):
            other._flush(language)
            mine = self._samples.setdefault(language, BottomSample(self._options.sample_size))
            mine.merge(other._samples[language])

    def result(self) -> dict[str, Any]:
        """Returns the thresholds, `{"seed": …, "languages": {language: {…}}}`, JSON only; infinities become null."""
        for language in sorted(self._waiting):
            self._flush(language)
        languages = {name: self._language(sample) for name, sample in sorted(self._samples.items())}
        return {"seed": self._options.seed, "languages": languages}

    def _flush(self, language: str) -> None:
        waiting = self._waiting.pop(language, [])
        if waiting:
            keys, quality, toxicity = zip(*waiting, strict=True)
            self.add_columns(language, np.array(keys, np.uint64), np.array(quality), np.array(toxicity))

    def _language(self, sample: BottomSample) -> dict[str, Any]:
        records = sample.records()
        quality = records["quality"][~np.isnan(records["quality"])]
        toxicity = records["toxicity"][~np.isnan(records["toxicity"])]
        return {
            "seen": sample.seen,
            "sampled": len(records),
            "largest_key": int(records["key"][-1]),
            "sample_digest": hashlib.blake2b(records["key"].astype("<u8").tobytes(), digest_size=16).hexdigest(),
            "quality": _thresholds(quality, self._options.quality_keep, quality_threshold, np.greater),
            "toxicity": _thresholds(toxicity, self._options.toxicity_drop, toxicity_threshold, np.greater_equal),
        }


def _thresholds(scores: np.ndarray, shares: Sequence[float], threshold_of: Any, beyond: Any) -> dict[str, Any]:
    """Returns for every share the threshold, n, and the share of the sample that really lies beyond it."""
    found = {}
    for share in shares:
        threshold = threshold_of(scores, share)
        if threshold is not None:
            found[share_name(share)] = {
                "threshold": threshold if math.isfinite(threshold) else None,
                "scores": len(scores),
                "share": round(float(beyond(scores, threshold).mean()), 6),
            }
    return found


def share_name(share: float) -> str:
    """Returns the spelling of a share in the statistics."""
    return f"{share:.6g}"


def percentile_statistics(
    rows: Iterable[Mapping[str, Any]],
    seed: int = 0,
    sample_size: int = SAMPLE_SIZE,
    quality_keep: Sequence[float] = (0.33, 0.10),
    toxicity_drop: Sequence[float] = (0.05,),
    language_column: str = "language",
) -> dict[str, Any]:
    """Returns the thresholds of every language from rows that consent allows, in one pass and any order.

    Memory is at most 48 bytes · sample_size · languages. The result goes into the `statistics` of the rules.
    """
    options = PercentileOptions(seed, sample_size, tuple(quality_keep), tuple(toxicity_drop), language_column)
    sketch = PercentileSketch(options)
    for row in rows:
        sketch.add(row)
    return {STATISTICS_NAME: sketch.result()}

"""Deduplication keys of a document: an exact hash and MinHash band keys."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apertus_jax.corpus.duplicates import signatures, words
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

SCOPES = ("language", "source", "global")
DIGEST_BYTES = 16
SHINGLES_AT_ONCE = 1 << 18
# Raised when the same options would give other keys than before.
ALGORITHM_VERSION = 1


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class DuplicateScoring:
    """Options of the duplicate search; the defaults are FineWeb's: 5-grams of words, 14 bands of 8 hashes, seed 1.

    `scope` says among which documents duplicates count: those of one `language`, of one `source`, or all (`global`).
    """

    ngram: int = 5
    bands: int = 14
    rows: int = 8
    seed: int = 1
    scope: str = "language"

    def __post_init__(self):
        for name, largest in (("ngram", 100), ("bands", 256), ("rows", 64)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
                raise UserError(f"DuplicateScoring.{name} is {value!r}; give a whole number from 1 to {largest}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 32:
            raise UserError(f"DuplicateScoring.seed is {self.seed!r}; give a whole number from 0 to 2^32 - 1")
        if self.scope not in SCOPES:
            raise UserError(f"DuplicateScoring.scope is {self.scope!r}; give one of {', '.join(SCOPES)}")

    def build(self) -> DuplicateScorer:
        """Returns the scorer of these options."""
        return DuplicateScorer(self)

    def scope_of(self, source: str, language: str) -> int:
        """Returns the 64-bit number of the group of documents in which those of this source and language compete."""
        name = {"language": language, "source": source, "global": ""}[self.scope]
        return int.from_bytes(hashlib.blake2b(f"{self.scope}|{name}".encode(), digest_size=8).digest(), "little")

    def match_probability(self, similarity: float) -> float:
        """Returns the probability that two documents of a Jaccard similarity share a band: 1 - (1 - s^rows)^bands."""
        return 1 - (1 - similarity**self.rows) ** self.bands


class DuplicateScorer:
    """Writes the keys of documents. Follows the contract of `Scorer`."""

    def __init__(self, options: DuplicateScoring):
        self.options = options
        self._signatures = signatures.signatures(options.bands * options.rows, options.seed)

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns: digest of the text, key of its words, number of words, band keys."""
        import pyarrow

        return [
            pyarrow.field("duplicates_text_digest", pyarrow.string()),
            pyarrow.field("duplicates_exact_key", pyarrow.string()),
            pyarrow.field("duplicates_words", pyarrow.int64()),
            pyarrow.field("duplicates_bands", pyarrow.list_(pyarrow.uint64())),
        ]

    def identity(self) -> Mapping[str, Any]:
        """Returns what decides the keys; the scope does not, it is applied when key files are written."""
        options = {name: getattr(self.options, name) for name in ("ngram", "bands", "rows", "seed")}
        return {"duplicates": ALGORITHM_VERSION, **options, **words.unicode_versions()}

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document.

        `duplicates_text_digest` is the BLAKE2b-128 of the text as it is, `duplicates_exact_key` of its normalised
        words with their numbers (of the text as it is when it has no words), both hexadecimal.
        """
        rows: list[dict[str, Any]] = []
        pending: list[np.ndarray] = []
        size = 0
        for document in documents:
            row, shingles = self._keys(document.text)
            rows.append(row)
            pending.append(shingles)
            size += len(shingles)
            if size >= SHINGLES_AT_ONCE:
                self._add_bands(rows, pending)
                pending, size = [], 0
        self._add_bands(rows, pending)
        return rows

    def _keys(self, text: str) -> tuple[dict[str, Any], np.ndarray]:
        """Returns the row of a text without its bands, and the shingle hashes uint64[shingles] they come from."""
        raw = text.encode(errors="surrogatepass")
        normalized = words.normalized_words(text)
        content = normalized.encode(errors="surrogatepass") if normalized else raw
        row = {
            "duplicates_text_digest": hashlib.blake2b(raw, digest_size=DIGEST_BYTES).hexdigest(),
            "duplicates_exact_key": hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest(),
            "duplicates_words": normalized.count(" ") + 1 if normalized else 0,
        }
        if not normalized:
            # Symbols only: the text as it is is the one shingle, so that unlike texts do not meet.
            return row, signatures.shingle_hashes(raw, len(raw) + 1)
        folded = words.fold_numbers(normalized)
        content = content if folded is normalized else folded.encode(errors="surrogatepass")
        return row, signatures.shingle_hashes(content, self.options.ngram)

    def _add_bands(self, rows: list[dict[str, Any]], shingles: Sequence[np.ndarray]) -> None:
        """Writes the band keys of the last documents into their rows."""
        minima = self._signatures.minima(shingles)
        keys = signatures.band_keys(minima, self.options.bands).tolist()
        for row, bands in zip(rows[len(rows) - len(shingles) :], keys, strict=True):
            row["duplicates_bands"] = bands

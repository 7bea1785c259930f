"""Quality measures of a document in one pass: words, symbols, lines, repetition."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apertus_jax.corpus.batching import batched
from apertus_jax.corpus.quality.lines import count_character, ellipses, line_features
from apertus_jax.corpus.quality.repetition import DUPLICATE_N_GRAMS, TOP_N_GRAMS, n_gram_characters
from apertus_jax.corpus.quality.words import UNITS_PER_WORD, Words, segment
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

# The words of Gopher's stop-word rule (arXiv 2112.11446, appendix A.1.1).
ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# Documents are measured together up to this many characters: large enough for NumPy, small enough for the cache.
CHARACTERS_AT_ONCE = 1 << 17
DECIMALS = 6
COUNTS = ("characters", "words", "lines")
SHARES = (
    "mean_word_length",
    "unspaced_share",
    "hashes_per_word",
    "ellipses_per_word",
    "alphabetic_word_share",
    "bullet_line_share",
    "ellipsis_line_share",
    "terminal_line_share",
    "short_line_share",
    "newlines_per_word",
    "duplicate_line_share",
    "duplicate_line_character_share",
    "duplicate_paragraph_share",
    "duplicate_paragraph_character_share",
    *(f"top_{n}_gram" for n in TOP_N_GRAMS),
    *(f"duplicate_{n}_gram" for n in DUPLICATE_N_GRAMS),
)
# Raised whenever the same options would give another score.
VERSION = 1


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class QualityScoring:
    """Settings of the quality measures.

    Attributes:
      stop_words: ISO 639-3 code → words of which good text in that language holds some.
      longest: of a longer document only this many characters at its beginning are measured (its length is still that
        of the whole), which bounds time and memory.
    """

    stop_words: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {"eng": ENGLISH_STOP_WORDS})
    longest: int = 2_000_000

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise UserError(f"longest {self.longest} must be at least 1 character")
        for language, words in self.stop_words.items():
            if isinstance(words, str) or not words:
                raise UserError(f"stop_words of {language} must be a list of words, found {words!r}")
            for word in words:
                found = segment([word])
                if len(found.start) != 1 or found.end[0] - found.start[0] != len(word):
                    raise UserError(f"stop word {word!r} of {language} is not one word here; leave it out")

    def build(self) -> QualityScorer:
        """Returns the scorer."""
        return QualityScorer(self)


@dataclasses.dataclass(frozen=True)
class QualityScorer:
    """A `Scorer` of what can be counted in a text without a model."""

    options: QualityScoring

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns, all prefixed `quality_`; what counts as a word is told in `quality.words`.

        - characters, words (free symbols aside), lines (that are not blank)
        - mean_word_length: of words in scripts with spaces; unspaced_share: share of words in scripts without
        - hashes_per_word, ellipses_per_word, newlines_per_word: "#", "…" or "...", newlines, per word or free symbol
        - alphabetic_word_share: words with a letter, of words and free symbols
        - stop_words_xxx: how many different stop words of a language occur, whether small, Capital or CAPITALS
        - the shares of `quality.lines`
        - top_n_gram, duplicate_n_gram: share of the characters, see `quality.repetition`
        """
        import pyarrow

        counts = (*COUNTS, *(f"stop_words_{language}" for language in sorted(self.options.stop_words)))
        fields = [pyarrow.field(f"quality_{name}", pyarrow.int64()) for name in counts]
        return fields + [pyarrow.field(f"quality_{name}", pyarrow.float64()) for name in SHARES]

    def identity(self) -> Mapping[str, Any]:
        """Returns the options and the version of the Unicode tables."""
        import regex

        stop_words = {language: list(words) for language, words in sorted(self.options.stop_words.items())}
        return {
            "version": VERSION,
            "stop_words": stop_words,
            "longest": self.options.longest,
            "regex": regex.__version__,
        }

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document, in order."""
        rows: list[Row] = []
        for texts in batched((document.text for document in documents), weight=len, heaviest=CHARACTERS_AT_ONCE):
            rows.extend(self._measure(texts))
        return rows

    def _measure(self, texts: Sequence[str]) -> list[Row]:
        words = segment([text[: self.options.longest] for text in texts])
        columns = features(words)
        columns["characters"] = np.fromiter(map(len, texts), np.int64, len(texts))
        for language, stop_words in self.options.stop_words.items():
            columns[f"stop_words_{language}"] = count_stop_words(words, stop_words)
        names = [field.name.removeprefix("quality_") for field in self.schema()]
        values = [
            (np.round(columns[name], DECIMALS) if name in SHARES else columns[name].astype(np.int64)).tolist()
            for name in names
        ]
        keys = [f"quality_{name}" for name in names]
        return [dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)]


def features(words: Words) -> dict[str, np.ndarray]:
    """Returns the measures of each document but `characters` and stop words, by name without prefix."""
    spaced = (words.units == UNITS_PER_WORD) & ~words.symbol
    all_units = words.sums(words.units)
    units = words.sums(np.where(words.symbol, 0, words.units))
    spaced_words = words.sums(spaced)
    length = np.maximum(words.document_end - words.document_start, 1)
    tokens = np.maximum(all_units, 1) / UNITS_PER_WORD
    lines = line_features(words)
    columns = {
        "words": (units + 1) // UNITS_PER_WORD,
        "mean_word_length": words.sums(np.where(spaced, words.end - words.start, 0)) / np.maximum(spaced_words, 1),
        "unspaced_share": (units - UNITS_PER_WORD * spaced_words) / np.maximum(units, 1),
        "hashes_per_word": count_character(words, "#") / tokens,
        "ellipses_per_word": ellipses(words) / tokens,
        "alphabetic_word_share": words.sums(np.where(words.letter, words.units, 0)) / np.maximum(all_units, 1),
        "newlines_per_word": lines.pop("newlines") / tokens,
        **lines,
    }
    for n, characters in n_gram_characters(words).items():
        columns[f"top_{n}_gram" if n in TOP_N_GRAMS else f"duplicate_{n}_gram"] = characters / length
    return columns


def count_stop_words(words: Words, stop_words: Sequence[str]) -> np.ndarray:
    """Returns how many different ones of the stop words occur in each document, int64[documents]."""
    spellings = {
        spelling: i for i, word in enumerate(stop_words) for spelling in (word, word.capitalize(), word.upper())
    }
    known = segment(list(spellings))
    fingerprints = known.fingerprints.of(known.document_start, known.document_end)
    order = np.argsort(fingerprints)
    fingerprints, numbers = fingerprints[order], np.fromiter(spellings.values(), np.int64)[order]
    short = np.flatnonzero(words.end - words.start <= max(map(len, spellings)))
    own = words.fingerprints.of(words.start[short], words.end[short])
    place = np.minimum(np.searchsorted(fingerprints, own), len(fingerprints) - 1)
    hit = fingerprints[place] == own
    document = words.document_of(words.start[short[hit]])
    found = np.zeros((len(words.document_start), len(stop_words)), bool)
    found[document, numbers[place[hit]]] = True
    return found.sum(axis=1)

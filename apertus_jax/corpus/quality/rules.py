"""Quality rules: the thresholds of Gopher, FineWeb and FineWeb-2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from apertus_jax.corpus.language.rules import document_language, language_in
from apertus_jax.corpus.language_codes import language_label
from apertus_jax.corpus.quality.repetition import DUPLICATE_N_GRAMS, TOP_N_GRAMS
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

ENGLISH = ("eng",)


class Limit(NamedTuple):
    """A column of the row (without `quality_`), the field that bounds it, and the reason when it is out of bounds."""

    column: str
    field: str
    reason: Reason

    @property
    def is_minimum(self) -> bool:
        return self.field.startswith("minimum")


# Asked in this order.
LIMITS = (
    Limit("words", "minimum_words", Reason.LENGTH),
    Limit("words", "maximum_words", Reason.LENGTH),
    Limit("mean_word_length", "minimum_mean_word_length", Reason.WORDS),
    Limit("mean_word_length", "maximum_mean_word_length", Reason.WORDS),
    Limit("alphabetic_word_share", "minimum_alphabetic_word_share", Reason.WORDS),
    Limit("stop_words", "minimum_stop_words", Reason.WORDS),
    Limit("hashes_per_word", "maximum_hashes_per_word", Reason.SYMBOLS),
    Limit("ellipses_per_word", "maximum_ellipses_per_word", Reason.SYMBOLS),
    Limit("bullet_line_share", "maximum_bullet_line_share", Reason.LINES),
    Limit("ellipsis_line_share", "maximum_ellipsis_line_share", Reason.LINES),
    Limit("terminal_line_share", "minimum_terminal_line_share", Reason.LINES),
    Limit("short_line_share", "maximum_short_line_share", Reason.LINES),
    Limit("newlines_per_word", "maximum_newlines_per_word", Reason.LINES),
    Limit("duplicate_line_share", "maximum_duplicate_line_share", Reason.REPETITION),
    Limit("duplicate_line_character_share", "maximum_duplicate_line_character_share", Reason.REPETITION),
    Limit("duplicate_paragraph_share", "maximum_duplicate_paragraph_share", Reason.REPETITION),
    Limit("duplicate_paragraph_character_share", "maximum_duplicate_paragraph_character_share", Reason.REPETITION),
)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class QualityRule:
    """Heuristic limits; a field that is None asks nothing. The defaults follow FineWeb-2 (arXiv 2506.20920).

    FineWeb-2 fits word lengths, stop words and repetition limits to each language. The defaults are its common
    settings, with word lengths wide enough for every language that spaces its words; give further rules with their
    own `languages` for more. In scripts without spaces neither the mean word length nor the stop words are asked.

    Attributes:
      languages: labels or languages (`deu_Latn`, `deu`, `de`) that the rule is about; empty means all.
      except_languages: those that it is not about.
      trust_declared: as in `LanguageRule`: whether a declared language says which language the document is in.
      top_n_grams, duplicate_n_grams: pairs (n, largest share of the characters); n = 2 … 4 and 5 … 10.
    """

    languages: tuple[str, ...] = ()
    except_languages: tuple[str, ...] = ENGLISH
    trust_declared: bool = True
    reads: ClassVar[tuple[str, ...]] = ("quality_words", "language_label", "language_declared")
    minimum_words: int | None = 50
    maximum_words: int | None = 100_000
    minimum_mean_word_length: float | None = 1
    maximum_mean_word_length: float | None = 20
    minimum_alphabetic_word_share: float | None = 0.75
    minimum_stop_words: int | None = 2
    maximum_hashes_per_word: float | None = 0.1
    maximum_ellipses_per_word: float | None = 0.1
    maximum_bullet_line_share: float | None = 0.9
    maximum_ellipsis_line_share: float | None = 0.3
    minimum_terminal_line_share: float | None = None
    maximum_short_line_share: float | None = None
    maximum_newlines_per_word: float | None = 0.3
    maximum_duplicate_line_share: float | None = 0.3
    maximum_duplicate_line_character_share: float | None = 0.1
    maximum_duplicate_paragraph_share: float | None = None
    maximum_duplicate_paragraph_character_share: float | None = None
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.20), (3, 0.18), (4, 0.16))
    duplicate_n_grams: tuple[tuple[int, float], ...] = (
        (5, 0.15),
        (6, 0.14),
        (7, 0.13),
        (8, 0.12),
        (9, 0.11),
        (10, 0.10),
    )

    def __post_init__(self) -> None:
        for name, known in (("top_n_grams", TOP_N_GRAMS), ("duplicate_n_grams", DUPLICATE_N_GRAMS)):
            pairs = tuple((int(n), float(share)) for n, share in getattr(self, name) or ())
            object.__setattr__(self, name, pairs)
            for n, share in pairs:
                if n not in known:
                    raise UserError(f"{name} of the quality rule: n = {n} is not in {known[0]} … {known[-1]}")
                _check_share(f"{name} {n}", share)
        for limit in LIMITS:
            value = getattr(self, limit.field)
            if value is None:
                continue
            if value < 0:
                raise UserError(f"{limit.field} {value} of the quality rule must not be negative; None switches it off")
            if limit.column.endswith("_share"):
                _check_share(limit.field, value)
        for name in ("languages", "except_languages"):
            languages = getattr(self, name)
            if isinstance(languages, str):
                raise UserError(f"{name} {languages!r} of the quality rule must be a list; write [{languages!r}]")
            object.__setattr__(self, name, tuple(languages))
            for language in languages:
                if language_label(language) == "und":
                    raise UserError(f"{name} of the quality rule: {language!r} is no language; write gsw_Latn or gsw")

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns the first limit that the document passes, as "top_2_gram 0.31 > 0.2"; `statistics` are not used."""
        if row["quality_words"] is None or not self._is_about(row):
            return None
        for column, value, bound, is_minimum, reason in self._questions(row):
            if value < bound if is_minimum else value > bound:
                return Verdict(reason, f"{column} {value:.6g} {'<' if is_minimum else '>'} {bound:.6g}")
        return None

    def _is_about(self, row: Row) -> bool:
        label = document_language(row, self.trust_declared) or "und"
        if self.languages and not language_in(label, self.languages):
            return False
        return not language_in(label, self.except_languages)

    def _questions(self, row: Row) -> Iterator[tuple[str, float, float, bool, Reason]]:
        """Yields (name, value, bound, whether it is a lower bound, reason) of everything asked about a document."""
        spaced = row["quality_unspaced_share"] <= 0.5
        for limit in LIMITS:
            bound, column = getattr(self, limit.field), limit.column
            if bound is None or (column in ("mean_word_length", "stop_words") and not spaced):
                continue
            if column == "stop_words":
                of_language = self._stop_word_column(row)
                if of_language is None:
                    continue
                column = of_language
            yield column, row[f"quality_{column}"], bound, limit.is_minimum, limit.reason
        for kind, pairs in (("top", self.top_n_grams), ("duplicate", self.duplicate_n_grams)):
            for n, bound in pairs:
                yield f"{kind}_{n}_gram", row[f"quality_{kind}_{n}_gram"], bound, False, Reason.REPETITION

    def _stop_word_column(self, row: Row) -> str | None:
        """Returns the column of the stop words of the document's language, None where it has none."""
        label = document_language(row, self.trust_declared) or "und"
        column = f"stop_words_{label.split('_')[0]}"
        return column if f"quality_{column}" in row else None


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class EnglishQualityRule(QualityRule):
    """The limits for English: Gopher (arXiv 2112.11446, tables A1 and A.1.1) and FineWeb (arXiv 2406.17557)."""

    languages: tuple[str, ...] = ENGLISH
    except_languages: tuple[str, ...] = ()
    minimum_mean_word_length: float | None = 3
    maximum_mean_word_length: float | None = 10
    minimum_alphabetic_word_share: float | None = 0.8
    minimum_terminal_line_share: float | None = 0.12
    maximum_short_line_share: float | None = 0.67
    maximum_duplicate_line_character_share: float | None = 0.01
    maximum_duplicate_paragraph_share: float | None = 0.3
    maximum_duplicate_paragraph_character_share: float | None = 0.2


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} {value} of the quality rule must lie between 0 and 1; None switches it off")

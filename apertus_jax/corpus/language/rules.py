"""Language rule: which languages stay, and the confidence that they need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from apertus_jax.corpus.language.statistics import STATISTICS_NAME, LanguageStatistics
from apertus_jax.corpus.language_codes import UNKNOWN_CODES, individual_language, language_label
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.scorer import Row, Sketch
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation


def document_language(row: Row, trust_declared: bool) -> str | None:
    """Returns the label that a document goes by: the declared one where it counts and exists, else the model's.

    None where the languages of the document were not scored.
    """
    declared = row["language_declared"]
    if trust_declared and declared is not None and not _is_unknown(declared):
        return declared
    return row["language_label"]


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class LanguageRule:
    """Keeps documents whose language is known, certain enough, and wanted.

    Attributes:
      trust_declared: a declared language wins over the model and needs no score. The default model knows 176
        languages and calls every other by the name of a neighbour, so that curated sources in more languages need
        this; for crawls, whose declarations are often wrong, switch it off.
      keep: labels or languages (`gsw_Latn`, `gsw`, `de`) to keep; empty keeps all.
      drop: labels or languages to drop, also where `keep` names them.
      keep_unknown: whether documents of no known language stay.
      threshold: lowest score of the model's label, where no threshold of that language is known.
      per_language_thresholds: whether the corpus' own thresholds are used, see `language_statistics`.
    """

    trust_declared: bool = True
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep_unknown: bool = False
    threshold: float = 0.3
    per_language_thresholds: bool = True
    names_language: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("language_label", "language_declared", "language_score")

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold {self.threshold} of the language rule must lie between 0 and 1")
        for name in ("keep", "drop"):
            languages = getattr(self, name)
            if isinstance(languages, str):
                raise UserError(f"{name} {languages!r} of the language rule must be a list; write [{languages!r}]")
            object.__setattr__(self, name, tuple(languages))
            for language in languages:
                if _is_unknown(language_label(language)):
                    raise UserError(f"{name} of the language rule: {language!r} is no language; write gsw_Latn or gsw")

    def statistics(self) -> dict[str, Sketch]:
        """Asks for the corpus' own thresholds, where they are to be used."""
        return {STATISTICS_NAME: LanguageStatistics()} if self.per_language_thresholds else {}

    def language(self, row: Row) -> str | None:
        """Returns the label that this rule gives a document, None where it was not scored."""
        return document_language(row, self.trust_declared)

    def verdict(self, row: Row, statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns why the document must go; uses `statistics["language"]["thresholds"]` where there are any."""
        label = self.language(row)
        if label is None:
            return None
        if _is_unknown(label):
            return None if self.keep_unknown else Verdict(Reason.LANGUAGE_UNKNOWN, label)
        if not (self.trust_declared and label == row["language_declared"]):
            threshold = self._threshold(label, statistics)
            if row["language_score"] < threshold:
                detail = f"{label} {row['language_score']:.4g} < {threshold:.4g}"
                return Verdict(Reason.LANGUAGE_UNCERTAIN, detail)
        if language_in(label, self.drop):
            return Verdict(Reason.LANGUAGE_NOT_WANTED, f"{label} is to be dropped")
        if self.keep and not language_in(label, self.keep):
            return Verdict(Reason.LANGUAGE_NOT_WANTED, f"{label} is not among those to keep")
        return None

    def _threshold(self, label: str, statistics: Mapping[str, Any]) -> float:
        if not self.per_language_thresholds:
            return self.threshold
        return statistics.get(STATISTICS_NAME, {}).get("thresholds", {}).get(label, self.threshold)


@functools.lru_cache(maxsize=4096)
def language_in(label: str, languages: tuple[str, ...]) -> bool:
    """Returns whether a label is among labels and languages; one without a script means every script."""
    for language in languages:
        named = language_label(language)
        if label == named if _names_script(language) else label.split("_")[0] == individual_language(named[:3]):
            return True
    return False


def _names_script(language: str) -> bool:
    return any(len(part) == 4 and part.isalpha() for part in language.replace("-", "_").split("_")[1:])


def _is_unknown(label: str) -> bool:
    return label.split("_")[0] in UNKNOWN_CODES

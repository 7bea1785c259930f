"""Quality and toxicity rules: keep the best share by quality, drop the worst share by toxicity.

Source: docs/reference/data.md §5, §6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from apertus_jax.corpus.classifiers.keyed_hash import chosen
from apertus_jax.corpus.classifiers.percentiles import (
    STATISTICS_NAME,
    PercentileOptions,
    PercentileSketch,
    share_name,
)
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.scorer import Sketch
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

TOXICITY_LANGUAGES = (
    "eng_Latn", "cmn_Hani", "fra_Latn", "deu_Latn", "ita_Latn", "nld_Latn", "pol_Latn", "spa_Latn", "por_Latn",
)  # fmt: skip
QUALITY_LANGUAGES = (
    *TOXICITY_LANGUAGES,
    "rus_Cyrl", "jpn_Jpan", "ind_Latn", "tur_Latn", "ces_Latn", "vie_Latn", "swe_Latn", "fas_Arab", "arb_Arab",
    "ell_Grek", "dan_Latn", "hun_Latn",
)  # fmt: skip
MIN_SAMPLED = 100


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class QualityScoreRule:
    """Keeps the share of each language that scores highest.

    A language without a classifier (not in `languages`, not scored, or with fewer than `fewest_sampled` scores to take
    a percentile of) keeps a random sample instead, so that its part of the corpus follows the others.

    Attributes:
      keep_share: p; a document is kept when its score exceeds the (1 − p) quantile of its language.
      keep_shares: language → p where it differs.
      languages: where the classifier is trusted.
      fallback_share: share of a random sample elsewhere (0.33 · 0.95 in the paper); 1 keeps everything.
      thresholds: language → threshold, which wins over any percentile.
      seed: of the random sample.
      fewest_sampled: fewest scores that make a percentile.
      language_column: the column with the language; `prepare` puts the label that the ledger shows in `language`.
    """

    keep_share: float = 0.33
    keep_shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    languages: tuple[str, ...] = QUALITY_LANGUAGES
    fallback_share: float = 0.3135
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seed: int = 0
    fewest_sampled: int = MIN_SAMPLED
    language_column: str = "language"
    reads: ClassVar[tuple[str, ...]] = ("quality_score", "sample_key")

    def __post_init__(self) -> None:
        """Checks the shares.

        Raises:
          UserError: one does not lie between 0 and 1.
        """
        _require_share("QualityScoreRule.keep_share", self.keep_share, open_end=True)
        for share in self.keep_shares.values():
            _require_share("QualityScoreRule.keep_shares", share, open_end=True)
        _require_share("QualityScoreRule.fallback_share", self.fallback_share)
        _require_languages("QualityScoreRule", self.languages)

    def statistics(self) -> dict[str, Sketch]:
        """Asks for the percentiles of its shares."""
        shares = tuple(sorted({self.keep_share, *self.keep_shares.values()}))
        return {STATISTICS_NAME: PercentileSketch(PercentileOptions(quality_keep=shares, toxicity_drop=()))}

    def verdict(self, row: Mapping[str, Any], statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns a verdict for a document below its language's threshold or outside the sample.

        Raises:
          UserError: no threshold was measured for this rule's share.
        """
        if row.get("sample_key") is None:
            return None
        language, score = row.get(self.language_column) or "und", row.get("quality_score")
        threshold = self.thresholds.get(language)
        if threshold is None and language in self.languages and score is not None:
            share = self.keep_shares.get(language, self.keep_share)
            threshold = _percentile(statistics, language, "quality", share, self.fewest_sampled)
        if threshold is not None and score is not None:
            if score > threshold:
                return None
            return Verdict(Reason.QUALITY, f"score {score:.6f} not above {threshold:.6f} ({language})")
        if chosen(row["sample_key"], self.fallback_share, "quality sample", self.seed):
            return None
        return Verdict(Reason.QUALITY, f"not in the share {self.fallback_share:g} sampled ({language})")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class ToxicityRule:
    """Drops the share of each language that scores highest.

    Attributes:
      drop_share: d; a document is kept when its score is below the threshold that a share d reaches.
      languages: where the classifier is trusted; others are not judged.
      thresholds: language → threshold, which wins over any percentile.
      random_languages: languages without a classifier that lose a random share instead; volumes stay comparable.
      seed: of the random share.
      fewest_sampled: with fewer scores of a language there is no percentile, and nothing is dropped.
      language_column: the column with the language; `prepare` puts the label that the ledger shows in `language`.
    """

    drop_share: float = 0.05
    languages: tuple[str, ...] = TOXICITY_LANGUAGES
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    random_languages: tuple[str, ...] = ()
    seed: int = 0
    fewest_sampled: int = MIN_SAMPLED
    language_column: str = "language"
    reads: ClassVar[tuple[str, ...]] = ("toxicity_score", "sample_key")

    def __post_init__(self) -> None:
        """Checks the share.

        Raises:
          UserError: it does not lie between 0 and 1, or a language is in both lists.
        """
        _require_share("ToxicityRule.drop_share", self.drop_share, open_end=True)
        _require_languages("ToxicityRule", self.languages)
        both = sorted(set(self.languages) & set(self.random_languages))
        if both:
            raise UserError(f"ToxicityRule has {both[0]} in languages and in random_languages; remove it from one")

    def statistics(self) -> dict[str, Sketch]:
        """Asks for the percentile of its share."""
        options = PercentileOptions(quality_keep=(), toxicity_drop=(self.drop_share,))
        return {STATISTICS_NAME: PercentileSketch(options)}

    def verdict(self, row: Mapping[str, Any], statistics: Mapping[str, Any]) -> Verdict | None:
        """Returns a verdict for a document at or above its language's threshold.

        Raises:
          UserError: no threshold was measured for this rule's share.
        """
        if row.get("sample_key") is None:
            return None
        language, score = row.get(self.language_column) or "und", row.get("toxicity_score")
        if language in self.random_languages:
            if chosen(row["sample_key"], 1 - self.drop_share, "toxicity sample", self.seed):
                return None
            return Verdict(Reason.TOXICITY, f"in the random share {self.drop_share:g} ({language})")
        if score is None:
            return None
        threshold = self.thresholds.get(language)
        if threshold is None and language in self.languages:
            threshold = _percentile(statistics, language, "toxicity", self.drop_share, self.fewest_sampled)
        if threshold is None or score < threshold:
            return None
        return Verdict(Reason.TOXICITY, f"score {score:.6f} not below {threshold:.6f} ({language})")


def _percentile(statistics: Mapping[str, Any], language: str, task: str, share: float, fewest: int) -> float | None:
    """Returns the measured threshold of a language, None where too few scores stand behind it."""
    measured = statistics.get(STATISTICS_NAME, {}).get("languages", {}).get(language, {}).get(task, {})
    entry = measured.get(share_name(share))
    if entry is None:
        raise UserError(
            f"no {task} percentile for the share {share_name(share)} of {language} was measured "
            f"(there are {', '.join(sorted(measured)) or 'none'}); aggregate with this share"
        )
    return entry["threshold"] if entry["scores"] >= fewest else None


def _require_share(name: str, share: float, open_end: bool = False) -> None:
    if not 0 <= share <= 1 or (open_end and share in (0, 1)):
        raise UserError(f"{name} {share} must lie between 0 and 1")


def _require_languages(name: str, languages: Any) -> None:
    if isinstance(languages, str):
        raise UserError(f"{name}.languages is the text {languages!r}; give a list of labels such as ['deu_Latn']")

"""What rules need to know about the whole corpus: thresholds of languages, percentiles of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from apertus_jax.corpus.classifiers import QualityScoreRule, ToxicityRule, percentile_statistics
from apertus_jax.corpus.language import LanguageRule, language_statistics
from apertus_jax.corpus.prepare.policy import Policy, part_of
from apertus_jax.corpus.scorer import Row

SAMPLE_SIZE = 1_000_000
LANGUAGE_COLUMNS = ("language_label", "language_score", "language_declared")
PERCENTILE_COLUMNS = (*LANGUAGE_COLUMNS, "sample_key", "quality_score", "toxicity_score")


def gather_statistics(
    policy: Policy, rows_of: Callable[[Sequence[str]], Iterable[Row]], sample_size: int = SAMPLE_SIZE
) -> dict[str, Any]:
    """Returns the statistics that the policy's rules ask for, as JSON.

    Args:
      policy: its rules say what is wanted.
      rows_of: streams these columns of all documents whose text was looked at, and their `language`.
      sample_size: documents per language from which percentiles are taken.
    """
    statistics: dict[str, Any] = {}
    language = part_of(policy.content_rules, LanguageRule)
    if language is not None and language.per_language_thresholds:
        statistics["language"] = language_statistics(rows_of(LANGUAGE_COLUMNS))
    quality = part_of(policy.content_rules, QualityScoreRule)
    toxicity = part_of(policy.content_rules, ToxicityRule)
    if quality is not None or toxicity is not None:
        statistics |= percentile_statistics(
            rows_of(PERCENTILE_COLUMNS),
            sample_size=sample_size,
            quality_keep=sorted({quality.keep_share, *quality.keep_shares.values()}) if quality else (),
            toxicity_drop=(toxicity.drop_share,) if toxicity else (),
            language_column="language",
        )
    return statistics

"""Heuristic quality filters: measures of text, and the limits on them."""

from apertus_jax.corpus.quality.rules import EnglishQualityRule, QualityRule
from apertus_jax.corpus.quality.scoring import QualityScorer, QualityScoring
from apertus_jax.corpus.quality.words import Words, segment

__all__ = ["EnglishQualityRule", "QualityRule", "QualityScorer", "QualityScoring", "Words", "segment"]

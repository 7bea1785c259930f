"""Language identification: language and script of documents, and the rule for which of them stay."""

from apertus_jax.corpus.language.rules import LanguageRule, document_language, language_in
from apertus_jax.corpus.language.scoring import LanguageScorer, LanguageScoring
from apertus_jax.corpus.language.scripts import ScriptShare, detect_scripts
from apertus_jax.corpus.language.statistics import LanguageStatistics, language_statistics

__all__ = [
    "LanguageRule",
    "LanguageScorer",
    "LanguageScoring",
    "LanguageStatistics",
    "ScriptShare",
    "detect_scripts",
    "document_language",
    "language_in",
    "language_statistics",
]

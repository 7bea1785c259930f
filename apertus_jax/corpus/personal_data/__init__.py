"""PII removal: personal data is found in one pass, checked, replaced by markers and counted; never stored."""

from apertus_jax.corpus.personal_data.policy import KINDS, MARKERS, PersonalDataPolicy
from apertus_jax.corpus.personal_data.rewriting import rewrite
from apertus_jax.corpus.personal_data.scoring import PersonalDataScorer, PersonalDataScoring
from apertus_jax.corpus.personal_data.spans import Rewrite, Span
from apertus_jax.corpus.personal_data.urls import rewrite_url

__all__ = [
    "KINDS",
    "MARKERS",
    "PersonalDataPolicy",
    "PersonalDataScorer",
    "PersonalDataScoring",
    "Rewrite",
    "Span",
    "rewrite",
    "rewrite_url",
]

"""Licence detection: names to SPDX expressions, licence classes, and the rule that permits classes."""

from apertus_jax.corpus.licences.classes import CLASSES, classes_of, rating_of
from apertus_jax.corpus.licences.creative_commons import licence_of_link
from apertus_jax.corpus.licences.expressions import all_of, normalize
from apertus_jax.corpus.licences.rule import LicenceRule
from apertus_jax.corpus.licences.scoring import LicenceScorer, LicenceScoring

__all__ = [
    "CLASSES",
    "LicenceRule",
    "LicenceScorer",
    "LicenceScoring",
    "all_of",
    "classes_of",
    "licence_of_link",
    "normalize",
    "rating_of",
]

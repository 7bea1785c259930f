"""The report by language: how well each is modelled, what its tokens cost, and how unequal the languages are."""

from apertus_jax.evaluation.languages.command import languages
from apertus_jax.evaluation.languages.inequality import gini, lorenz_curve

__all__ = ["gini", "languages", "lorenz_curve"]

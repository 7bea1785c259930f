"""Multilingual report: bits per byte, token costs and inequality by language."""

from apertus_jax.evaluation.languages.inequality import gini, lorenz_curve
from apertus_jax.evaluation.languages.languages_command import languages

__all__ = ["gini", "languages", "lorenz_curve"]

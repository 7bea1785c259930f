"""Scoring engine: log-likelihoods of continuations, batched, bucketed by length, sharded."""

from apertus_jax.evaluation.scoring.requests import Scored, ScoringRequest, rolling_windows
from apertus_jax.evaluation.scoring.scorer import LikelihoodScorer

__all__ = ["LikelihoodScorer", "Scored", "ScoringRequest", "rolling_windows"]

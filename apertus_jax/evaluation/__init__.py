"""Evaluation: held-out losses per script with intervals, the harness, languages, memorization."""

from apertus_jax.evaluation.evaluate_command import evaluate
from apertus_jax.evaluation.losses import document_losses

__all__ = ["document_losses", "evaluate"]

"""Evaluation: likelihoods of held-out text, per script, with intervals."""

from apertus_jax.evaluation.held_out import evaluate
from apertus_jax.evaluation.likelihood import document_losses

__all__ = ["document_losses", "evaluate"]

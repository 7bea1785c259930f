"""Removal requests, and the tombstones that keep what they name out of every later build."""

from apertus_jax.corpus.removal.remove_command import remove
from apertus_jax.corpus.removal.scoring import RemovalRule, RemovalScorer, RemovalScoring
from apertus_jax.corpus.removal.text_normalization import normalize_text, text_digest
from apertus_jax.corpus.removal.tombstones import AppliedTombstones, Tombstones

__all__ = [
    "AppliedTombstones",
    "RemovalRule",
    "RemovalScorer",
    "RemovalScoring",
    "Tombstones",
    "normalize_text",
    "remove",
    "text_digest",
]

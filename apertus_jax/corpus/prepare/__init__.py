"""`prepare`: plan → score → aggregate → decide → select → apply → finish, every step restartable and repeatable."""

from apertus_jax.corpus.prepare.command import prepare
from apertus_jax.corpus.prepare.policy import OnlySources, Policy

__all__ = ["OnlySources", "Policy", "prepare"]

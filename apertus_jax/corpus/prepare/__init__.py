"""`prepare`: plan → score → aggregate → decide → select → apply → finish, every step restartable and repeatable."""

from apertus_jax.corpus.prepare.policy import OnlySources, Policy
from apertus_jax.corpus.prepare.prepare_command import prepare

__all__ = ["OnlySources", "Policy", "prepare"]

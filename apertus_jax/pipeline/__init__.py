"""Pipeline: the commands in order."""

from apertus_jax.pipeline.reproduce_command import reproduce
from apertus_jax.pipeline.run_command import run

__all__ = ["reproduce", "run"]

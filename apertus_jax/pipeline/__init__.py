"""Pipeline: the commands in order."""

from apertus_jax.pipeline.chain import run
from apertus_jax.pipeline.reproduce import reproduce

__all__ = ["reproduce", "run"]

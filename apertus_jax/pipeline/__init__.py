"""Pipeline: the commands in order."""

from apertus_jax.pipeline.chain import run

__all__ = ["run"]

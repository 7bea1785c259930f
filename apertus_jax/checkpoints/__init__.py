"""Orbax checkpoints with digests: a step is valid to the last byte, or it is passed over."""

from apertus_jax.checkpoints.checkpointer import Checkpointer, SaveReport
from apertus_jax.checkpoints.opened_model import OpenedModel, open_model
from apertus_jax.checkpoints.step_folders import Rejection

__all__ = ["Checkpointer", "OpenedModel", "Rejection", "SaveReport", "open_model"]

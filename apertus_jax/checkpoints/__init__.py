"""Checkpoints that are either valid to the last byte or passed over."""

from apertus_jax.checkpoints.checkpointer import Checkpointer, SaveReport
from apertus_jax.checkpoints.step_folders import Rejection, step_folder

__all__ = ["Checkpointer", "Rejection", "SaveReport", "step_folder"]

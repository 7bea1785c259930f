"""Training: one pure step, the loop around it, and the `pretrain` command."""

from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.evaluators import Evaluator, ModelView
from apertus_jax.training.pretrain import pretrain
from apertus_jax.training.state import TrainState, initialize_state
from apertus_jax.training.train_step import Objective, make_train_step

__all__ = [
    "Evaluator",
    "ModelView",
    "Objective",
    "TrainState",
    "TrainingConfig",
    "initialize_state",
    "make_train_step",
    "pretrain",
]

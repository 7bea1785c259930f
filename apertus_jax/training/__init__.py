"""Training: one pure step, the loop around it, and the `pretrain` command."""

from apertus_jax.training.compiled_steps import CompiledSteps
from apertus_jax.training.config import TrainingConfig
from apertus_jax.training.evaluators import Evaluator, ModelView
from apertus_jax.training.pretrain import pretrain
from apertus_jax.training.run import Caller, RunSchedule
from apertus_jax.training.state import TrainState, initialize_state
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.run_watch import RunWatch
from apertus_jax.training.survival.step_guard import StepGuard
from apertus_jax.training.survival.supervision import Supervision
from apertus_jax.training.tombstones import RemovalOptions
from apertus_jax.training.trackers import TrackedRun, Tracker
from apertus_jax.training.train_step import Objective, make_train_step

__all__ = [
    "Caller",
    "CompiledSteps",
    "Evaluator",
    "JobLimits",
    "ModelView",
    "Objective",
    "RemovalOptions",
    "RunSchedule",
    "RunWatch",
    "StepGuard",
    "Supervision",
    "TrackedRun",
    "Tracker",
    "TrainState",
    "TrainingConfig",
    "initialize_state",
    "make_train_step",
    "pretrain",
]

"""Train state: everything that a resumed run needs, and nothing else."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from apertus_jax.model import ModelConfig, init_parameters
from apertus_jax.optimization import sample_count
from apertus_jax.training.survival.step_guard import RunningValues, initial_values


@flax.struct.dataclass
class TrainState:
    """A pytree whose bits decide the rest of a run, together with the data's `(seed, step)`.

    Attributes:
      params: the parameter tree, float32.
      opt_state: the optimizer's state.
      optimizer_step: int32 scalar, updates applied.
      samples_consumed: uint32[2], high and low half of the exact 64-bit number of samples seen; schedules read it.
      skipped_steps: int32 scalar, steps whose update was dropped: loss or gradients were not finite, or a `StepGuard`
        found a spike.
      running: what a `StepGuard` compares with; None, which is no leaf, without one.
    """

    params: Any
    opt_state: Any
    optimizer_step: jax.Array
    samples_consumed: jax.Array
    skipped_steps: jax.Array
    running: RunningValues | None = None


def initialize_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, key: jax.Array, guarded: bool = False
) -> TrainState:
    """Returns the state before the first step; the same for every mesh, because the random bits do not depend on it.

    `guarded` says whether a `StepGuard` is on.
    """
    return state_of_parameters(init_parameters(config, key), optimizer, guarded)


def state_of_parameters(params: Any, optimizer: optax.GradientTransformation, guarded: bool = False) -> TrainState:
    """Returns the state before the first step of these parameters: fresh optimizer state, nothing consumed."""
    return TrainState(
        params=params,
        opt_state=optimizer.init(params),
        optimizer_step=jnp.zeros((), jnp.int32),
        samples_consumed=jnp.asarray(sample_count(0)),
        skipped_steps=jnp.zeros((), jnp.int32),
        running=initial_values() if guarded else None,
    )

"""Step guard: steps whose loss or gradient norm stands out are skipped inside the compiled step."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from apertus_jax.validation import fields_by_annotation, require_count, require_number

FACTORS = ("loss_factor", "norm_factor")
LIMITS = ("loss_limit", "norm_limit")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class StepGuard:
    """Guard against finite steps that stand out; by default it skips none, and the program of the step is as without.

    A skipped step leaves parameters and optimizer state as they were; its samples count as consumed, its row in
    metrics.jsonl names them, and running values do not learn from it.

    Attributes:
      loss_factor: a loss above this many times its running mean is a spike; None for never.
      norm_factor: the same for the gradient norm before clipping.
      loss_limit, norm_limit: values above these are spikes; None for never.
      window: steps that a running mean covers; factors hold once so many steps were applied.
      max_in_a_row: spikes in a row after which the run stops.
    """

    loss_factor: float | None = None
    norm_factor: float | None = None
    loss_limit: float | None = None
    norm_limit: float | None = None
    window: int = 128
    max_in_a_row: int = 10

    def __post_init__(self) -> None:
        for name in FACTORS:
            require_number(f"StepGuard.{name}", getattr(self, name), above=1, optional=True)
        for name in LIMITS:
            require_number(f"StepGuard.{name}", getattr(self, name), above=0, optional=True)
        require_count("StepGuard.window", self.window, at_least=1)
        require_count("StepGuard.max_in_a_row", self.max_in_a_row, at_least=1)

    @property
    def is_on(self) -> bool:
        """Whether it can skip anything."""
        return any(getattr(self, name) is not None for name in (*FACTORS, *LIMITS))


@flax.struct.dataclass
class RunningValues:
    """Running means of applied steps, a part of the train state: `loss` and `norm` float32, `count` int32 scalars."""

    loss: jax.Array
    norm: jax.Array
    count: jax.Array


def initial_values() -> RunningValues:
    """Returns the running values before the first step."""
    return RunningValues(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))


def is_spike(guard: StepGuard, running: RunningValues, loss: jax.Array, norm: jax.Array) -> jax.Array:
    """Returns whether a step is not to be applied, bool scalar; loss and gradient norm are float32 scalars."""
    warm = running.count >= guard.window
    found = jnp.zeros((), bool)
    for value, mean, factor, limit in (
        (loss, running.loss, guard.loss_factor, guard.loss_limit),
        (norm, running.norm, guard.norm_factor, guard.norm_limit),
    ):
        if factor is not None:
            found |= warm & (value > factor * mean)
        if limit is not None:
            found |= value > limit
    return found


def after_step(
    guard: StepGuard, running: RunningValues, loss: jax.Array, norm: jax.Array, applied: jax.Array
) -> RunningValues:
    """Returns the running values after a step: plain means over the first `window` steps, then exponential ones."""
    weight = 1.0 / jnp.minimum(running.count + 1, guard.window).astype(jnp.float32)
    return RunningValues(
        loss=jnp.where(applied, running.loss + weight * (loss - running.loss), running.loss),
        norm=jnp.where(applied, running.norm + weight * (norm - running.norm), running.norm),
        count=running.count + applied.astype(jnp.int32),
    )

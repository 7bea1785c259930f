"""Learning rates as functions of the samples consumed before a step.

Counting samples keeps a schedule right when the batch grows, when a run resumes with another batch size, and when an
update is skipped. Each schedule takes a Python int or uint32[2] = (high, low) and gives float32[].
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError
from apertus_jax.optimization.sample_counts import SampleCount, as_limbs, at_most, subtract_samples, to_float32

Schedule = Callable[[SampleCount], jax.Array]


def wsd_schedule(
    peak: float,
    warmup_samples: int,
    total_samples: int,
    decay_samples: int,
    lr_init_frac: float = 0.1,
    lr_final_frac: float = 0.1,
) -> Schedule:
    """Warm-up, stable, decay: linear to `peak`, constant, then `1 - sqrt` down to `lr_final_frac * peak`.

    The decay takes the last `decay_samples` of `total_samples`; afterwards the final rate stays. The warm-up starts at
    `lr_init_frac * peak`: the paper's 0.1 by default, 0 in the released scripts (model spec §7.1, §17.3).
    Raises UserError if warm-up and decay do not fit into the total.
    """
    _check(total_samples, warmup_samples, decay_samples)
    decay_start = total_samples - decay_samples
    final = lr_final_frac * peak

    def schedule(samples: SampleCount) -> jax.Array:
        samples = as_limbs(samples)
        progress = to_float32(subtract_samples(samples, decay_start)) / float(max(decay_samples, 1))
        decaying = final + (peak - final) * (1 - jnp.sqrt(progress))
        after_start = jnp.where(at_most(samples, total_samples), decaying, final)
        rate = jnp.where(at_most(samples, decay_start), peak, after_start)
        return _with_warmup(samples, rate, peak, warmup_samples, lr_init_frac)

    return schedule


def cosine_schedule(
    peak: float, warmup_samples: int, total_samples: int, lr_init_frac: float = 0.1, lr_final_frac: float = 0.1
) -> Schedule:
    """Linear warm-up to `peak`, then half a cosine down to `lr_final_frac * peak` at `total_samples`, then constant.

    Raises UserError if the warm-up is longer than the total.
    """
    _check(total_samples, warmup_samples, 0)
    final = lr_final_frac * peak

    def schedule(samples: SampleCount) -> jax.Array:
        samples = as_limbs(samples)
        progress = to_float32(subtract_samples(samples, warmup_samples)) / float(max(total_samples - warmup_samples, 1))
        falling = final + (peak - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        rate = jnp.where(at_most(samples, total_samples), falling, final)
        return _with_warmup(samples, rate, peak, warmup_samples, lr_init_frac)

    return schedule


def constant_schedule(peak: float, warmup_samples: int = 0, lr_init_frac: float = 0.1) -> Schedule:
    """Linear warm-up to `peak`, then constant. Raises UserError for a negative warm-up."""
    _check(warmup_samples, warmup_samples, 0)

    def schedule(samples: SampleCount) -> jax.Array:
        return _with_warmup(as_limbs(samples), jnp.float32(peak), peak, warmup_samples, lr_init_frac)

    return schedule


def resolve_learning_rate(learning_rate: float | Schedule, samples_consumed: SampleCount | None) -> jax.Array:
    """The rate of a step, float32[]. Raises UserError if it is a schedule and the sample count is missing."""
    if not callable(learning_rate):
        return jnp.float32(learning_rate)
    if samples_consumed is None:
        raise UserError(
            "learning_rate is a schedule of samples: call update(gradients, state, params, samples_consumed=...) "
            "with the samples consumed before this step"
        )
    return learning_rate(samples_consumed)


def _with_warmup(
    samples: jax.Array, rate: jax.Array, peak: float, warmup_samples: int, lr_init_frac: float
) -> jax.Array:
    if warmup_samples == 0:
        return rate.astype(jnp.float32)
    initial = lr_init_frac * peak
    warming = initial + (peak - initial) * (to_float32(samples) / float(warmup_samples))
    return jnp.where(at_most(samples, warmup_samples), warming, rate).astype(jnp.float32)


def _check(total_samples: int, warmup_samples: int, decay_samples: int) -> None:
    for name, value in (("warmup_samples", warmup_samples), ("decay_samples", decay_samples)):
        if value != int(value) or value < 0:
            raise UserError(f"schedule {name}={value} must be a whole number of samples, 0 or more")
    if total_samples != int(total_samples) or warmup_samples + decay_samples > total_samples:
        raise UserError(
            f"schedule total_samples={total_samples} must be a whole number and hold warmup_samples={warmup_samples} "
            f"and decay_samples={decay_samples}"
        )

"""Sample counts beyond 2**32 with 32-bit integers: two limbs, uint32[2] = (high, low).

A 15-trillion-token run counts 3.7 billion samples, which neither int32 nor float32 can hold.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError

SampleCount = int | np.ndarray | jax.Array


def sample_count(samples: int) -> np.ndarray:
    """A whole number below 2**64 → uint32[2] (high, low). Raises UserError for anything else."""
    if samples != int(samples) or not 0 <= samples < 2**64:
        raise UserError(f"sample count {samples} must be a whole number from 0 to 2**64 - 1")
    return np.array([int(samples) >> 32, int(samples) & 0xFFFFFFFF], np.uint32)


def sample_count_to_int(limbs: np.ndarray | jax.Array) -> int:
    """uint32[2] (high, low) → Python int; needs a concrete value."""
    high, low = np.asarray(limbs, np.uint32).tolist()
    return (high << 32) | low


def as_limbs(samples: SampleCount) -> jax.Array:
    """A whole number, or an integer array of shape [] or [2], → uint32[2] (high, low).

    A traced scalar is taken as an unsigned 32-bit number. Raises UserError for other shapes and for fractions.
    """
    if isinstance(samples, jax.Array | np.ndarray):
        if not jnp.issubdtype(samples.dtype, jnp.integer) or samples.shape not in ((), (2,)):
            raise UserError(
                f"samples_consumed of shape {samples.shape} and dtype {samples.dtype} is not a sample count; "
                "pass uint32[2] = (high, low), see optimization.sample_count"
            )
        if samples.shape == (2,):
            return jnp.asarray(samples).astype(jnp.uint32)
        if isinstance(samples, jax.core.Tracer):
            return jnp.stack([jnp.uint32(0), samples.astype(jnp.uint32)])
        samples = int(samples)
    return jnp.asarray(sample_count(samples))


def add_samples(first: SampleCount, second: SampleCount) -> jax.Array:
    """first + second modulo 2**64, uint32[2]."""
    first, second = as_limbs(first), as_limbs(second)
    low = first[1] + second[1]
    carry = (low < first[1]).astype(jnp.uint32)
    return jnp.stack([first[0] + second[0] + carry, low])


def subtract_samples(first: SampleCount, second: SampleCount) -> jax.Array:
    """first - second modulo 2**64, uint32[2]; the true difference where first ≥ second."""
    first, second = as_limbs(first), as_limbs(second)
    borrow = (first[1] < second[1]).astype(jnp.uint32)
    return jnp.stack([first[0] - second[0] - borrow, first[1] - second[1]])


def at_most(first: SampleCount, second: SampleCount) -> jax.Array:
    """first ≤ second, bool[]."""
    first, second = as_limbs(first), as_limbs(second)
    return (first[0] < second[0]) | ((first[0] == second[0]) & (first[1] <= second[1]))


def to_float32(samples: SampleCount) -> jax.Array:
    """The nearest float32[], to about one part in ten million."""
    high, low = as_limbs(samples)
    return high.astype(jnp.float32) * jnp.float32(2.0**32) + low.astype(jnp.float32)

"""Low-precision optimizer moments with stochastic rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.typing

from apertus_jax.errors import UserError
from apertus_jax.validation import spelled


def check_moment_dtype(owner: str, dtype: jax.typing.DTypeLike | None) -> None:
    """Raises UserError unless the dtype is None, float32 or bfloat16."""
    try:
        known = dtype is None or jnp.dtype(dtype) in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))
    except (TypeError, ValueError):  # no dtype at all
        known = False
    if not known:
        raise UserError(f"{owner}.moment_dtype = {spelled(dtype)} is not supported; use float32 or bfloat16")


def check_mask(owner: str, mask: Any) -> None:
    """Raises UserError unless a decay mask is None, a function of the parameters, or a tree with their names."""
    if not (mask is None or callable(mask) or isinstance(mask, Mapping)):
        raise UserError(f"{owner}.mask = {spelled(mask)} is no mask; give a function of the parameters, or None")


def stochastic_round(value: jax.Array, dtype: jax.typing.DTypeLike, count: jax.Array, salt: int) -> jax.Array:
    """Stochastic rounding of float32 to bfloat16: up or down at random, in proportion to the distance.

    A slow average moves by a ten-thousandth of itself at each step. Rounding to the nearest bfloat16 would undo that
    each time: the average of a rare token's gradients would stand still while the second moment shrinks, and their
    quotient explode. Random rounding is right on average. The random bits are a hash of the step, the element's
    index and `salt`, so they are the same after a resume and on every mesh.
    """
    if jnp.dtype(dtype) == jnp.dtype(jnp.float32):
        return value.astype(dtype)
    noise = _random_bits(value.shape, count, salt) >> 16
    bits = jax.lax.bitcast_convert_type(value.astype(jnp.float32), jnp.uint32) + noise
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(dtype)


def _random_bits(shape: tuple[int, ...], count: jax.Array, salt: int) -> jax.Array:
    """uint32 of the given shape, a MurmurHash3-style mix of index, step and salt."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    seed = count.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) + jnp.uint32(salt * 0x7FEB352D % 2**32)
    bits = index * jnp.uint32(0xCC9E2D51) ^ seed
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)

"""RMSNorm with its own backward pass.

Source: docs/reference/model_and_training.md §2.1.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: Array, scale: Array, epsilon: float) -> Array:
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis: [..., D], [D] → [..., D] in x's dtype.

    Statistics are float32. The normalised value is rounded to x's dtype before it meets the scale, as the released
    checkpoints are served (docs/reference/model_and_training.md §2.1).
    """
    return _forward(x, scale, epsilon)[0]


def _forward(x: Array, scale: Array, epsilon: float) -> tuple[Array, Array]:
    wide = x.astype(jnp.float32)
    inverse_rms = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + epsilon)
    return (wide * inverse_rms).astype(x.dtype) * scale.astype(x.dtype), inverse_rms


def _forward_rule(x: Array, scale: Array, epsilon: float) -> tuple[Array, tuple[Array, Array, Array]]:
    y, inverse_rms = _forward(x, scale, epsilon)
    return y, (x, scale, inverse_rms)


def _backward_rule(epsilon: float, residuals: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, scale, inverse_rms = residuals
    normalized = x.astype(jnp.float32) * inverse_rms
    upstream = gradient.astype(jnp.float32)
    scaled = upstream * scale.astype(jnp.float32)
    projection = jnp.mean(scaled * normalized, axis=-1, keepdims=True)
    x_gradient = inverse_rms * (scaled - normalized * projection)
    scale_gradient = jnp.sum(upstream * normalized, axis=tuple(range(x.ndim - 1)))
    return x_gradient.astype(x.dtype), scale_gradient.astype(scale.dtype)


rms_norm.defvjp(_forward_rule, _backward_rule)

"""xIELU, the activation of Apertus' feedforward layers.

    f(x) = alpha_p * x^2 + beta * x                                for x > 0
    f(x) = alpha_n * (expm1(min(x, epsilon)) - x) + beta * x       for x <= 0

with alpha_p = softplus(raw alpha_p) and alpha_n = beta + softplus(raw alpha_n).

Source: docs/reference/model_and_training.md §2.2; arXiv 2411.13010.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

Array = jax.Array


def raw_alphas(alpha_p: float, alpha_n: float, beta: float) -> tuple[float, float]:
    """The trainable scalars whose effective values are `alpha_p` and `alpha_n` > beta.

    Source: docs/reference/model_and_training.md §2.2.
    """
    return math.log(math.expm1(alpha_p)), math.log(math.expm1(alpha_n - beta))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def xielu(x: Array, raw_alpha_p: Array, raw_alpha_n: Array, beta: float = 0.5, epsilon: float = -1e-6) -> Array:
    """f(x) of the module docstring, in float32 with one rounding to x's dtype: [...], two scalars → [...]."""
    return _forward(x, raw_alpha_p, raw_alpha_n, beta, epsilon)


def _forward(x: Array, raw_alpha_p: Array, raw_alpha_n: Array, beta: float, epsilon: float) -> Array:
    alpha_p, alpha_n = _effective(raw_alpha_p, raw_alpha_n, beta)
    wide = x.astype(jnp.float32)
    # min() keeps the branch not taken finite, so that no inf * 0 can arise for large positive x.
    negative = alpha_n * (jnp.expm1(jnp.minimum(wide, epsilon)) - wide)
    return (jnp.where(wide > 0, alpha_p * wide * wide, negative) + beta * wide).astype(x.dtype)


def _effective(raw_alpha_p: Array, raw_alpha_n: Array, beta: float) -> tuple[Array, Array]:
    return (
        jax.nn.softplus(raw_alpha_p.astype(jnp.float32)),
        beta + jax.nn.softplus(raw_alpha_n.astype(jnp.float32)),
    )


def _forward_rule(
    x: Array, raw_alpha_p: Array, raw_alpha_n: Array, beta: float, epsilon: float
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _forward(x, raw_alpha_p, raw_alpha_n, beta, epsilon), (x, raw_alpha_p, raw_alpha_n)


def _backward_rule(
    beta: float, epsilon: float, residuals: tuple[Array, Array, Array], gradient: Array
) -> tuple[Array, Array, Array]:
    x, raw_alpha_p, raw_alpha_n = residuals
    alpha_p, alpha_n = _effective(raw_alpha_p, raw_alpha_n, beta)
    wide, upstream = x.astype(jnp.float32), gradient.astype(jnp.float32)
    positive = wide > 0
    decay = jnp.expm1(jnp.minimum(wide, epsilon))
    # Between epsilon and 0 the min() is constant, so only -alpha_n * x + beta * x has a slope there.
    slope = jnp.where(positive, 2 * alpha_p * wide, jnp.where(wide < epsilon, alpha_n * decay, -alpha_n)) + beta
    # Both sums in one pass along the rows: XLA:CPU then neither stores the summands nor computes them twice.
    zero = jnp.float32(0)
    rows_p, rows_n = jax.lax.reduce(
        (
            jnp.where(positive, upstream * wide * wide, zero),
            jnp.where(positive, zero, upstream * (decay - wide)),
        ),
        (zero, zero),
        lambda left, right: (left[0] + right[0], left[1] + right[1]),
        (x.ndim - 1,),
    )
    over_p, over_n = jnp.sum(rows_p), jnp.sum(rows_n)
    return (
        (upstream * slope).astype(x.dtype),
        (over_p * jax.nn.sigmoid(raw_alpha_p.astype(jnp.float32))).astype(raw_alpha_p.dtype),
        (over_n * jax.nn.sigmoid(raw_alpha_n.astype(jnp.float32))).astype(raw_alpha_n.dtype),
    )


xielu.defvjp(_forward_rule, _backward_rule)

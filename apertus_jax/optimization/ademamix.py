"""AdEMAMix: Adam with a second, slow average of the gradients (Pagliardini et al., arXiv 2409.03137).

The semantics are those of the optimizer that trained Apertus (model spec §6): α and β3 warm up over steps counted from
one, the slow average has no bias correction, weight decay is decoupled and multiplied by the learning rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.typing
import optax

from apertus_jax.errors import UserError
from apertus_jax.optimization.moments import check_moment_dtype, store
from apertus_jax.optimization.sample_counts import SampleCount
from apertus_jax.optimization.schedules import Schedule, resolve_learning_rate


class AdemamixState(NamedTuple):
    """Number of updates so far int32[], and three averages shaped as the parameters."""

    count: jax.Array
    m1: optax.Updates
    m2: optax.Updates
    nu: optax.Updates


class _Step(NamedTuple):
    """The scalars of one update, float32[]."""

    rate: jax.Array
    alpha: jax.Array
    one_minus_b3: jax.Array
    m1_correction: jax.Array
    nu_correction: jax.Array
    count: jax.Array


def ademamix(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 8.0,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    mask=None,
    alpha_warmup_steps: int | None = None,
    b3_warmup_steps: int | None = None,
    moment_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """θ ← θ - lr · ((m1 / (1 - β1^t) + α_t · m2) / (sqrt(nu / (1 - β2^t)) + eps) + weight_decay · θ).

    The learning rate is a float or a schedule of samples; in the latter case `update` needs `samples_consumed=`.
    `mask` says which leaves decay: a tree of booleans or a function of the parameters (None: all; see
    `weight_decay_mask`). α grows linearly over `alpha_warmup_steps` updates, β3 from β1 over `b3_warmup_steps`, linear
    in half-life. `moment_dtype` stores the two first moments (bfloat16 halves them); the second stays float32, since
    an average that changes by a thousandth cannot move in bfloat16.
    Raises UserError for negative warm-ups and for a moment_dtype other than float32 and bfloat16.
    """
    check_moment_dtype(moment_dtype)
    for name, value in (("alpha_warmup_steps", alpha_warmup_steps), ("b3_warmup_steps", b3_warmup_steps)):
        if value is not None and value < 0:
            raise UserError(f"ademamix {name}={value} must be a number of steps, or None for no warm-up")
    moment_dtype = jnp.dtype(moment_dtype or jnp.float32)

    def init(params: optax.Params) -> AdemamixState:
        def zeros(dtype):
            return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype), params)

        return AdemamixState(jnp.zeros([], jnp.int32), zeros(moment_dtype), zeros(moment_dtype), zeros(jnp.float32))

    def update(gradients, state, params=None, *, samples_consumed: SampleCount | None = None, **extra):
        del extra
        if params is None:
            raise ValueError(optax.NO_PARAMS_MSG)
        count = optax.safe_increment(state.count)
        step = _Step(
            rate=resolve_learning_rate(learning_rate, samples_consumed),
            alpha=alpha_at(count, alpha, alpha_warmup_steps),
            one_minus_b3=one_minus_b3_at(count, b1, b3, b3_warmup_steps),
            m1_correction=_one_minus_power(b1, count),
            nu_correction=_one_minus_power(b2, count),
            count=count,
        )

        def leaf(salt, gradient, m1, m2, nu, param, decay):
            return _update_leaf(step, gradient, m1, m2, nu, param, b1, b2, eps, weight_decay * decay, salt)

        structure = jax.tree.structure(gradients)
        decays = _decays(mask, params)
        columns = [jax.tree.leaves(tree) for tree in (gradients, state.m1, state.m2, state.nu, params, decays)]
        results = [leaf(salt, *row) for salt, row in enumerate(zip(*columns, strict=True))]
        updates, m1, m2, nu = (jax.tree.unflatten(structure, [row[part] for row in results]) for part in range(4))
        return updates, AdemamixState(count, m1, m2, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def alpha_at(step: jax.Array | int, alpha: float, warmup_steps: int | None) -> jax.Array:
    """The weight of the slow average at a step counted from one, float32[]."""
    if not warmup_steps:
        return jnp.float32(alpha)
    return jnp.minimum(jnp.asarray(step, jnp.float32) / warmup_steps, 1.0) * jnp.float32(alpha)


def one_minus_b3_at(step: jax.Array | int, b1: float, b3: float, warmup_steps: int | None) -> jax.Array:
    """1 - β3 at a step counted from one, float32[]: β3 runs from β1 to b3, linear in half-life.

    It is 1 - β3 and not β3 because float32 knows a number near one to 6e-8 only, a thousandth of 1 - 0.9999.
    """
    if not warmup_steps:
        return jnp.float32(1 - b3)
    first, last = _half_life(b1), _half_life(b3)
    fraction = jnp.asarray(step, jnp.float32) / warmup_steps
    half_life = first + fraction * (last - first)
    warming = -jnp.expm1(math.log(0.5) / (half_life + 1))
    return jnp.where(fraction < 1, warming, jnp.float32(1 - b3))


def _half_life(beta: float) -> float:
    """Steps after which an average has forgotten half, less one; the 1e-8 is the training code's."""
    return math.log(0.5) / math.log(beta + 1e-8) - 1


def _one_minus_power(beta: float, count: jax.Array) -> jax.Array:
    """1 - beta**count without cancellation, float32[]."""
    if beta == 0:
        return jnp.float32(1)
    return -jnp.expm1(count.astype(jnp.float32) * math.log(beta))


def _update_leaf(step: _Step, gradient, m1, m2, nu, param, b1, b2, eps, weight_decay, salt):
    """One leaf's update and new averages, element by element, so that XLA makes one pass of it."""
    gradient = gradient.astype(jnp.float32)
    new_m1 = b1 * m1.astype(jnp.float32) + (1 - b1) * gradient
    new_m2 = (1 - step.one_minus_b3) * m2.astype(jnp.float32) + step.one_minus_b3 * gradient
    new_nu = b2 * nu + (1 - b2) * jnp.square(gradient)
    denominator = jnp.sqrt(new_nu) / jnp.sqrt(step.nu_correction) + eps
    direction = (new_m1 / step.m1_correction + step.alpha * new_m2) / denominator
    direction += weight_decay * param.astype(jnp.float32)
    return (
        (-step.rate * direction).astype(param.dtype),
        store(new_m1, m1.dtype, step.count, 2 * salt),
        store(new_m2, m2.dtype, step.count, 2 * salt + 1),
        new_nu,
    )


def _decays(mask, params: optax.Params) -> optax.Params:
    """The mask as a tree of 0 and 1, one for each leaf."""
    if mask is None:
        return jax.tree.map(lambda _: 1, params)
    tree = mask(params) if callable(mask) else mask
    return jax.tree.map(lambda decays, subtree: jax.tree.map(lambda _: int(decays), subtree), tree, params)

"""AdEMAMix: Adam with a second, slow average of the gradients (Pagliardini et al., arXiv 2409.03137).

The semantics are those of the optimizer that trained Apertus (docs/reference/model_and_training.md §6): α and β3 warm
up over steps counted from one, the slow average has no bias correction, weight decay is decoupled and multiplied by the
learning rate.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.typing
import optax

from apertus_jax.optimization.moments import check_mask, check_moment_dtype, stochastic_round
from apertus_jax.optimization.sample_counts import SampleCount
from apertus_jax.optimization.schedules import Schedule, check_settings, resolve_learning_rate
from apertus_jax.validation import require_count, require_number

Array = jax.Array
_NewLeaf = tuple[Array, Array, Array, Array]  # the update, m1, m2 and ν


class AdemamixState(NamedTuple):
    """Number of updates so far int32[], and three averages shaped as the parameters."""

    count: Array  # type: ignore[assignment]  # a tuple's method of this name is not missed
    m1: optax.Updates
    m2: optax.Updates
    nu: optax.Updates


class _Step(NamedTuple):
    """The scalars of one update, float32[] where no other type stands."""

    rate: Array
    alpha: Array
    one_minus_b3: Array
    m1_correction: Array
    nu_correction: Array
    number: Array  # int32[], which update it is


def ademamix(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 8.0,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    mask: Any = None,
    alpha_warmup_steps: int | None = None,
    b3_warmup_steps: int | None = None,
    moment_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdEMAMix: Adam whose update mixes a fast and a slow average of the gradients, with decoupled weight decay.

    The slow average remembers gradients for tens of thousands of updates, which Adam's would have forgotten. Update
    t = 1, 2, … of parameters θ with gradients g is

      m1 ← β1 · m1 + (1 - β1) · g
      m2 ← β3_t · m2 + (1 - β3_t) · g
      ν ← β2 · ν + (1 - β2) · g²
      θ ← θ - lr · ((m1 / (1 - β1^t) + α_t · m2) / (√(ν / (1 - β2^t)) + eps) + weight_decay · θ)

    where α and β3 warm up, β3 linearly in half-life f(β) = ln ½ / ln(β + 1e-8) - 1:

      α_t = alpha · min(t / alpha_warmup_steps, 1)
      f(β3_t) = f(β1) + min(t / b3_warmup_steps, 1) · (f(b3) - f(β1))

    m2 has no bias correction. The first update sees α_1 and not α_0; `optax.contrib.ademamix` evaluates its schedules
    before it counts.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from apertus_jax.optimization import ademamix
      >>> optimizer = ademamix(learning_rate=0.1, weight_decay=0.0, alpha_warmup_steps=100, b3_warmup_steps=100)
      >>> params = jnp.array([1.0, -2.0, 3.0])
      >>> loss = lambda params: jnp.sum(params**2)
      >>> state = optimizer.init(params)
      >>> for _ in range(4):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{loss(params):.2f}")
      12.83
      11.72
      10.67
      9.68

    Args:
      learning_rate: a float, or a schedule of samples, for which `update` needs `samples_consumed=`.
      b1: decay of the fast average.
      b2: decay of the average of squared gradients.
      b3: decay of the slow average, after its warm-up.
      alpha: weight of the slow average, after its warm-up.
      eps: added to the denominator, outside of the root.
      weight_decay: multiplied by the learning rate, as in AdamW.
      mask: which leaves decay: a tree of booleans or a function of the parameters, such as `weight_decay_mask`; None
        for all.
      alpha_warmup_steps: updates over which α grows from 0; None for no warm-up.
      b3_warmup_steps: updates over which β3 grows from b1; None for no warm-up.
      moment_dtype: of m1 and m2, float32 (None) or bfloat16, which halves them and is rounded to stochastically. ν
        stays float32: an average that changes by a thousandth cannot move in bfloat16.

    Returns:
      The transformation. Its state holds m1, m2 and ν, shaped as the parameters.

    Raises:
      UserError: a rate outside of [0, 1), a negative warm-up, or a moment_dtype other than float32 and bfloat16.

    References:
      Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", arXiv 2409.03137;
      docs/reference/model_and_training.md §6 for the fork that trained Apertus, which this equals.
    """
    check_moment_dtype("ademamix", moment_dtype)
    check_mask("ademamix", mask)
    check_settings("ademamix", learning_rate, {"b1": b1, "b2": b2, "b3": b3}, eps, weight_decay)
    require_number("ademamix.alpha", alpha, at_least=0)
    require_count("ademamix.alpha_warmup_steps", alpha_warmup_steps, optional=True)
    require_count("ademamix.b3_warmup_steps", b3_warmup_steps, optional=True)
    moment_dtype = jnp.dtype(moment_dtype or jnp.float32)

    def init(params: optax.Params) -> AdemamixState:
        def zeros(dtype: jax.typing.DTypeLike) -> optax.Updates:
            return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype), params)

        return AdemamixState(jnp.zeros([], jnp.int32), zeros(moment_dtype), zeros(moment_dtype), zeros(jnp.float32))

    def update(
        gradients: optax.Updates,
        state: AdemamixState,
        params: optax.Params | None = None,
        *,
        samples_consumed: SampleCount | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, AdemamixState]:
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
            number=count,
        )

        def leaf(salt: int, gradient: Array, m1: Array, m2: Array, nu: Array, param: Array, decay: int) -> _NewLeaf:
            return _update_leaf(step, gradient, m1, m2, nu, param, b1, b2, eps, weight_decay * decay, salt)

        structure = jax.tree.structure(gradients)
        decays = _decays(mask, params)
        columns = [jax.tree.leaves(tree) for tree in (gradients, state.m1, state.m2, state.nu, params, decays)]
        results = [leaf(salt, *row) for salt, row in enumerate(zip(*columns, strict=True))]
        updates, m1, m2, nu = (jax.tree.unflatten(structure, [row[part] for row in results]) for part in range(4))
        return updates, AdemamixState(count, m1, m2, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def alpha_at(step: Array | int, alpha: float, warmup_steps: int | None) -> Array:
    """The weight of the slow average at a step counted from one, float32[]."""
    if not warmup_steps:
        return jnp.float32(alpha)
    return jnp.minimum(jnp.asarray(step, jnp.float32) / warmup_steps, 1.0) * jnp.float32(alpha)


def one_minus_b3_at(step: Array | int, b1: float, b3: float, warmup_steps: int | None) -> Array:
    """1 - β3 at a step counted from one, float32[]: β3 runs from β1 to b3, linear in half-life.

    It is 1 - β3 and not β3 because float32 has a spacing of 6e-8 near one, a thousandth of 1 - 0.9999.
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


def _one_minus_power(beta: float, count: Array) -> Array:
    """1 - beta**count without cancellation, float32[]."""
    if beta == 0:
        return jnp.float32(1)
    return -jnp.expm1(count.astype(jnp.float32) * math.log(beta))


def _update_leaf(
    step: _Step,
    gradient: Array,
    m1: Array,
    m2: Array,
    nu: Array,
    param: Array,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    salt: int,
) -> _NewLeaf:
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
        stochastic_round(new_m1, m1.dtype, step.number, 2 * salt),
        stochastic_round(new_m2, m2.dtype, step.number, 2 * salt + 1),
        new_nu,
    )


def _decays(mask: Any, params: optax.Params) -> optax.Params:
    """The mask as a tree of 0 and 1, one for each leaf."""
    if mask is None:
        return jax.tree.map(lambda _: 1, params)
    tree = mask(params) if callable(mask) else mask
    return jax.tree.map(lambda decays, subtree: jax.tree.map(lambda _: int(decays), subtree), tree, params)

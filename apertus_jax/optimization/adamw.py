"""AdamW, the baseline that AdEMAMix is compared with."""

from __future__ import annotations

from typing import Any

import jax.typing
import optax

from apertus_jax.optimization.chain import scale_by_learning_rate
from apertus_jax.optimization.moments import check_mask, check_moment_dtype
from apertus_jax.optimization.schedules import Schedule, check_settings


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    mask: Any = None,
    moment_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW: Adam with decoupled weight decay, multiplied by the learning rate.

    θ ← θ - lr · (m / (1 - β1^t) / (√(ν / (1 - β2^t)) + eps) + weight_decay · θ)

    Args:
      learning_rate: a float, or a schedule of samples, for which `update` needs `samples_consumed=`.
      b1: decay of the average of gradients, m.
      b2: decay of the average of squared gradients, ν.
      eps: added to the denominator, outside of the root.
      weight_decay: multiplied by the learning rate.
      mask: which leaves decay, as for `ademamix`; None for all.
      moment_dtype: of m, float32 (None) or bfloat16.

    Raises:
      UserError: a rate outside of [0, 1), or a moment_dtype other than float32 and bfloat16.

    References:
      Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    """
    check_moment_dtype("adamw", moment_dtype)
    check_mask("adamw", mask)
    check_settings("adamw", learning_rate, {"b1": b1, "b2": b2}, eps, weight_decay)
    return optax.with_extra_args_support(
        optax.chain(
            optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=moment_dtype),
            optax.add_decayed_weights(weight_decay, mask),
            scale_by_learning_rate(learning_rate),
        )
    )

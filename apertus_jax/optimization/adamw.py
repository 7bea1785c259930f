"""AdamW, the partner that AdEMAMix is compared with."""

from __future__ import annotations

import jax.typing
import optax

from apertus_jax.optimization.chain import scale_by_learning_rate
from apertus_jax.optimization.moments import check_moment_dtype
from apertus_jax.optimization.schedules import Schedule


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    mask=None,
    moment_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with decoupled weight decay × learning rate (Loshchilov & Hutter, arXiv 1711.05101).

    The learning rate is a float or a schedule of samples; in the latter case `update` needs `samples_consumed=`.
    `mask` says which leaves decay (None: all; see `weight_decay_mask`). `moment_dtype` stores the first moment.
    Raises UserError for a moment_dtype other than float32 and bfloat16.
    """
    check_moment_dtype(moment_dtype)
    return optax.with_extra_args_support(
        optax.chain(
            optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=moment_dtype),
            optax.add_decayed_weights(weight_decay, mask),
            scale_by_learning_rate(learning_rate),
        )
    )

"""What surrounds an optimizer: clipping before it, the learning rate after it, and which leaves decay."""

from __future__ import annotations

import jax
import optax

from apertus_jax.optimization.clipping import clip_by_global_norm
from apertus_jax.optimization.sample_counts import SampleCount
from apertus_jax.optimization.schedules import Schedule, resolve_learning_rate

DECAYED_LEAVES = ("kernel", "embedding")


def optimizer_chain(
    optimizer: optax.GradientTransformation, clip_norm: float | None = 0.1
) -> optax.GradientTransformationExtraArgs:
    """Clip to `clip_norm` (None: do not), then the optimizer; `update` takes `samples_consumed=`.

    Raises UserError unless clip_norm is positive.
    """
    if clip_norm is None:
        return optax.with_extra_args_support(optimizer)
    return optax.with_extra_args_support(optax.chain(clip_by_global_norm(clip_norm), optimizer))


def weight_decay_mask(params: optax.Params) -> optax.Params:
    """True for the leaves that decay: matrices and the embedding, by the name of the leaf.

    Norm scales and the two xIELU scalars of each layer do not (model spec §6). Names decide, not ranks: a stacked
    norm scale [L, D] has two axes.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED_LEAVES, params)


def scale_by_learning_rate(learning_rate: float | Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate of the samples consumed so far.

    Raises UserError at the update if the rate is a schedule and `samples_consumed` is not given.
    """

    def update(updates, state, params=None, *, samples_consumed: SampleCount | None = None, **extra):
        del params, extra
        rate = resolve_learning_rate(learning_rate, samples_consumed)
        return jax.tree.map(lambda leaf: (-rate * leaf).astype(leaf.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

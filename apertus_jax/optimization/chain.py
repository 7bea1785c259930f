"""Optimizer chain: clipping, the optimizer, weight decay by parameter name, the learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from apertus_jax.errors import UserError
from apertus_jax.optimization.clipping import clip_by_global_norm
from apertus_jax.optimization.sample_counts import SampleCount
from apertus_jax.optimization.schedules import Schedule, resolve_learning_rate
from apertus_jax.validation import spelled

DECAYED_LEAVES = ("kernel", "embedding")
XIELU_LEAVES = ("alpha_p", "alpha_n")


def make_optimizer(
    optimizer: Callable[..., optax.GradientTransformation],
    learning_rate: float | Schedule,
    mask: Callable[[optax.Params], optax.Params] | None = None,
) -> optax.GradientTransformation:
    """Calls what makes an optimizer, such as `ademamix`, with the learning rate and the mask of the leaves that decay.

    Without a mask it is `weight_decay_mask`.

    Raises:
      UserError: it does not take `learning_rate` and `mask`, or gives no optax.GradientTransformation.
    """
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    mask = weight_decay_mask if mask is None else mask
    try:
        inspect.signature(optimizer).bind(learning_rate=learning_rate, mask=mask)
    except TypeError as error:
        raise UserError(
            f"the optimizer {name} cannot be called with learning_rate and mask ({error}); let it take these, and give "
            "all others a default"
        ) from error
    made = optimizer(learning_rate=learning_rate, mask=mask)
    if not (callable(getattr(made, "init", None)) and callable(getattr(made, "update", None))):
        raise UserError(f"the optimizer {name} gives {spelled(made)}; it must give an optax.GradientTransformation")
    return made


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

    Norm scales and the two xIELU scalars of each layer do not (docs/reference/model_and_training.md §6). Names decide,
    not ranks: a stacked norm scale [L, D] has two axes.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED_LEAVES, params)


def weight_decay_mask_with_alphas(params: optax.Params) -> optax.Params:
    """`weight_decay_mask`, and True for the raw xIELU scalars too, as Apertus 1.5 was trained.

    Source: docs/reference/after_version_1.md §1.
    """
    decayed = DECAYED_LEAVES + XIELU_LEAVES
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in decayed, params)


def scale_by_learning_rate(learning_rate: float | Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate of the samples consumed so far.

    Raises UserError at the update if the rate is a schedule and `samples_consumed` is not given.
    """

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        samples_consumed: SampleCount | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra
        rate = resolve_learning_rate(learning_rate, samples_consumed)
        return jax.tree.map(lambda leaf: (-rate * leaf).astype(leaf.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

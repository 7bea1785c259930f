"""Train step: `(state, batch) -> (state, metrics)`, pure, with gradient accumulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.objectives import LossMask, combine_masks, cross_entropy
from apertus_jax.objectives.masks import left_context_of, sources_of
from apertus_jax.optimization import add_samples, global_norm
from apertus_jax.training.state import TrainState
from apertus_jax.training.survival.step_guard import StepGuard, after_step, is_spike
from apertus_jax.validation import fields_by_annotation, require_callable, require_choice, require_count, require_list

LOSS_NORMS = ("global", "microbatch")
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Objective:
    """Training objective: cross-entropy under masks, and how its sum is normalised.

    Source: docs/reference/model_and_training.md §5.4.

    Attributes:
      loss_masks: functions `batch -> bool[B, T]`, see `LossMask`; a token counts when every mask keeps it.
      loss_norm: "global" divides by the kept tokens of the whole batch; "microbatch" takes the mean over groups of
        `microbatch_size` rows, each divided by its own kept tokens, as the released models were trained.
      microbatch_size: rows of one group under "microbatch".
      num_tiles: pieces of the sequence for which logits exist at a time.
    """

    loss_masks: tuple[LossMask, ...] = ()
    loss_norm: str = "global"
    microbatch_size: int = 1
    num_tiles: int = 8

    def __post_init__(self) -> None:
        require_list("Objective.loss_masks", self.loss_masks)
        object.__setattr__(self, "loss_masks", tuple(self.loss_masks))
        for mask in self.loss_masks:
            require_callable("a mask of Objective.loss_masks", mask, "Objective.loss_masks = [@goldfish()]")
        require_choice("Objective.loss_norm", self.loss_norm, LOSS_NORMS)
        require_count("Objective.microbatch_size", self.microbatch_size, at_least=1)
        require_count("Objective.num_tiles", self.num_tiles, at_least=1)

    @property
    def left_context(self) -> int:
        """How many labels before the window the masks look at."""
        return left_context_of(self.loss_masks)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources of the token store that the masks tell apart."""
        return sources_of(self.loss_masks)


def normalize_weights(weights: jax.Array, loss_norm: str, microbatch_size: int) -> jax.Array:
    """Scales token weights so that the loss is their weighted sum of cross-entropies.

    Args:
      weights: float32[B, T], 0 where a token is masked.
      loss_norm: see `Objective`.
      microbatch_size: rows that share one denominator under "microbatch".

    Returns:
      float32[B, T]. A group without kept tokens weighs nothing instead of dividing by zero.
    """
    batch_size = weights.shape[0]
    group = batch_size if loss_norm == "global" else microbatch_size
    grouped = weights.reshape(batch_size // group, group, -1)
    kept = grouped.sum(axis=(1, 2), keepdims=True)
    denominators = jnp.where(kept > 0, kept, 1.0) * (batch_size // group)
    return (grouped / denominators).reshape(weights.shape)


def check_microbatches(batch_size: int, objective: Objective) -> None:
    """Raises UserError when a batch does not split into the microbatches of a "microbatch" loss."""
    if objective.loss_norm == "microbatch" and batch_size % objective.microbatch_size:
        raise UserError(
            f"a batch of {batch_size} rows does not split into microbatches of "
            f"Objective.microbatch_size={objective.microbatch_size}; change one of them"
        )


def split_microbatches(tree: Any, accumulation: int) -> Any:
    """Reshapes leaves `[B, …]` to `[accumulation, B / accumulation, …]`, strided so that sharded rows stay local."""
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf.reshape(leaf.shape[0] // accumulation, accumulation, *leaf.shape[1:]), 1, 0),
        tree,
    )


def batch_loss(
    params: Any, config: ModelConfig, batch: Batch, weights: jax.Array, num_tiles: int, batch_shards: int = 1
) -> jax.Array:
    """Returns the weighted sum of token cross-entropies of a batch, float32 scalar."""
    hidden: Any = Transformer(config).apply(
        {"params": params},
        batch["tokens"][:, :-1],
        positions=batch["positions"],
        segment_ids=batch["segment_ids"],
        method="hidden_states",
    )
    labels = batch["tokens"][:, 1:]
    kernel = params["lm_head"]["kernel"]
    loss, _ = cross_entropy(hidden, kernel, labels, weights, num_tiles, batch_shards, _gathered_once)
    return loss


def _gathered_once(lm_head: jax.Array) -> jax.Array:
    """Constrains the output matrix [D, V] to have D whole before the tiles, each of which would gather it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return lm_head
    with jax.named_scope("lm_head"):
        constrained: jax.Array = nn.with_logical_constraint(lm_head, (None, "activation_vocab"))
    return constrained


def accumulate_gradients(
    loss_function: Callable[[Any, Batch, jax.Array], jax.Array],
    params: Any,
    batch: Batch,
    weights: jax.Array,
    accumulation: int,
) -> tuple[jax.Array, Any]:
    """Returns loss and float32 gradients of the batch, computed in `accumulation` sequential pieces."""
    loss_and_gradients = jax.value_and_grad(loss_function)
    if accumulation == 1:
        return loss_and_gradients(params, batch, weights)

    def add_piece(total: Any, piece: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, loss_and_gradients(params, *piece)), None

    zeros = (jnp.zeros((), jnp.float32), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params))
    model_inputs = {name: batch[name] for name in ("tokens", "positions", "segment_ids")}
    total, _ = jax.lax.scan(add_piece, zeros, split_microbatches((model_inputs, weights), accumulation))
    return total


def make_gradients(
    config: ModelConfig, objective: Objective, accumulation: int = 1, batch_shards: int = 1
) -> Callable[[Any, Batch, jax.Array], tuple[jax.Array, Any, jax.Array]]:
    """Returns the pure function `(params, batch, samples_consumed) -> (loss, gradients, weights)` of a step.

    loss float32[]; gradients float32, a tree as `params`; weights float32[B, T], 0 where a token is masked.
    """

    def loss_function(params: Any, batch: Batch, weights: jax.Array) -> jax.Array:
        return batch_loss(params, config, batch, weights, objective.num_tiles, batch_shards)

    def gradients_of_step(params: Any, batch: Batch, samples_consumed: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
        # A value that the step has anyway: masks that do not read it leave the program as it is.
        weights = combine_masks(objective.loss_masks, {**batch, "samples_consumed": samples_consumed})
        scaled = normalize_weights(weights, objective.loss_norm, objective.microbatch_size)
        loss, gradients = accumulate_gradients(loss_function, params, batch, scaled, accumulation)
        return loss, gradients, weights

    return gradients_of_step


def make_train_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformationExtraArgs,
    objective: Objective,
    accumulation: int = 1,
    batch_shards: int = 1,
    guard: StepGuard = StepGuard(),  # noqa: B008 (frozen)
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the pure step function; jit it with the shardings of the state.

    `batch_shards` is how many ways the mesh splits a batch, see `cross_entropy`.

    Metrics are float32 scalars: `loss` (the objective), `gradient_norm` (before clipping), `update_norm` (what is added
    to the parameters), `kept_tokens` (weights that stayed), `kept_fraction`, and `skipped` (1.0 when loss, gradients or
    update were not finite: parameters and optimizer state are then left untouched, while the samples still count as
    consumed). With a `guard` that is on, `skipped` is 1.0 for spikes too, and there are `spiked`, `running_loss` and
    `running_norm`; the state must have been initialised with it.
    """
    gradients_of_step = make_gradients(config, objective, accumulation, batch_shards)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, gradients, weights = gradients_of_step(state.params, batch, state.samples_consumed)
        gradient_norm = global_norm(gradients)
        updates, opt_state = optimizer.update(
            gradients, state.opt_state, state.params, samples_consumed=state.samples_consumed
        )
        # An update can overflow although loss and gradients did not.
        update_norm = global_norm(updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & jnp.isfinite(update_norm)
        running = state.running if guard.is_on else None
        spiked = None if running is None else is_spike(guard, running, loss, gradient_norm)
        applied = finite if spiked is None else finite & ~spiked
        params = optax.apply_updates(state.params, updates)
        keep_if_applied = lambda new, old: jnp.where(applied, new, old)  # noqa: E731
        new_state = TrainState(
            params=jax.tree.map(keep_if_applied, params, state.params),
            opt_state=jax.tree.map(keep_if_applied, opt_state, state.opt_state),
            optimizer_step=state.optimizer_step + applied.astype(jnp.int32),
            samples_consumed=add_samples(state.samples_consumed, batch["tokens"].shape[0]),
            skipped_steps=state.skipped_steps + (~applied).astype(jnp.int32),
            running=state.running if running is None else after_step(guard, running, loss, gradient_norm, applied),
        )
        kept = weights.sum()
        metrics = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "update_norm": update_norm,
            "kept_tokens": kept,
            "kept_fraction": kept / weights.size,
            "skipped": (~applied).astype(jnp.float32),
        }
        if spiked is not None and running is not None:
            metrics["spiked"] = (finite & spiked).astype(jnp.float32)
            metrics |= {"running_loss": running.loss, "running_norm": running.norm}
        return new_state, metrics

    return train_step

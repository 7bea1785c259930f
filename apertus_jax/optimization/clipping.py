"""Global-norm gradient clipping, as Megatron does it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from apertus_jax.validation import require_number


def global_norm(tree: optax.Updates) -> jax.Array:
    """The L2 norm over all leaves together, float32[], whatever the leaves' dtypes."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.float32(0)))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales gradients by c = max_norm / (norm + 1e-6) where c < 1.

    `optax.clip_by_global_norm` leaves out the 1e-6. Raises UserError unless max_norm is positive.

    Source: docs/reference/model_and_training.md §6.
    """
    require_number("clip_norm", max_norm, above=0)

    def update(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        scale = jnp.minimum(max_norm / (global_norm(updates) + 1e-6), 1.0)
        return jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

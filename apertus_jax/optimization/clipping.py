"""Clipping by the global norm, as Megatron does it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from apertus_jax.errors import UserError


def global_norm(tree: optax.Updates) -> jax.Array:
    """The L2 norm over all leaves together, float32[], whatever the leaves' dtypes."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.float32(0)))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales gradients by c = max_norm / (norm + 1e-6) where c < 1 (model spec §6).

    `optax.clip_by_global_norm` leaves out the 1e-6. Raises UserError unless max_norm is positive.
    """
    if not max_norm > 0:
        raise UserError(f"clip_norm={max_norm} must be positive; use None to leave gradients unclipped")

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(max_norm / (global_norm(updates) + 1e-6), 1.0)
        return jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

"""Sliding-window folds: every window of a sequence at once, in a logarithmic number of passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.errors import UserError

Array = jax.Array | np.ndarray  # what callers may hold: a batch on the device, or one just read
Values = TypeVar("Values")
# Before the row, and where left_context is empty: a segment that no label belongs to.
NO_SEGMENT = -(2**31)


def fold_windows(leaves: Values, width: int, merge: Callable[[Values, Values], Values], padding: Any) -> Values:
    """Folds the last `width` positions up to and including each position, by doubling.

    `leaves` is a pytree of arrays [..., T]; `padding` is the same tree of scalars, standing for what lies before the
    first position. `merge(recent, older)` joins two neighbouring windows. Windows of 1, 2, 4, … positions are built
    from each other and joined along the binary digits of `width`, so 50 positions cost 7 merges instead of 49. The
    shape of the tree of merges depends on `width` alone, hence `merge` need not be associative.
    """

    def shift(values: Values, distance: int) -> Values:
        return jax.tree.map(lambda array, pad: shift_right(array, distance, pad), values, padding)

    power, length = leaves, 1
    folded, folded_length = None, 0
    while True:
        if width & length:
            folded = power if folded is None else merge(folded, shift(power, folded_length))
            folded_length += length
        if 2 * length > width:
            assert folded is not None  # a width of 1 or more has a highest binary digit
            return folded
        power = merge(power, shift(power, length))
        length *= 2


def shift_right(array: jax.Array, distance: int, pad: int) -> jax.Array:
    """Moves [..., T] by `distance` positions to the right, filling with `pad`; shape and dtype stay."""
    length = array.shape[-1]
    distance = min(distance, length)
    filling = jnp.full((*array.shape[:-1], distance), pad, array.dtype)
    return jnp.concatenate([filling, array[..., : length - distance]], axis=-1)


def prepend_context(labels: jax.Array, segments: jax.Array, left_context: Array, h: int) -> tuple[jax.Array, jax.Array]:
    """Puts the h-1 labels before the row in front of it, in the segment of the row's first label where they exist.

    labels, segments int32[..., T], left_context int32[..., ≥ h-1] with -1 where there is no label → [..., T+h-1] each.
    Raises UserError if left_context is shorter than h-1.
    """
    context = jnp.asarray(left_context, jnp.int32)
    if context.shape[-1] < h - 1:
        raise UserError(
            f"left_context holds {context.shape[-1]} labels but goldfish h={h} looks back {h - 1}; "
            "build the batch with a longer context or lower h"
        )
    context = context[..., context.shape[-1] - (h - 1) :]
    context_segments = jnp.where(context >= 0, segments[..., :1], NO_SEGMENT)
    return jnp.concatenate([context, labels], -1), jnp.concatenate([context_segments, segments], -1)

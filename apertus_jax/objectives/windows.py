"""Folding every window of a sequence at once, in a logarithmic number of passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Values = TypeVar("Values")


def fold_windows(leaves: Values, width: int, merge: Callable[[Values, Values], Values], padding: Values) -> Values:
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
            return folded
        power = merge(power, shift(power, length))
        length *= 2


def shift_right(array: jax.Array, distance: int, pad: int) -> jax.Array:
    """Moves [..., T] by `distance` positions to the right, filling with `pad`; shape and dtype stay."""
    length = array.shape[-1]
    distance = min(distance, length)
    filling = jnp.full((*array.shape[:-1], distance), pad, array.dtype)
    return jnp.concatenate([filling, array[..., : length - distance]], axis=-1)

"""Goldfish hash of version 2, bit for bit, on devices with 32-bit integers only.

The key of a label is Σ coefficient_i · label_i over the last h labels, in 64-bit two's complement, modulo 1,000,003;
the table of uniform numbers is that of the first version (`megatron_hash`). A sum with odd coefficients hangs on the
order of the labels and on every one of them. The product of the first version does neither: one id 0 makes it 0, an
id 1 leaves it as it is, and factors of two pile up until nothing else is left of it.

Source: docs/reference/after_version_1.md §2.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from apertus_jax.objectives.megatron_hash import TABLE_SEED, Limbs, drops_of_keys, floor_modulo, multiply_limbs
from apertus_jax.objectives.windows import Array

LARGEST_WINDOW = 1 << 20  # one coefficient for each label of it
COEFFICIENT_BITS = 62
# Those of the width that is published beside the algorithm, as little-endian int64.
_COEFFICIENTS_SHA256 = {50: "7e33f22a4d66352adfe1bd14ee5370bd275f89eed03c7e6c5646e99f65cd7c6d"}


@functools.lru_cache(maxsize=8)
def coefficients(h: int) -> np.ndarray:
    """The odd coefficients of windows of `h` labels, the oldest label's first: int64[h], each below 2**62.

    They are drawn by the Mersenne Twister of seed 2971215073 + h, two words each with the high one first.
    Raises RuntimeError if NumPy's generator gives other numbers than the published ones.
    """
    words = np.random.RandomState(TABLE_SEED + h).randint(0, 2**32, size=(h, 2), dtype=np.uint32).astype(np.uint64)
    drawn = ((words[:, 0] << np.uint64(32)) | words[:, 1]) & np.uint64(2**COEFFICIENT_BITS - 1)
    odd = (drawn | np.uint64(1)).astype(np.int64)
    digest = hashlib.sha256(odd.astype("<i8").tobytes()).hexdigest()
    if _COEFFICIENTS_SHA256.get(h, digest) != digest:
        raise RuntimeError(f"Goldfish coefficients have sha256 {digest}: NumPy's MT19937 has changed")
    odd.setflags(write=False)
    return odd


def ordered_drops(labels: Array, k: int, h: int) -> jax.Array:
    """Labels int32[..., T] → bool[..., T], True where the hash of version 2 drops it; never one of the first h-1."""
    has_window = jnp.arange(labels.shape[-1]) >= h - 1
    return drops_of_keys(ordered_keys(labels, h), k) & has_window


def ordered_keys(labels: Array, h: int) -> jax.Array:
    """Labels int32[..., T] → keys int32[..., T] in [0, 1000003); meaningful from position h-1 on."""
    labels = jnp.asarray(labels, jnp.int32)
    length = labels.shape[-1]
    unsigned = coefficients(h).astype(np.uint64)
    high = jnp.asarray((unsigned >> np.uint64(32)).astype(np.uint32))
    low = jnp.asarray((unsigned & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    padded = jnp.concatenate([jnp.zeros((*labels.shape[:-1], h - 1), jnp.int32), labels], axis=-1)

    def add_place(place: jax.Array, total: Limbs) -> Limbs:
        here = jax.lax.dynamic_slice_in_dim(padded, place, length, axis=-1)
        extended = (jnp.where(here < 0, jnp.uint32(0xFFFFFFFF), jnp.uint32(0)), here.astype(jnp.uint32))
        more_high, more_low = multiply_limbs((high[place], low[place]), extended)
        total_high, total_low = total
        new_low = total_low + more_low
        return total_high + more_high + (new_low < more_low).astype(jnp.uint32), new_low

    zeros = jnp.zeros(labels.shape, jnp.uint32)
    return floor_modulo(jax.lax.fori_loop(0, h, add_place, (zeros, zeros))).astype(jnp.int32)

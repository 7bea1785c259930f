"""64-bit mixer (splitmix64), on which document keys, samples and orders rest."""

from __future__ import annotations

import numpy as np

GOLDEN_RATIO_64 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: spreads consecutive counters over 64 bits
_FIRST_FACTOR, _SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def mix64(values: np.ndarray) -> np.ndarray:
    """Returns uint64: a bijection of 64-bit values in which every input bit moves every output bit.

    The finaliser of splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014); products
    wrap around.
    """
    values = np.asarray(values, dtype=np.uint64)
    if not values.ndim:  # NumPy warns of products of single numbers that wrap, not of those of arrays
        return mix64(values[None])[0]
    mixed = values ^ (values >> _30)
    mixed *= _FIRST_FACTOR
    mixed ^= mixed >> _27
    mixed *= _SECOND_FACTOR
    mixed ^= mixed >> _31
    return mixed

"""Pseudorandom permutation of 0 .. size-1 (Feistel, cycle walking): no table, exact inverse.

A Feistel network permutes the next power of two; values that land outside 0 .. size-1 are sent through again until
they land inside (cycle walking), which restricts the permutation to the domain and takes two passes on average. All of
it is NumPy on whole arrays, and every element may have a key of its own.
"""

from __future__ import annotations

import hashlib

import numpy as np

from apertus_jax.mix64 import GOLDEN_RATIO_64, mix64

ROUNDS = 10  # with 6, pairs of neighbours are visibly uneven in domains of 64 to 128; with 8 no longer
SMALLEST_BITS = 6  # cycle walking from 64 values makes all permutations of tiny domains equally likely; from 16 not
LARGEST_SIZE = 1 << 62


def derive_key(*parts: str | int) -> np.uint64:
    """Returns a 64-bit key: BLAKE2b over the parts, each with its type and length, so no two lists run together."""
    digest = hashlib.blake2b(digest_size=8, person=b"apertus order")
    for part in parts:
        spelled = f"{type(part).__name__}:{part}".encode()
        digest.update(len(spelled).to_bytes(8, "little") + spelled)
    return np.uint64(int.from_bytes(digest.digest(), "little"))


def counted_keys(key: np.uint64, counters: np.ndarray) -> np.ndarray:
    """Returns uint64[n]: one key per counter (an epoch, a block); different counters never share a key."""
    counters = np.asarray(counters).astype(np.uint64)
    with np.errstate(over="ignore"):
        return mix64(mix64(counters * GOLDEN_RATIO_64 + key) ^ key)


def permute(values: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Returns int64[n]: where the permutation of 0 .. size-1 under each key sends each value int64[n].

    Args:
      values: numbers in 0 .. size-1.
      size: domain size, 1 .. 2^62.
      keys: uint64[n], or one for all.

    Raises:
      ValueError: a value lies outside the domain.
    """
    return _walk(values, size, keys, inverse=False)


def unpermute(values: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Returns int64[n]: the values that `permute` sends to `values` under the same size and keys."""
    return _walk(values, size, keys, inverse=True)


def _walk(values: np.ndarray, size: int, keys: np.ndarray, inverse: bool) -> np.ndarray:
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"a permutation of {size} values was asked for; 1 to {LARGEST_SIZE} are possible")
    current: np.ndarray = np.atleast_1d(np.asarray(values, dtype=np.int64))
    if current.size and (current.min() < 0 or current.max() >= size):
        raise ValueError(f"values {current.min()} to {current.max()} do not lie in 0 to {size - 1}")
    current = current.astype(np.uint64).ravel()
    keys = np.broadcast_to(np.asarray(keys, dtype=np.uint64), current.shape)
    bits = max(SMALLEST_BITS, (size - 1).bit_length())
    result = _feistel(current, bits, keys, inverse)
    outside = np.flatnonzero(result >= np.uint64(size))
    while len(outside):
        result[outside] = _feistel(result[outside], bits, keys[outside], inverse)
        outside = outside[result[outside] >= np.uint64(size)]
    return result.astype(np.int64).reshape(np.shape(values))


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray, inverse: bool) -> np.ndarray:
    """Returns uint64[n]: a keyed permutation of 0 .. 2^bits - 1, halves of ceil and floor bits/2 taking turns.

    Round r replaces one half by itself xor a hash of the other, which is its own inverse: the inverse network is the
    same rounds in the opposite order.
    """
    low_bits = np.uint64(bits // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(bits - bits // 2)) - np.uint64(1)
    low, high = values & low_mask, values >> low_bits
    for round_number in reversed(range(ROUNDS)) if inverse else range(ROUNDS):
        with np.errstate(over="ignore"):
            round_keys = keys + np.uint64(round_number + 1) * GOLDEN_RATIO_64
        if round_number % 2:
            low = low ^ (mix64(mix64(round_keys) ^ high) & low_mask)
        else:
            high = high ^ (mix64(mix64(round_keys) ^ low) & high_mask)
    return (high << low_bits) | low

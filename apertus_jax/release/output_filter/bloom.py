"""Bloom filter over digests that are already uniform, such as truncated SHA-256."""

from __future__ import annotations

import math

import numpy as np

DIGEST_BYTES = 16
# In fewer bits the places of one digest often fall together, and more pass than designed.
MIN_BITS = 1024
_MASK = (1 << 64) - 1


def bloom_size(count: int, rate: float) -> tuple[int, int]:
    """Returns (bits, hashes) for `count` digests of which a share `rate` of others shall pass; bits fill bytes."""
    if not count:
        return 0, 0
    bits = max(MIN_BITS, math.ceil(-count * math.log(rate) / math.log(2) ** 2))
    return -(-bits // 8) * 8, max(1, round(-math.log2(rate)))


def halves(digests: bytes) -> np.ndarray:
    """Returns uint64[n, 2], the big-endian halves of n concatenated digests of 16 bytes."""
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def _places(digests: np.ndarray, bits: int, hashes: int) -> np.ndarray:
    """Returns uint64[n, hashes]: (h1 + i·h2 mod 2⁶⁴) mod bits, with h1 and h2 | 1 the halves (Kirsch, Mitzenmacher)."""
    steps = np.arange(hashes, dtype=np.uint64)
    return (digests[:, :1] + steps * (digests[:, 1:] | np.uint64(1))) % np.uint64(bits)


def build_bloom(digests: np.ndarray, bits: int, hashes: int) -> bytes:
    """Returns the bit array of the digests uint64[n, 2]; bit b is bit b % 8 of byte b // 8."""
    table = np.zeros(bits, dtype=np.uint8)
    if bits:
        table[_places(digests, bits, hashes).ravel()] = 1
    return np.packbits(table, bitorder="little").tobytes()


def share_that_pass(table: bytes, bits: int, hashes: int, digests: np.ndarray) -> float:
    """Returns which share of the digests uint64[n, 2] the bit array lets pass."""
    if not bits:
        return 0.0
    places = _places(digests, bits, hashes)
    content = np.frombuffer(table, dtype=np.uint8)
    return float(((content[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8)) & 1).all(axis=1).mean())


class Bloom:
    """The bit array, opened for single lookups."""

    def __init__(self, table: bytes, bits: int, hashes: int):
        self._table, self._bits, self._hashes = table, bits, hashes

    def may_hold(self, digest: bytes) -> bool:
        """Returns False only if the digest of 16 bytes is not in it."""
        if not self._bits:
            return False
        place, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") | 1
        for _ in range(self._hashes):
            bit = place % self._bits
            if not self._table[bit >> 3] >> (bit & 7) & 1:
                return False
            place = (place + step) & _MASK
        return True

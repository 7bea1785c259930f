"""Rolling fingerprints: the hash of any stretch of a sequence in constant time, after one pass."""

from __future__ import annotations

import functools

import numpy as np

from apertus_jax.mix64 import mix64

# An odd number without pattern, so that it has an inverse modulo 2^64.
BASE = 0x9E6C63D0876A3F6B
INVERSE = pow(BASE, -1, 1 << 64)


class Fingerprints:
    """Polynomial fingerprints modulo 2^64 of stretches of a sequence.

    F(start, end) = Σ value[i]·BASE^(i − start): equal stretches have equal fingerprints wherever they lie, and
    different ones of ordinary text practically never do (chance about 2^-64 a pair; texts built to collide would only
    change how repetitive they seem).
    """

    def __init__(self, values: np.ndarray) -> None:
        """values: non-zero integers below 2^64, [length]."""
        powers, _ = _powers(_bits(len(values) + 1))
        self._sums = np.zeros(len(values) + 1, np.uint64)
        np.cumsum(values.astype(np.uint64) * powers[: len(values)], out=self._sums[1:])

    def of(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Returns the fingerprints of the stretches [start, end), uint64[stretches]."""
        _, inverses = _powers(_bits(len(self._sums)))
        return mix64((self._sums[end] - self._sums[start]) * inverses[start])


def _bits(length: int) -> int:
    """Returns for how many bits of positions powers are wanted: few sizes, so that few are computed."""
    return max(18, length.bit_length())


@functools.lru_cache(maxsize=2)
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns BASE^i and BASE^-i modulo 2^64 for i below 2^bits, uint64."""
    powers, inverses = (np.full(1 << bits, factor, np.uint64) for factor in (BASE, INVERSE))
    powers[0] = inverses[0] = 1
    return np.cumprod(powers), np.cumprod(inverses)

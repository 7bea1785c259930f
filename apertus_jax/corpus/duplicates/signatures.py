"""MinHash signatures: shingles of words, universal hash functions modulo 2^61 - 1, band keys.

The hash functions are h(x) = (a·x + b) mod (2^61 - 1), computed exactly; products do not wrap around. Minima over
many shingles are found with a 64-bit fixed-point estimate of h first and the exact value only for the few shingles
that can be the minimum, which gives the same result as computing all of them.

Source: docs/reference/data.md §8.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import xxhash

PRIME = (1 << 61) - 1
EMPTY = np.uint64(PRIME)  # larger than every hash value
CHUNK_SHINGLES = 6144
ROWS_AT_ONCE = 8
# The estimate of 2^64·h/PRIME is never below it and less than this above it.
ESTIMATE_ERROR = np.uint64(1 << 33)
SPACE = ord(" ")

_P, _29, _32, _61 = np.uint64(PRIME), np.uint64(29), np.uint64(32), np.uint64(61)
_LOW_29, _LOW_32 = np.uint64((1 << 29) - 1), np.uint64((1 << 32) - 1)


def shingle_hashes(words: bytes, ngram: int) -> np.ndarray:
    """Returns the XXH3 hashes of all word n-grams of `words` (UTF-8, single spaces): uint64[shingles].

    A text of fewer than `ngram` words is one shingle as a whole.
    """
    spaces = np.flatnonzero(np.frombuffer(words, np.uint8) == SPACE)
    count = len(spaces) + 2 - ngram
    digest = xxhash.xxh3_64_intdigest
    if count <= 1:
        return np.array([digest(words)], np.uint64)
    starts = np.concatenate(([0], spaces[: count - 1] + 1))
    stops = np.concatenate((spaces[ngram - 1 :], [len(words)]))
    hashes = np.empty(count, np.uint64)
    for first in range(0, count, CHUNK_SHINGLES):
        part = slice(first, first + CHUNK_SHINGLES)
        bounds = zip(starts[part].tolist(), stops[part].tolist(), strict=True)
        hashes[part] = [digest(words[start:stop]) for start, stop in bounds]
    return hashes


def hash_functions(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factors a in [1, PRIME) and offsets b in [0, PRIME), both uint64[count].

    The draws are those of datatrove at the same seed; NumPy keeps the stream of `RandomState` fixed for ever.
    """
    generator = np.random.RandomState(seed)
    factors = generator.randint(1, PRIME, dtype=np.uint64, size=(1, count))
    offsets = generator.randint(0, PRIME, dtype=np.uint64, size=(1, count))
    return factors[0], offsets[0]


def permute(x: np.ndarray, factors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns (factors·x + offsets) mod PRIME exactly; all uint64 and broadcast together, factors and offsets < PRIME.

    Products are split into 32-bit limbs, and 2^61 = 1 modulo PRIME folds their parts together.
    """
    x = (x & _P) + (x >> _61)
    x = np.where(x >= _P, x - _P, x)
    x_low, x_high = x & _LOW_32, x >> _32
    a_low, a_high = factors & _LOW_32, factors >> _32
    middle = x_high * a_low + x_low * a_high  # weight 2^32; below 2^62
    low = x_low * a_low
    total = ((x_high * a_high) << np.uint64(3)) + (middle >> _29) + ((middle & _LOW_29) << _32)
    total += (low & _P) + (low >> _61) + offsets
    total = (total & _P) + (total >> _61)
    return np.where(total >= _P, total - _P, total)


class Signatures:
    """Minima of `count` hash functions over the shingles of documents."""

    def __init__(self, count: int, seed: int):
        self.count = count
        self.factors, self.offsets = hash_functions(count, seed)
        exact = [(int(a), int(b)) for a, b in zip(self.factors, self.offsets, strict=True)]
        # a·x / PRIME = x_high·(a·2^32 / PRIME) + x_low·(a / PRIME); whole parts wrap away in 64 bits.
        self._high = np.array([((a << 32) % PRIME << 64) // PRIME for a, _ in exact], np.uint64)[:, None]
        self._low = np.array([(a << 64) // PRIME for a, _ in exact], np.uint64)[:, None]
        bias = int(ESTIMATE_ERROR)
        self._bias = np.array([((b << 64) // PRIME + bias) % (1 << 64) for _, b in exact], np.uint64)[:, None]

    def minima(self, shingles: Sequence[np.ndarray]) -> np.ndarray:
        """Returns uint64[documents, count]: the minimum of each hash function over each document's shingles.

        `shingles` holds one non-empty uint64 array for each document.
        """
        lengths = np.fromiter(map(len, shingles), np.int64, len(shingles))
        result = np.full((len(shingles), self.count), EMPTY, np.uint64)
        if not len(shingles):
            return result
        x = np.concatenate(shingles)
        x = (x & _P) + (x >> _61)
        x = np.where(x >= _P, x - _P, x)
        stops = np.cumsum(lengths)
        for start in range(0, len(x), CHUNK_SHINGLES):
            stop = min(start + CHUNK_SHINGLES, len(x))
            first = np.searchsorted(stops, start, side="right")
            last = np.searchsorted(stops, stop, side="left")
            bounds = np.concatenate(([start], stops[first:last])) - start
            self._chunk_minima(x[start:stop], bounds, result[first : last + 1])
        return result

    def _chunk_minima(self, x: np.ndarray, starts: np.ndarray, result: np.ndarray) -> None:
        """Lowers `result` uint64[segments, count] to the minima over the segments of x that begin at `starts`."""
        x_low, x_high = x & _LOW_32, x >> _32
        counts = np.diff(starts, append=len(x))
        estimate = np.empty((ROWS_AT_ONCE, len(x)), np.uint64)
        product = np.empty_like(estimate)
        candidates = []
        for first in range(0, self.count, ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, self.count))
            values = estimate[: rows.stop - first]
            np.multiply(x_high, self._high[rows], out=values)
            np.multiply(x_low, self._low[rows], out=product[: len(values)])
            values += product[: len(values)]
            values += self._bias[rows]
            candidates.append(_candidates(values, starts, counts) + first * len(x))
        function, column = np.divmod(np.concatenate(candidates), len(x))
        exact = permute(x[column], self.factors[function], self.offsets[function])
        segment = np.repeat(np.arange(len(starts)), counts)[column]
        np.minimum.at(result, (segment, function), exact)


def _candidates(estimates: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the flat indices into estimates uint64[functions, shingles] of all that can be the minimum of a segment.

    Segments begin at the columns `starts` and have `counts` columns.
    """
    lowest = np.minimum.reduceat(estimates, starts, axis=1)
    if (lowest < ESTIMATE_ERROR).any():
        # An estimate near the top may have wrapped to the bottom: every shingle is a candidate.
        return np.arange(estimates.size)
    limits = lowest + np.minimum(ESTIMATE_ERROR, ~lowest)
    return np.flatnonzero(estimates <= (limits if len(starts) == 1 else np.repeat(limits, counts, axis=1)))


@functools.cache
def signatures(count: int, seed: int) -> Signatures:
    """Returns the hash functions of a seed, made once in each process."""
    return Signatures(count, seed)


def band_keys(minima: np.ndarray, bands: int) -> np.ndarray:
    """Returns uint64[documents, bands]: a hash of each band of a signature uint64[documents, bands·rows].

    The number of the band is the seed, so equal values in different bands do not meet.
    """
    content = np.ascontiguousarray(minima, "<u8").tobytes()
    size = minima.shape[1] // bands * 8
    digest = xxhash.xxh3_64_intdigest
    keys = [digest(content[start : start + size], start // size % bands) for start in range(0, len(content), size)]
    return np.array(keys, np.uint64).reshape(len(minima), bands)

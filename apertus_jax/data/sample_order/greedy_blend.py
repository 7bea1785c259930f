"""Megatron's greedy blend, kept for the `*_as_run` configurations.

At sample n the source with the largest w·max(n, 1) - drawn is drawn, the first of equals. This has no closed form:
blends are computed chunk by chunk from the front, the draws at each chunk's start are kept, and any chunk already
passed is computed again from there.

Source: docs/reference/model_and_training.md §4.2; docs/reference/data.md §11.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from apertus_jax.data.sample_order.quota_blend import NEVER
from apertus_jax.errors import UserError

CHUNK = 1 << 16
CACHED_CHUNKS = 32


def greedy_sources(weights: np.ndarray, drawn: np.ndarray, first: int, count: int) -> np.ndarray:
    """Returns int16[count]: the sources of samples first .. first+count-1, and adds them to `drawn` int64[S] in place.

    `weights` is float64[S], all positive; float64 arithmetic in the published order, so ties fall as they did.
    """
    sources = np.empty(count, dtype=np.int16)
    for offset in range(count):
        source = int(np.argmax(weights * max(first + offset, 1) - drawn))
        sources[offset] = source
        drawn[source] += 1
    return sources


class GreedyBlend:
    """One stage of greedy blending of `names` at `weights`, for `length` samples."""

    def __init__(self, names: Sequence[str], weights: Sequence[float], length: int):
        """Normalises the weights. Raises UserError for a weight that is not positive or too many sources."""
        self.names = tuple(names)
        self.length = length
        given = np.asarray(weights, dtype=np.float64)
        if len(given) != len(self.names) or not (given > 0).all():
            raise UserError(
                f"greedy blending of {', '.join(self.names)} has weights {given.tolist()}; give each a positive one"
            )
        if len(given) >= np.iinfo(np.int16).max:
            raise UserError(f"greedy blending of {len(given)} sources was asked for; it holds fewer than 32767")
        self._weights = given / given.sum()
        self._drawn_at_chunk = [np.zeros(len(given), dtype=np.int64)]
        self._lock = threading.Lock()
        self._chunk = functools.lru_cache(maxsize=CACHED_CHUNKS)(self._compute_chunk)

    def _compute_chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw) of one chunk whose start is known; learns the start of the next."""
        before = self._drawn_at_chunk[chunk]
        drawn = before.copy()
        first = chunk * CHUNK
        sources = greedy_sources(self._weights, drawn, first, min(CHUNK, self.length - first))
        if chunk + 1 == len(self._drawn_at_chunk):
            self._drawn_at_chunk.append(drawn)
        draws = np.empty(len(sources), dtype=np.int64)
        draws[np.argsort(sources, kind="stable")] = np.concatenate(
            [np.arange(start, end) for start, end in zip(before, drawn, strict=True)]
        )
        return sources, draws

    def _drawn_in(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw) of any chunk, computing those before it that were never reached."""
        with self._lock:
            for earlier in range(len(self._drawn_at_chunk) - 1, chunk):
                self._chunk(earlier)
            return self._chunk(chunk)

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw), both int64[n]. Raises UserError for a sample past the end of the blend."""
        samples = np.asarray(samples, dtype=np.int64)
        if samples.size and int(samples.max()) >= self.length:
            raise UserError(
                f"the blend of {', '.join(self.names)} ends after {self.length} samples and sample number "
                f"{int(samples.max())} was asked for; train on fewer samples or add sources"
            )
        chunks, offsets = np.divmod(samples, CHUNK)
        source, draw = np.empty_like(samples), np.empty_like(samples)
        for chunk in np.unique(chunks):
            mask = chunks == chunk
            chunk_sources, chunk_draws = self._drawn_in(int(chunk))
            source[mask], draw[mask] = chunk_sources[offsets[mask]], chunk_draws[offsets[mask]]
        return source, draw

    def sample_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample number of each draw of one source, -1 where the blend ends before it."""
        draws = np.asarray(draws, dtype=np.int64)
        result = np.full(draws.shape, NEVER, dtype=np.int64)
        for position, draw in np.ndenumerate(draws):
            chunk = self._chunk_of_draw(source, int(draw))
            if chunk is not None:
                places = np.flatnonzero(self._drawn_in(chunk)[0] == source)
                result[position] = chunk * CHUNK + places[draw - self._drawn_at_chunk[chunk][source]]
        return result

    def _chunk_of_draw(self, source: int, draw: int) -> int | None:
        """Returns the chunk that makes this draw, or None; binary search over the chunks passed, then forward."""
        num_chunks = -(-self.length // CHUNK)
        while self._drawn_at_chunk[-1][source] <= draw:
            if len(self._drawn_at_chunk) > num_chunks:
                return None
            self._drawn_in(len(self._drawn_at_chunk) - 1)
        low, high = 0, len(self._drawn_at_chunk) - 1
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if self._drawn_at_chunk[middle][source] <= draw else (low, middle)
        return low

    def draw_limit(self, num_samples: int) -> np.ndarray:
        """Returns int64[S]: the exact draws of the first chunks that hold `num_samples` samples."""
        chunks = -(-min(num_samples, self.length) // CHUNK)
        if chunks:
            self._drawn_in(chunks - 1)
        return self._drawn_at_chunk[chunks]

    def describe(self) -> dict[str, Any]:
        """Returns weights and length as JSON values."""
        weights = dict(zip(self.names, self._weights.tolist(), strict=True))
        return {"kind": "greedy", "sources": list(self.names), "length": self.length, "rates": weights}


class StagedBlend:
    """Greedy blends one after another, each with sources and counters of its own (the released runs' stages)."""

    def __init__(self, blends: Sequence[GreedyBlend]):
        """Stages are in order; stage i starts where stage i - 1 ends."""
        self.blends = tuple(blends)
        self.names = tuple(name for blend in blends for name in blend.names)
        lengths = np.array([blend.length for blend in blends], dtype=np.int64)
        sources = np.array([len(blend.names) for blend in blends], dtype=np.int64)
        self._starts = np.cumsum(lengths) - lengths
        self._first_source = np.cumsum(sources) - sources
        self.length = int(lengths.sum())

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw), both int64[n]. Raises UserError for a sample past the end of the last stage."""
        samples = np.asarray(samples, dtype=np.int64)
        stages = np.searchsorted(self._starts, samples, side="right") - 1
        source, draw = np.empty_like(samples), np.empty_like(samples)
        for stage in np.unique(stages):
            mask = stages == stage
            chosen, draw[mask] = self.blends[stage].locate(samples[mask] - self._starts[stage])
            source[mask] = chosen + self._first_source[stage]
        return source, draw

    def sample_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample number of each draw of one source, -1 where it never comes."""
        stage = int(np.searchsorted(self._first_source, source, side="right")) - 1
        places = self.blends[stage].sample_of_draw(source - int(self._first_source[stage]), draws)
        return np.where(places == NEVER, NEVER, places + self._starts[stage])

    def draw_limit(self, num_samples: int) -> np.ndarray:
        """Returns int64[S]: a bound on the draws of the first `num_samples` samples."""
        return np.concatenate(
            [
                blend.draw_limit(max(0, num_samples - int(start)))
                for blend, start in zip(self.blends, self._starts, strict=True)
            ]
        )

    def describe(self) -> dict[str, Any]:
        """Returns the stages as JSON values."""
        stages = [
            {"start": int(start), **blend.describe()} for blend, start in zip(self.blends, self._starts, strict=True)
        ]
        return {"kind": "greedy stages", "sources": list(self.names), "stages": stages}

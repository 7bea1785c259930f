"""Shuffle of one source's samples per epoch, in arithmetic: number → sample and sample → number.

A draw is the running number of a sample taken from its source: 0, 1, 2, … over the whole run. Epoch e of a source of N
samples is draws e·N .. e·N+N-1, and each epoch is permuted under a key of its own.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from apertus_jax.data.sample_order.permutation import counted_keys, derive_key, permute, unpermute
from apertus_jax.errors import UserError


class SampleOrder(Protocol):
    """draw ↔ (epoch, sample) of one source."""

    def sample_of_draw(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (epoch, sample), both int64[n], of each draw int64[n]."""
        ...

    def draw_of_sample(self, epochs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the draw that takes each (epoch, sample)."""
        ...

    def num_epochs(self, draws: int) -> int:
        """Returns how many epochs the first `draws` draws touch."""
        ...


class PermutedOrder:
    """Our order: each epoch a keyed permutation of all samples, without tables, at any size up to 2^62."""

    def __init__(self, num_samples: int, seed: int, source: str):
        """Derives the key from `seed` and the name of the source; equal sources under two names are ordered apart."""
        self.num_samples = num_samples
        self._key = derive_key("sample order", seed, source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PermutedOrder) and (self.num_samples, self._key) == (other.num_samples, other._key)

    def __hash__(self) -> int:
        return hash((self.num_samples, int(self._key)))

    def sample_of_draw(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (epoch, sample), both int64[n], of each draw int64[n]. O(1) each."""
        epochs, places = np.divmod(np.asarray(draws, dtype=np.int64), self.num_samples)
        return epochs, permute(places, self.num_samples, counted_keys(self._key, epochs))

    def draw_of_sample(self, epochs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the draw that takes each (epoch, sample). O(1) each."""
        epochs, samples = np.broadcast_arrays(np.asarray(epochs, dtype=np.int64), np.asarray(samples, dtype=np.int64))
        return epochs * self.num_samples + unpermute(samples, self.num_samples, counted_keys(self._key, epochs))

    def num_epochs(self, draws: int) -> int:
        """Returns how many epochs the first `draws` draws touch."""
        return -(-draws // self.num_samples)


class StoredOrder:
    """An order given as a table, for Megatron's: it covers all epochs of the source, and ends."""

    def __init__(self, order: np.ndarray, source: str):
        """`order` is a permutation int64[N] of 0 .. N-1; `source` is named in messages."""
        self._order = np.asarray(order, dtype=np.int64)
        self._source = source
        self._draws = np.empty_like(self._order)
        self._draws[self._order] = np.arange(len(self._order))

    def sample_of_draw(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (zeros, sample), both int64[n], of each draw int64[n].

        Raises:
          UserError: a draw lies past the end of the table.
        """
        draws = np.asarray(draws, dtype=np.int64)
        if draws.size and int(draws.max()) >= len(self._order):
            raise UserError(
                f"source {self._source!r} has {len(self._order)} samples in its stored order and sample number "
                f"{int(draws.max())} was asked for; train on fewer samples or request more when building the order"
            )
        return np.zeros_like(draws), self._order[draws]

    def draw_of_sample(self, epochs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the draw that takes each sample; the table is one epoch, numbered 0."""
        return self._draws[np.asarray(samples, dtype=np.int64)]

    def num_epochs(self, draws: int) -> int:
        """Returns 1: the table repeats nothing."""
        return 1

"""Exact quotas across sources: sample number ↔ (source, draw), both O(1), at any scale.

A stage is cut into blocks of Q samples. The slots of a block are permuted under the block's key, and the permuted
places are dealt out in order: the first quota_0 to source 0, the next quota_1 to source 1, and so on. Place p of
source i in block b is draw b·quota_i + (p - places before i). The last, shorter block of a stage that ends has quotas
of its own, so a stage may end anywhere and the next continues every source where this one left it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from apertus_jax.data.permutation import counted_keys, permute, unpermute

NEVER = -1


class Blend(Protocol):
    """sample number ↔ (source, draw)."""

    names: tuple[str, ...]

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw), both int64[n], of each sample number int64[n]."""
        ...

    def sample_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample number of each draw int64[n] of one source, -1 where it never comes."""
        ...

    def draw_limit(self, num_samples: int) -> np.ndarray:
        """Returns int64[S]: a bound that every draw among the first `num_samples` samples stays below."""
        ...

    def describe(self) -> dict[str, Any]:
        """Returns what mixture.json says of the blend."""
        ...


@dataclasses.dataclass(frozen=True)
class QuotaStage:
    """One stage, resolved. All arrays int64[S]; `length` None means that it never ends."""

    start: int
    length: int | None
    rates: tuple[float, ...]
    temperature: float | None
    quotas: np.ndarray
    tail_quotas: np.ndarray
    base_draws: np.ndarray
    key: np.uint64

    @property
    def block_size(self) -> int:
        """Q: the samples of a block."""
        return int(self.quotas.sum())

    @property
    def full_blocks(self) -> int | None:
        """The number of whole blocks; None when the stage never ends."""
        return None if self.length is None else self.length // self.block_size

    def only(self, sources: np.ndarray) -> QuotaStage:
        """Returns the stage without the sources that are not listed; they must have no quota."""
        return dataclasses.replace(
            self,
            rates=tuple(self.rates[source] for source in sources),
            quotas=self.quotas[sources],
            tail_quotas=self.tail_quotas[sources],
            base_draws=self.base_draws[sources],
        )

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw) of samples int64[n] counted from the start of the stage."""
        blocks, slots = np.divmod(places, self.block_size)
        source = np.empty_like(places)
        draw = np.empty_like(places)
        in_tail = np.zeros(places.shape, bool) if self.full_blocks is None else blocks >= self.full_blocks
        for mask, quotas in ((~in_tail, self.quotas), (in_tail, self.tail_quotas)):
            if mask.any():
                ends = np.cumsum(quotas)
                dealt = permute(slots[mask], int(ends[-1]), counted_keys(self.key, blocks[mask]))
                chosen = np.searchsorted(ends, dealt, side="right")
                source[mask] = chosen
                draw[mask] = blocks[mask] * self.quotas[chosen] + dealt - (ends - quotas)[chosen]
        return source, self.base_draws[source] + draw

    def place_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: samples counted from the start of the stage, of draws that this stage makes, else -1."""
        result = np.full(draws.shape, NEVER, dtype=np.int64)
        local = draws - int(self.base_draws[source])
        quota, tail_quota = int(self.quotas[source]), int(self.tail_quotas[source])
        in_full = local >= 0
        if self.full_blocks is not None:
            dealt_in_full = self.full_blocks * quota
            in_tail = (local >= dealt_in_full) & (local < dealt_in_full + tail_quota)
            in_full &= local < dealt_in_full
            if in_tail.any():
                dealt = local[in_tail] - dealt_in_full + int(self.tail_quotas[:source].sum())
                keys = counted_keys(self.key, np.full(dealt.shape, self.full_blocks))
                slots = unpermute(dealt, int(self.tail_quotas.sum()), keys)
                result[in_tail] = self.full_blocks * self.block_size + slots
        if quota and in_full.any():
            blocks, within = np.divmod(local[in_full], quota)
            dealt = within + int(self.quotas[:source].sum())
            result[in_full] = blocks * self.block_size + unpermute(
                dealt, self.block_size, counted_keys(self.key, blocks)
            )
        return result


class QuotaBlend:
    """The blend of `names` through resolved stages; build it with `mixture.resolve_mixture`."""

    def __init__(self, names: tuple[str, ...], stages: tuple[QuotaStage, ...]):
        """Takes stages in the order of their starts, the last without an end."""
        self.names = names
        self.stages = stages
        self._starts = np.array([stage.start for stage in stages], dtype=np.int64)

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw), both int64[n], of each sample number int64[n]. O(1) each."""
        samples = np.asarray(samples, dtype=np.int64)
        stage_numbers = np.searchsorted(self._starts, samples, side="right") - 1
        source, draw = np.empty_like(samples), np.empty_like(samples)
        for number in np.unique(stage_numbers):
            mask = stage_numbers == number
            stage = self.stages[number]
            source[mask], draw[mask] = stage.locate(samples[mask] - stage.start)
        return source, draw

    def sample_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample number of each draw of one source, -1 where it never comes. O(stages) each."""
        draws = np.asarray(draws, dtype=np.int64)
        result = np.full(draws.shape, NEVER, dtype=np.int64)
        for stage in self.stages:
            place = stage.place_of_draw(source, draws)
            result = np.where(place != NEVER, stage.start + place, result)
        return result

    def draw_limit(self, num_samples: int) -> np.ndarray:
        """Returns int64[S]: a bound, less than one block's quota too large, on the draws of the first samples."""
        stage = self.stages[int(np.searchsorted(self._starts, max(num_samples - 1, 0), side="right")) - 1]
        blocks = -(-(num_samples - stage.start) // stage.block_size)
        return stage.base_draws + blocks * np.maximum(stage.quotas, stage.tail_quotas)

    def describe(self) -> dict[str, Any]:
        """Returns rates, quotas, realised rates and their errors, stage by stage, as JSON values."""
        return {
            "kind": "quotas",
            "sources": list(self.names),
            "stages": [self._describe(stage) for stage in self.stages],
        }

    def _describe(self, stage: QuotaStage) -> dict[str, Any]:
        realised = stage.quotas / stage.block_size
        errors = np.abs(realised - np.array(stage.rates))
        return {
            "start": stage.start,
            "length": stage.length,
            "temperature": stage.temperature,
            "block_size": stage.block_size,
            "rates": dict(zip(self.names, stage.rates, strict=True)),
            "quotas": dict(zip(self.names, stage.quotas.tolist(), strict=True)),
            "tail_quotas": dict(zip(self.names, stage.tail_quotas.tolist(), strict=True)),
            "realised_rates": dict(zip(self.names, realised.tolist(), strict=True)),
            "largest_rate_error": float(errors.max()),
            "rate_error_bound": 1.0 / stage.block_size,
        }

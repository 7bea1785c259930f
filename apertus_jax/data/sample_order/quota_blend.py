"""Exact mixture quotas: sample number ↔ (source, draw), at any scale.

A stage is cut into blocks of Q samples, and every block holds exactly quota_i samples of source i, in an order that the
block's key decides. Block b therefore starts with draw b·quota_i of source i, whatever b is: only the Q slots of the
one block in question are ever laid out (and the last few blocks remembered), so a sample is found in time that depends
on Q and not on the length of the run. Within a block a source's draws are numbered in the order they come, so a source
begins its next epoch only when it has ended the one before.

The last, shorter block of a stage that ends has quotas of its own: a stage may end anywhere, and the next continues
every source where this one left it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import numpy as np

from apertus_jax.data.sample_order.permutation import counted_keys, permute

NEVER = -1
REMEMBERED_BLOCKS = 8


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


class Block(NamedTuple):
    """The slots of one block, laid out; int32[Q] each."""

    source: np.ndarray  # of each slot
    rank: np.ndarray  # of each slot among those of its source
    slots: np.ndarray  # all slots, by source, and ascending within one source
    offsets: np.ndarray  # int64[S + 1]: where each source begins in `slots`


def lay_out(quotas: np.ndarray, key: np.uint64, number: int) -> Block:
    """Returns block `number` of a stage: quotas int64[S] dealt over permuted slots."""
    size = int(quotas.sum())
    dealt = permute(np.arange(size), size, counted_keys(key, np.array(number)))
    source = np.searchsorted(np.cumsum(quotas), dealt, side="right").astype(np.int32)
    slots = np.argsort(source, kind="stable").astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(quotas)])
    rank = np.empty(size, dtype=np.int32)
    rank[slots] = np.arange(size) - np.repeat(offsets[:-1], quotas)
    return Block(source, rank, slots, offsets)


@dataclasses.dataclass(frozen=True, eq=False)
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

    @functools.cached_property
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

    @functools.cached_property
    def block(self) -> Any:
        """A function from the number of a block to its layout, which remembers the last few."""

        def layout(number: int) -> Block:
            return lay_out(self.tail_quotas if number == self.full_blocks else self.quotas, self.key, number)

        return functools.lru_cache(maxsize=REMEMBERED_BLOCKS)(layout)

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw) of samples int64[n] counted from the start of the stage."""
        blocks, slots = np.divmod(places, self.block_size)
        source, rank = np.empty_like(places), np.empty_like(places)
        for number in np.unique(blocks).tolist():
            mask = blocks == number
            block = self.block(number)
            source[mask], rank[mask] = block.source[slots[mask]], block.rank[slots[mask]]
        return source, self.base_draws[source] + blocks * self.quotas[source] + rank

    def place_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: samples counted from the start of the stage, of draws that this stage makes, else -1."""
        local = draws - int(self.base_draws[source])
        quota, full_blocks = int(self.quotas[source]), self.full_blocks
        blocks = local // quota if quota else np.zeros_like(local)
        if full_blocks is not None:
            dealt = full_blocks * quota + int(self.tail_quotas[source])
            blocks = np.minimum(blocks, full_blocks) if quota else np.full_like(local, full_blocks)
        else:
            dealt = np.iinfo(np.int64).max if quota else 0
        made = (local >= 0) & (local < dealt)
        result = np.full(draws.shape, NEVER, dtype=np.int64)
        for number in np.unique(blocks[made]).tolist():
            mask = made & (blocks == number)
            block = self.block(number)
            result[mask] = block.slots[block.offsets[source] + local[mask] - number * quota]
            result[mask] += number * self.block_size
        return result

    def draws_before(self, place: int) -> np.ndarray:
        """Returns int64[S]: how many draws of each source come before a sample counted from the start of the stage."""
        number, slot = divmod(place, self.block_size)
        drawn = self.base_draws + number * self.quotas
        if slot:
            drawn = drawn + np.bincount(self.block(number).source[:slot], minlength=len(self.quotas))
        return drawn


class QuotaBlend:
    """The blend of `names` through resolved stages; build it with `mixture.resolve_mixture`."""

    def __init__(self, names: tuple[str, ...], stages: tuple[QuotaStage, ...]):
        """Stages are in the order of their starts, the last without an end."""
        self.names = names
        self.stages = stages
        self._starts = np.array([stage.start for stage in stages], dtype=np.int64)

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw), both int64[n], of each sample number int64[n]. O(Q) each at worst."""
        samples = np.asarray(samples, dtype=np.int64)
        stage_numbers = np.searchsorted(self._starts, samples, side="right") - 1
        source, draw = np.empty_like(samples), np.empty_like(samples)
        for number in np.unique(stage_numbers):
            mask = stage_numbers == number
            stage = self.stages[number]
            source[mask], draw[mask] = stage.locate(samples[mask] - stage.start)
        return source, draw

    def sample_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample number of each draw of one source, -1 where it never comes. O(Q) at worst."""
        draws = np.asarray(draws, dtype=np.int64)
        result = np.full(draws.shape, NEVER, dtype=np.int64)
        for stage in self.stages:
            place = stage.place_of_draw(source, draws)
            result = np.where(place != NEVER, stage.start + place, result)
        return result

    def draw_limit(self, num_samples: int) -> np.ndarray:
        """Returns int64[S]: exactly how many draws of each source the first `num_samples` samples make."""
        stage = self.stages[int(np.searchsorted(self._starts, max(num_samples - 1, 0), side="right")) - 1]
        return stage.draws_before(num_samples - stage.start)

    def describe(self) -> dict[str, Any]:
        """Returns rates, quotas, realised rates and their errors, stage by stage, as JSON values."""
        stages = [self._describe(stage) for stage in self.stages]
        return {"kind": "quotas", "sources": list(self.names), "stages": stages}

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

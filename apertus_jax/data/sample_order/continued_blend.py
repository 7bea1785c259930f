"""Continued blend: takes over in the middle of a run, so that no sample of a source is repeated or lost.

Sample numbers count over the whole run, and a blend by itself would begin in the middle of its own sequence: with other
rates than before, its draws at that place are not those that the sources have come to. Here each source goes on with
the draw it had come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from apertus_jax.data.sample_order.quota_blend import NEVER, Blend

CONTINUES = "continues"


class ContinuedBlend:
    """`blend` from sample number `first_sample` on, with source i beginning at draw `draws[i]`."""

    def __init__(self, blend: Blend, first_sample: int, draws: Mapping[str, int]):
        """Continues `blend` after draws made before, by source; sources that it lacks may be among them."""
        self.names = blend.names
        self.blend = blend
        self.first_sample = first_sample
        self.draws = dict(draws)
        self._before = np.array([draws.get(name, 0) for name in blend.names], dtype=np.int64)
        self._shift = self._before - blend.draw_limit(first_sample)

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source, draw), both int64[n], of each sample number int64[n]; none may lie before the first."""
        samples = np.asarray(samples, dtype=np.int64)
        if samples.size and int(samples.min()) < self.first_sample:
            raise ValueError(f"sample {int(samples.min())} lies before the first of this blend, {self.first_sample}")
        sources, draws = self.blend.locate(samples)
        return sources, draws + self._shift[sources]

    def sample_of_draw(self, source: int, draws: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample number of each draw of one source, -1 where this blend does not make it."""
        draws = np.asarray(draws, dtype=np.int64)
        own = draws >= self._before[source]
        raw = np.where(own, draws - self._shift[source], 0)
        return np.where(own, self.blend.sample_of_draw(source, raw), NEVER)

    def draw_limit(self, num_samples: int) -> np.ndarray:
        """Returns int64[S]: how many draws of each source the first `num_samples` samples of the run make."""
        return self.blend.draw_limit(max(num_samples, self.first_sample)) + self._shift

    def describe(self) -> dict[str, Any]:
        """Returns what mixture.json says of the blend, and where it took over."""
        return self.blend.describe() | {CONTINUES: {"sample": self.first_sample, "draws": self.draws}}

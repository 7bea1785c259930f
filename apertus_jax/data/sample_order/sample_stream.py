"""Global sample order of a run: sample number ↔ source, epoch, sample and spans.

`SampleStream` puts together what the other modules know apart: the batch schedule (step ↔ samples), the blend
(sample ↔ source and draw), each source's order (draw ↔ epoch and sample) and its index (sample ↔ documents). It is a
pure function of the stores, the mixture and the seed; loading and provenance both read it and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from apertus_jax.data.sample_order.batch_history import BatchHistory
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.best_fit_index import BestFitIndex
from apertus_jax.data.sample_order.document_index import DocumentIndex
from apertus_jax.data.sample_order.greedy_blend import GreedyBlend, StagedBlend
from apertus_jax.data.sample_order.megatron_index import MegatronSampleIndex
from apertus_jax.data.sample_order.mixture import Mixture, resolve_mixture
from apertus_jax.data.sample_order.quota_blend import Blend
from apertus_jax.data.sample_order.sample_index import SampleIndex, TokenSource, WindowIndex
from apertus_jax.data.sample_order.shuffle import PermutedOrder, SampleOrder, StoredOrder
from apertus_jax.data.store.token_store import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.validation import (
    fields_by_annotation,
    require_count,
    require_list,
    require_mapping,
    require_number,
    require_seed,
)

SAMPLE_INDICES: dict[str, Callable[[TokenSource, int, str], SampleIndex]] = {
    "windows": WindowIndex,
    "best_fit": BestFitIndex,
    "one_document": DocumentIndex,
}
MEGATRON_MARGIN = 1.005  # Megatron asks each weighted source for half a percent more than its share


@dataclasses.dataclass(frozen=True)
class StreamSource:
    """One source as the blend draws from it. `name` is its name in the blend, `source` its name in the store."""

    name: str
    source: str
    tokens: TokenSource
    index: SampleIndex
    order: SampleOrder


class LocatedSamples(NamedTuple):
    """Origin of samples: entry of the stream's `sources`, epoch, and sample within the source; int64[n] each."""

    entry: np.ndarray
    epoch: np.ndarray
    sample: np.ndarray


class SampleStream:
    """(seed, step) → samples → documents, and back. Holds no state."""

    def __init__(
        self, sources: Sequence[StreamSource], blend: Blend, schedule: BatchSchedule | BatchHistory, seed: int
    ):
        """Sources are in the order of `blend.names`; all indices have one sequence length."""
        lengths = {entry.index.sequence_length for entry in sources}
        if len(lengths) != 1:
            raise UserError(f"the sources have sequence lengths {sorted(lengths)}; one stream needs one length")
        self.sources = tuple(sources)
        self.blend = blend
        self.schedule = schedule
        self.seed = seed
        self.sequence_length = lengths.pop()

    @property
    def latest_schedule(self) -> BatchSchedule:
        """The batch schedule that holds now, whatever held before."""
        return self.schedule.latest if isinstance(self.schedule, BatchHistory) else self.schedule

    def samples_of_step(self, step: int) -> np.ndarray:
        """Returns int64[B]: the sample numbers of the global batch of `step`, in the order of its rows."""
        first = self.schedule.first_sample(step)
        return np.arange(first, first + self.schedule.size_at(step), dtype=np.int64)

    def going_on(self, schedule: BatchSchedule | BatchHistory, blend: Blend | None = None) -> SampleStream:
        """Returns the same order under the batches that a run really took, and under another blend if one is given."""
        return SampleStream(self.sources, self.blend if blend is None else blend, schedule, self.seed)

    def locate(self, samples: np.ndarray) -> LocatedSamples:
        """Returns source, epoch and sample of each sample number int64[n]. O(1) each."""
        entries, draws = self.blend.locate(samples)
        epochs, within = np.empty_like(draws), np.empty_like(draws)
        for entry in np.unique(entries):
            mask = entries == entry
            epochs[mask], within[mask] = self.sources[entry].order.sample_of_draw(draws[mask])
        return LocatedSamples(entries, epochs, within)

    def sample_numbers(self, entry: int, epochs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Returns int64[n]: the sample numbers that draw each (epoch, sample) of one source, -1 where none does."""
        draws = self.sources[entry].order.draw_of_sample(epochs, samples)
        return self.blend.sample_of_draw(entry, draws)

    def num_epochs(self, entry: int, num_samples: int) -> int:
        """Returns a bound on the epochs of one source that the first `num_samples` samples touch."""
        return self.sources[entry].order.num_epochs(int(self.blend.draw_limit(num_samples)[entry]))

    def describe(self, store_digests: Mapping[str, str]) -> dict[str, Any]:
        """Returns the content of mixture.json: sources, blend, schedule, seed and the digests of the token stores.

        Args:
          store_digests: digest of the token store that holds each source, by the source's name in the store.
        """
        sources = [
            {
                "name": entry.name,
                "source": entry.source,
                "documents": entry.tokens.num_documents,
                "tokens": entry.tokens.num_tokens,
                "samples_per_epoch": entry.index.num_samples,
                "sample_index": type(entry.index).__name__,
                "store_digest": store_digests[entry.source],
            }
            for entry in self.sources
        ]
        return {
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "batch_schedule": self.latest_schedule.describe(),
            "sources": sources,
            "blend": self.blend.describe(),
        }


def build_stream(
    sources: Mapping[str, TokenSource],
    mixture: Mixture,
    schedule: BatchSchedule,
    sequence_length: int,
    seed: int,
) -> SampleStream:
    """Builds our stream: permuted samples of each source under exact quotas.

    Args:
      sources: name → tokens; sources that no stage of the mixture gives a rate are left out.
      mixture: rates or temperature, by stages, and how documents become samples.
      schedule: batch sizes.
      sequence_length: T.
      seed: decides the order within sources and across them.

    Raises:
      UserError: see `resolve_mixture`; or a source shorter than one sample.
    """
    if not sources:
        raise UserError("the token store has no sources; tokenize some documents first")
    blend = resolve_mixture(mixture, {name: source.num_tokens for name, source in sources.items()}, seed)
    entries = []
    for name in blend.names:
        source = sources[name]
        index = SAMPLE_INDICES[mixture.sample_index](source, sequence_length, name)
        entries.append(StreamSource(name, name, source, index, PermutedOrder(index.num_samples, seed, name)))
    return SampleStream(entries, blend, schedule, seed)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class MegatronStage:
    """From sample number `start` on: `sources` in this order (empty: all), under a seed of the stage's own.

    Without weights each source gives one epoch and is drawn in proportion to its samples, as in the released runs.
    """

    start: int = 0
    seed: int = 28
    sources: Sequence[str] = ()
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        require_count("MegatronStage.start", self.start)
        require_seed("MegatronStage.seed", self.seed)
        require_list("MegatronStage.sources", self.sources, of=str, distinct=True)
        require_mapping("MegatronStage.weights", self.weights, optional=True)
        for name, weight in (self.weights or {}).items():
            require_number(f"MegatronStage.weights[{name!r}]", weight, above=0)
        missing = [name for name in self.sources if self.weights is not None and name not in self.weights]
        if missing:
            raise UserError(f"MegatronStage.weights lacks source {missing[0]!r} of MegatronStage.sources; add it")


def build_megatron_stream(
    sources: Mapping[str, TokenSource],
    stages: Sequence[MegatronStage],
    schedule: BatchSchedule,
    sequence_length: int,
    num_samples: int,
) -> SampleStream:
    """Builds the stream as Megatron orders it, for `num_samples` samples in all.

    Each stage counts its sources from their beginning. A stage whose unweighted sources hold fewer samples than it
    lasts cannot be built.

    Source: docs/reference/model_and_training.md §4.2 and §8.

    Raises:
      UserError: an unknown source, stages out of order, or too few samples in a stage.
    """
    ends = [stage.start for stage in stages][1:] + [num_samples]
    if not stages or stages[0].start != 0 or any(end <= stage.start for stage, end in zip(stages, ends, strict=True)):
        starts = [stage.start for stage in stages]
        raise UserError(
            f"stages start at samples {starts} of {num_samples}; the first must be 0 and each later than the last"
        )
    entries: list[StreamSource] = []
    blends: list[GreedyBlend] = []
    for stage, end in zip(stages, ends, strict=True):
        built, blend = _megatron_stage(sources, stage, end - stage.start, sequence_length, len(stages) > 1)
        entries.extend(built)
        blends.append(blend)
    return SampleStream(entries, StagedBlend(blends), schedule, stages[0].seed)


def _megatron_stage(
    sources: Mapping[str, TokenSource], stage: MegatronStage, length: int, sequence_length: int, staged: bool
) -> tuple[list[StreamSource], GreedyBlend]:
    names = list(stage.sources or (stage.weights if stage.weights is not None else sources))
    for name in names:
        if name not in sources:
            raise UserError(
                f"the stage at sample {stage.start} names source {name!r}; the token store has {', '.join(sources)}"
            )
    requested: dict[str, int | None] = dict.fromkeys(names)
    if stage.weights is not None:
        total = sum(stage.weights[name] for name in names)
        requested = {n: math.ceil(math.ceil(length * (stage.weights[n] / total)) * MEGATRON_MARGIN) for n in names}
    entries = []
    for name in names:
        index = MegatronSampleIndex(sources[name], sequence_length, stage.seed, requested[name], name)
        blend_name = f"{name}@{stage.start}" if staged else name
        entries.append(StreamSource(blend_name, name, sources[name], index, StoredOrder(index.order, name)))
    sizes = [entry.index.num_samples for entry in entries]
    if stage.weights is None and sum(sizes) < length:
        raise UserError(
            f"the sources of the stage at sample {stage.start} hold {sum(sizes)} samples in one epoch, the stage takes "
            f"{length}; shorten it, add sources, or give weights so that sources repeat"
        )
    weights = sizes if stage.weights is None else [stage.weights[name] for name in names]
    return entries, GreedyBlend([entry.name for entry in entries], weights, length)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class MegatronMixture:
    """Data in the order of the released runs: Megatron's shuffles and greedy blend, by stages.

    Source: docs/reference/model_and_training.md §4.2.
    """

    stages: Sequence[MegatronStage] = (MegatronStage(),)

    def __post_init__(self) -> None:
        require_list("MegatronMixture.stages", self.stages, of=MegatronStage, at_least=1)


def stream_of_store(
    store: TokenStore,
    mixture: Mixture | MegatronMixture,
    schedule: BatchSchedule,
    sequence_length: int,
    seed: int,
    total_steps: int,
    num_samples: int | None = None,
) -> SampleStream:
    """Returns the stream of samples of a run; only training sources take part, never the held-out one.

    Args:
      store: the token store.
      mixture: `Mixture` for our permuted order with exact quotas, `MegatronMixture` for the released runs' order.
      schedule: batch sizes.
      sequence_length: T.
      seed: of our order; Megatron stages carry their own.
      total_steps: length of the run, which decides how many epochs Megatron's order prepares.
      num_samples: samples that Megatron's order is made for, where they are others than those of `total_steps`.

    Raises:
      UserError: see `build_stream` and `build_megatron_stream`.
    """
    sources = {name: store.source(name) for name in store.training_sources}
    if isinstance(mixture, MegatronMixture):
        num_samples = schedule.first_sample(total_steps) if num_samples is None else num_samples
        return build_megatron_stream(sources, mixture.stages, schedule, sequence_length, num_samples)
    return build_stream(sources, mixture, schedule, sequence_length, seed)

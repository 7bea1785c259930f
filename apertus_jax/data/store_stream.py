"""The order of a run over one token store: which stream a mixture means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from apertus_jax.data.batch_schedule import BatchSchedule
from apertus_jax.data.mixture import Mixture
from apertus_jax.data.sample_stream import MegatronStage, SampleStream, build_megatron_stream, build_stream
from apertus_jax.data.token_store import TokenStore


@dataclasses.dataclass(frozen=True)
class MegatronMixture:
    """Data in the order of the released runs: Megatron's shuffles and greedy blend, by stages (model spec §4.2)."""

    stages: Sequence[MegatronStage] = (MegatronStage(),)


def stream_of_store(
    store: TokenStore,
    mixture: Mixture | MegatronMixture,
    schedule: BatchSchedule,
    sequence_length: int,
    seed: int,
    total_steps: int,
    sample_index: str = "windows",
) -> SampleStream:
    """Returns the stream of samples of a run; only training sources take part, never the held-out one.

    Args:
      store: the token store.
      mixture: `Mixture` for our permuted order with exact quotas, `MegatronMixture` for the released runs' order.
      schedule: batch sizes.
      sequence_length: T.
      seed: of our order; Megatron stages carry their own.
      total_steps: length of the run, which decides how many epochs Megatron's order prepares.
      sample_index: "windows" or "best_fit", for our order.

    Raises:
      UserError: see `build_stream` and `build_megatron_stream`.
    """
    sources = {name: store.source(name) for name in store.training_sources}
    if isinstance(mixture, MegatronMixture):
        num_samples = schedule.first_sample(total_steps)
        return build_megatron_stream(sources, mixture.stages, schedule, sequence_length, num_samples)
    return build_stream(sources, mixture, schedule, sequence_length, seed, sample_index)

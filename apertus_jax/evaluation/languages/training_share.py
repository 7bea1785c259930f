"""Training share of each language, in tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax.data import TokenStore
from apertus_jax.data.provenance.recorded_stream import FROM_SAMPLE, phases_of, recorded_history
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json
from apertus_jax.storage.run_folder import FINISHED_FILE, MIXTURE_FILE, RunFolder


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Data record of a run: the resolved mixture, and how many samples were consumed."""

    mixture: Mapping[str, Any]
    samples: int

    @property
    def store_digests(self) -> set[str]:
        """Digests of the token stores that the run read."""
        return {source["store_digest"] for phase in phases_of(self.mixture) for source in phase["sources"]}

    def source_weights(self) -> dict[str, float]:
        """Returns the tokens drawn from each source of the store, by the rates of what the run went through: its
        orders, one after another, and the stages of each."""
        phases = phases_of(self.mixture)
        weights: dict[str, float] = {}
        for phase, following in zip(phases, [*phases[1:], None], strict=True):
            stop = self.samples if following is None else min(following[FROM_SAMPLE], self.samples)
            for source, samples in _samples_by_source(phase, phase[FROM_SAMPLE], stop).items():
                weights[source] = weights.get(source, 0.0) + samples * phase.get("sequence_length", 1)
        return weights


def _samples_by_source(phase: Mapping[str, Any], first: int, stop: int) -> dict[str, float]:
    """Returns how many of the samples first .. stop-1 each source of the store gave, by the rates of one order."""
    blend = phase["blend"]
    source_of = {entry["name"]: entry["source"] for entry in phase["sources"]}
    samples: dict[str, float] = {}
    for stage in blend.get("stages", [blend]):
        start = stage.get("start", 0)
        end = stop if stage["length"] is None else min(start + stage["length"], stop)
        length = max(end - max(start, first), 0)
        for name, rate in (stage.get("realised_rates") or stage["rates"]).items():
            samples[source_of[name]] = samples.get(source_of[name], 0.0) + rate * length
    return samples


def read_run_record(run: epath.PathLike, step: int | None = None) -> RunRecord | None:
    """Returns the record of a run folder, up to a step or to its end; None for a model folder by itself.

    Raises:
      UserError: its files cannot be read.
    """
    root = RunFolder(run)
    if not root.mixture.exists():
        return None
    try:
        mixture = read_json(root.mixture)
        if step is None:
            samples = read_json(root.finished, allow_nan=True)["samples"]
        else:
            samples = recorded_history(run).first_sample(step)
        record = RunRecord(mixture, int(samples))
        record.source_weights()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run} has a damaged {MIXTURE_FILE} or {FINISHED_FILE} ({error!r}); train again") from error
    return record


def training_shares(store: TokenStore, record: RunRecord | None) -> dict[str, float]:
    """Returns language → share of the training tokens, summing to 1.

    Within a source, languages have the shares of their tokens in the store, which every whole epoch realises. Sources
    are weighted by what the run drew from them, or without a record by their size.
    """
    summaries = store.summary["sources"]
    sizes = {name: float(summaries[name]["tokens"]) for name in store.training_sources}
    weights = record.source_weights() if record else sizes
    shares: dict[str, float] = {}
    for name, weight in weights.items():
        counts = {language: entry["tokens"] for language, entry in summaries[name]["languages"].items()}
        total = max(sum(counts.values()), 1)
        for language, tokens in counts.items():
            shares[language] = shares.get(language, 0.0) + weight * tokens / total
    total = sum(shares.values()) or 1.0
    return {language: share / total for language, share in shares.items()}

"""Which share of the training tokens each language has."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError

MIXTURE_FILE, FINISHED_FILE = "mixture.json", "finished.json"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run folder tells about its data: the resolved mixture, and how many samples were consumed."""

    mixture: Mapping[str, Any]
    samples: int

    @property
    def store_digests(self) -> set[str]:
        """Digests of the token stores that the run read."""
        return {source["store_digest"] for source in self.mixture["sources"]}

    def source_weights(self) -> dict[str, float]:
        """Returns samples drawn from each source of the store, by the rates of the stages that the run went through."""
        blend = self.mixture["blend"]
        source_of = {entry["name"]: entry["source"] for entry in self.mixture["sources"]}
        weights: dict[str, float] = {}
        for stage in blend.get("stages", [blend]):
            start = stage.get("start", 0)
            left = max(self.samples - start, 0)
            length = left if stage["length"] is None else min(stage["length"], left)
            for name, rate in (stage.get("realised_rates") or stage["rates"]).items():
                weights[source_of[name]] = weights.get(source_of[name], 0.0) + rate * length
        return weights


def read_run_record(run: epath.PathLike) -> RunRecord | None:
    """Returns the record of a run folder; None for a model folder by itself.

    Raises:
      UserError: its files cannot be read.
    """
    root = epath.Path(run)
    if not (root / MIXTURE_FILE).exists():
        return None
    try:
        mixture = json.loads((root / MIXTURE_FILE).read_text())
        samples = json.loads((root / FINISHED_FILE).read_text())["samples"]
        record = RunRecord(mixture, int(samples))
        record.source_weights()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{root} has a damaged {MIXTURE_FILE} or {FINISHED_FILE} ({error!r}); train again") from error
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

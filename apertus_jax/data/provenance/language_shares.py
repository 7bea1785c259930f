"""Trained tokens by language."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE
from apertus_jax.corpus.language_codes import language_label, names_language
from apertus_jax.data.provenance.uses import Phase
from apertus_jax.data.sample_order.sample_stream import SampleStream

LOCATED_AT_ONCE = 4096
ENGLISH, OTHER, UNKNOWN = "english", "other", "unknown"


@dataclasses.dataclass(frozen=True)
class LanguageExposure:
    """Trained tokens of each language label, largest first.

    `samples_counted` of `num_samples` samples were looked at; when fewer, `tokens` are scaled up from evenly spaced
    ones and rare languages can be missing.
    """

    tokens: dict[str, int]
    samples_counted: int
    num_samples: int

    @property
    def exact(self) -> bool:
        """Whether every sample was counted."""
        return self.samples_counted == self.num_samples

    @property
    def num_languages(self) -> int:
        """How many labels name a language."""
        return sum(names_language(label) for label in self.tokens)

    def shares(self) -> dict[str, float]:
        """Returns the shares of tokens in English, in other known languages, and of unknown language."""
        counts = {ENGLISH: 0, OTHER: 0, UNKNOWN: 0}
        for label, count in self.tokens.items():
            named = language_label(label) if names_language(label) else ""
            counts[UNKNOWN if not named else ENGLISH if named.startswith("eng_") else OTHER] += count
        return {name: count / max(sum(self.tokens.values()), 1) for name, count in counts.items()}

    def share(self, language_prefix: str) -> float:
        """Returns the share of tokens in languages whose label starts with `language_prefix`, for example "eng"."""
        chosen = sum(count for name, count in self.tokens.items() if name.startswith(language_prefix))
        return chosen / max(sum(self.tokens.values()), 1)


def exposure_of_run(phases: Sequence[Phase], num_steps: int, max_samples: int = 1 << 18) -> LanguageExposure:
    """Counts the trained tokens of each language in the first `num_steps` steps of a run, whatever its orders were."""
    counted = []
    for phase in phases:
        stop = num_steps if phase.stop_step is None else min(phase.stop_step, num_steps)
        if stop > phase.first_step:
            first, end = phase.stream.schedule.first_sample(phase.first_step), phase.stream.schedule.first_sample(stop)
            counted.append(language_exposure(phase.stream, end - first, max_samples, first))
    totals: dict[str, int] = {}
    for each in counted:
        for name, tokens in each.tokens.items():
            totals[name] = totals.get(name, 0) + tokens
    ordered = dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))
    return LanguageExposure(
        ordered, sum(each.samples_counted for each in counted), sum(each.num_samples for each in counted)
    )


def language_exposure(
    stream: SampleStream, num_samples: int, max_samples: int = 1 << 18, first_sample: int = 0
) -> LanguageExposure:
    """Counts the trained tokens of each language in `num_samples` samples of a stream.

    Every label of a sample counts for the language of its document. O(max_samples) at most.

    Args:
      stream: the order of the run.
      num_samples: how many samples the run has consumed.
      max_samples: beyond this many, only evenly spaced samples are counted.
      first_sample: the first of them.
    """
    counted = min(num_samples, max_samples)
    numbers = first_sample + np.arange(counted, dtype=np.int64) * num_samples // max(counted, 1)
    languages = [source.tokens.documents.column("language").to_pylist() for source in stream.sources]
    totals: dict[str, int] = {}
    for start in range(0, counted, LOCATED_AT_ONCE):
        located = stream.locate(numbers[start : start + LOCATED_AT_ONCE])
        for entry, _, sample in zip(*(part.tolist() for part in located), strict=True):
            spans = stream.sources[entry].index.spans(sample)
            lengths = spans.length.copy()
            lengths[0] -= 1  # the first token of a window is only an input
            for document, length in zip(spans.document.tolist(), lengths.tolist(), strict=True):
                language = languages[entry][document] or UNKNOWN_LANGUAGE
                totals[language] = totals.get(language, 0) + length
    scale = num_samples / max(counted, 1)
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return LanguageExposure({name: round(count * scale) for name, count in ordered if count}, counted, num_samples)

"""What a run has been shown: trained tokens by language."""

from __future__ import annotations

import dataclasses

import numpy as np

from apertus_jax.data.sample_stream import SampleStream

LOCATED_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class LanguageExposure:
    """Trained tokens of each language, largest first.

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

    def share(self, language_prefix: str) -> float:
        """Returns the share of tokens in languages whose label starts with `language_prefix`, for example "eng"."""
        chosen = sum(count for name, count in self.tokens.items() if name.startswith(language_prefix))
        return chosen / max(sum(self.tokens.values()), 1)


def language_exposure(stream: SampleStream, num_samples: int, most_samples: int = 1 << 18) -> LanguageExposure:
    """Counts the trained tokens of each language in the first `num_samples` samples of a run.

    Every label of a sample counts for the language of its document. O(most_samples) at most.

    Args:
      stream: the order of the run.
      num_samples: how many samples the run has consumed.
      most_samples: beyond this many, only evenly spaced samples are counted.
    """
    counted = min(num_samples, most_samples)
    numbers = np.arange(counted, dtype=np.int64) * num_samples // max(counted, 1)
    languages = [source.tokens.documents.column("language").to_pylist() for source in stream.sources]
    totals: dict[str, int] = {}
    for start in range(0, counted, LOCATED_AT_ONCE):
        located = stream.locate(numbers[start : start + LOCATED_AT_ONCE])
        for entry, _, sample in zip(*(part.tolist() for part in located), strict=True):
            spans = stream.sources[entry].index.spans(sample)
            lengths = spans.length.copy()
            lengths[0] -= 1  # the first token of a window is only an input
            for document, length in zip(spans.document.tolist(), lengths.tolist(), strict=True):
                language = languages[entry][document]
                totals[language] = totals.get(language, 0) + length
    scale = num_samples / max(counted, 1)
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return LanguageExposure({name: round(count * scale) for name, count in ordered if count}, counted, num_samples)

"""Per-language metrics and those of groups of languages, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.evaluation.bits_per_byte import BITS_PER_NAT, bits_per_byte
from apertus_jax.evaluation.intervals import Estimate, ratio_interval, resampled
from apertus_jax.evaluation.languages.counting import (
    BYTES,
    CHARACTERS,
    NATS,
    TOKENS,
    WORDS,
    Passage,
    resampling_units,
)
from apertus_jax.evaluation.languages.inequality import gini, resource_class
from apertus_jax.evaluation.languages.store_texts import HELD_OUT_TEXT, TRAINING_TEXT, UNKNOWN_TEXT

BITS_PER_BYTE = "bits_per_byte"
# Figure → (numerator, denominator, factor): corpus ratios, not means of ratios
# (docs/reference/evaluation_and_release.md §2.2, §4).
RATIOS = {
    BITS_PER_BYTE: (NATS, BYTES, BITS_PER_NAT),
    "fertility": (TOKENS, WORDS, 1.0),
    "tokens_per_character": (TOKENS, CHARACTERS, 1.0),
    "bytes_per_token": (BYTES, TOKENS, 1.0),
}
# What is compared between languages: larger is worse for each of them.
COSTS = (BITS_PER_BYTE, "fertility", "tokens_per_character")


@dataclasses.dataclass(frozen=True)
class LanguageFigures:
    """One language.

    Attributes:
      language, script, resource_class: its names; the class is by `share`.
      share: of the training tokens; None when the training text is not known.
      passages, tokens, utf8_bytes: size of the measured text.
      interval_unit: what the intervals resample.
      text: origin of the text that `bits_per_byte` is of: held out where there is such, else training or unknown.
      ratios: figure of `RATIOS` → estimate; None where undefined (no model, no word).
      bits_per_byte_by_text: origin → bits per byte.
    """

    language: str
    script: str
    resource_class: str
    share: float | None
    passages: int
    tokens: int
    utf8_bytes: int
    interval_unit: str
    text: str
    ratios: Mapping[str, Estimate | None]
    bits_per_byte_by_text: Mapping[str, float]

    def value(self, name: str) -> float | None:
        """Returns the estimate of a figure without its interval."""
        estimate = self.ratios[name]
        return None if estimate is None else estimate.value


def ratio_estimate(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> Estimate | None:
    """Returns Σ numerators / Σ denominators of float64[U] units with its bootstrap interval.

    None when the ratio is undefined. When a unit has nothing below the line, as blocks of a text that does not
    separate words, draws could divide by zero: the interval is NaN then.
    """
    below = denominators.sum()
    if not below > 0 or np.isnan(numerators).any():
        return None
    lower, upper = ratio_interval(numerators, denominators, seed) if denominators.min() > 0 else (math.nan, math.nan)
    return Estimate(float(numerators.sum() / below), lower, upper)


def language_figures(
    passages: Sequence[Passage], counted: Sequence[np.ndarray], shares: Mapping[str, float] | None, seed: int
) -> list[LanguageFigures]:
    """Returns the figures of every language, sorted by label.

    Args:
      passages: the texts.
      counted: float64[n, 5] of each passage, see `counting.with_losses`.
      shares: language → share of the training tokens; None when unknown.
      seed: of the intervals.
    """
    numbers: dict[str, list[int]] = {}
    for number, passage in enumerate(passages):
        numbers.setdefault(passage.language, []).append(number)
    return [
        _of_language([passages[n] for n in chosen], [counted[n] for n in chosen], shares, seed)
        for _, chosen in sorted(numbers.items())
    ]


def _of_language(
    passages: Sequence[Passage], counted: Sequence[np.ndarray], shares: Mapping[str, float] | None, seed: int
) -> LanguageFigures:
    language = passages[0].language
    by_text: dict[str, list[np.ndarray]] = {}
    for passage, rows in zip(passages, counted, strict=True):
        by_text.setdefault(passage.origin, []).append(rows)
    text = next(origin for origin in (HELD_OUT_TEXT, TRAINING_TEXT, UNKNOWN_TEXT) if origin in by_text)
    everything, _ = resampling_units(counted)
    judged, unit = resampling_units(by_text[text])
    ratios = {}
    for name, (above, below, factor) in RATIOS.items():
        units = judged if name == BITS_PER_BYTE else everything
        ratios[name] = ratio_estimate(units[:, above] * factor, units[:, below], seed)
    share = None if shares is None else shares.get(language, 0.0)
    totals = {origin: sum(rows.sum(axis=0) for rows in parts) for origin, parts in by_text.items()}
    return LanguageFigures(
        language=language,
        script=language.partition("_")[2],
        resource_class=resource_class(share),
        share=share,
        passages=len(passages),
        tokens=int(everything[:, TOKENS].sum()),
        utf8_bytes=int(everything[:, BYTES].sum()),
        interval_unit=unit,
        text=text,
        ratios=ratios,
        bits_per_byte_by_text={
            origin: bits_per_byte(sums[NATS], sums[BYTES])
            for origin, sums in totals.items()
            if not np.isnan(sums[NATS])
        },
    )


def mean_over_languages(values: Sequence[float], seed: int) -> Estimate:
    """Returns the plain mean of one value per language; its interval resamples languages."""
    numbers = np.asarray(values, np.float64)
    lower, upper = ratio_interval(numbers, np.ones(len(numbers)), seed)
    return Estimate(float(numbers.mean()), lower, upper)


def group_figures(rows: Sequence[LanguageFigures], attribute: str, seed: int) -> list[dict[str, Any]]:
    """Returns one entry per script or resource class, the one with most languages first.

    Each has its number of languages and share of the training tokens, and of every cost the mean over languages with
    its interval (`mean`, `lower`, `upper`) and the Gini coefficient within the group.

    Args:
      rows: the languages.
      attribute: `script` or `resource_class`.
      seed: of the intervals.
    """
    groups: dict[str, list[LanguageFigures]] = {}
    for row in rows:
        groups.setdefault(getattr(row, attribute), []).append(row)
    entries = []
    for name, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        shares = [row.share for row in members if row.share is not None]
        entry: dict[str, Any] = {"name": name, "languages": len(members)}
        entry["share"] = float(sum(shares)) if len(shares) == len(members) else None
        for cost in COSTS:
            values = known(members, cost)
            if values:
                estimate = mean_over_languages(values, seed)
                entry[cost] = dataclasses.asdict(estimate) | {"gini": gini(values)}
            else:
                entry[cost] = None
        entries.append(entry)
    return entries


def known(rows: Sequence[LanguageFigures], name: str) -> list[float]:
    """Returns the values of a figure for the languages that have it."""
    return [estimate.value for row in rows if (estimate := row.ratios[name]) is not None]


def inequality(
    rows: Sequence[LanguageFigures], groups: Mapping[str, Sequence[Mapping[str, Any]]], seed: int
) -> dict[str, Any]:
    """Returns cost → Gini coefficient between languages, with an interval over languages, and between group means.

    Args:
      rows: the languages.
      groups: "script" and "resource_class" → entries of `group_figures`.
      seed: of the intervals.
    """
    found: dict[str, Any] = {}
    for cost in COSTS:
        values = known(rows, cost)
        if not values:
            continue
        between = {name: gini([entry[cost]["value"] for entry in each if entry[cost]]) for name, each in groups.items()}
        found[cost] = {"language": dataclasses.asdict(resampled(gini, [np.array(values)], seed)), **between}
    return found

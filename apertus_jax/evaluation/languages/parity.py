"""Token and information parity: what the same sentences cost in each language.

Source: docs/reference/evaluation_and_release.md §4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import Estimate, resampled
from apertus_jax.evaluation.languages.counting import BYTES, CHARACTERS, NATS, TOKENS, WORDS, Passage
from apertus_jax.evaluation.languages.figures import RATIOS, ratio_estimate
from apertus_jax.evaluation.languages.inequality import gini, lorenz_curve
from apertus_jax.evaluation.languages.options import BYTE, CHARACTER, LINE, WORD

UNIT_COLUMNS = {WORD: WORDS, CHARACTER: CHARACTERS, BYTE: BYTES}


@dataclasses.dataclass(frozen=True)
class Parity:
    """One language of parallel texts.

    Attributes:
      language: its label.
      tokens: of all lines.
      cost: tokens per unit.
      premium: tokens over those of the baseline for the same lines; above 1 is dearer. None where that has no token.
      information_parity: nats of the baseline over those of this language; below 1 is worse. None without model.
      bits_per_byte: of these lines; None without model.
    """

    language: str
    tokens: int
    cost: float
    premium: Estimate | None
    information_parity: Estimate | None
    bits_per_byte: Estimate | None


def line_sums(passages: Sequence[Passage], counted: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns language → float64[lines, 5], the lines of every language in the same order."""
    sums: dict[str, dict[str, np.ndarray]] = {}
    for passage, rows in zip(passages, counted, strict=True):
        sums.setdefault(passage.language, {})[passage.line] = rows.sum(axis=0)
    return {language: np.stack([lines[key] for key in sorted(lines)]) for language, lines in sorted(sums.items())}


def check_baseline(languages: Collection[str], baseline: str) -> None:
    """Raises UserError when the baseline is not among the languages."""
    if baseline not in languages:
        raise UserError(
            f"the parallel texts have no {baseline} to set parity against; bind LanguageOptions.baseline to one of "
            f"{', '.join(sorted(languages)[:8])}"
        )


def compare(sums: Mapping[str, np.ndarray], baseline: str, units: str, seed: int) -> list[Parity]:
    """Returns the parity of every language; intervals resample lines, the same ones in both languages.

    Raises:
      UserError: the baseline is not among the languages.
    """
    check_baseline(sums, baseline)
    reference = sums[baseline]
    rows = []
    for language, lines in sums.items():
        above, below, factor = RATIOS["bits_per_byte"]
        rows.append(
            Parity(
                language=language,
                tokens=int(lines[:, TOKENS].sum()),
                cost=float(token_costs(lines, units)),
                premium=ratio_estimate(lines[:, TOKENS], reference[:, TOKENS], seed),
                information_parity=ratio_estimate(reference[:, NATS], lines[:, NATS], seed),
                bits_per_byte=ratio_estimate(lines[:, above] * factor, lines[:, below], seed),
            )
        )
    return rows


def token_costs(lines: np.ndarray, units: str) -> np.ndarray:
    """Returns Σ tokens / Σ units of float64[lines, …, 5], summed over lines."""
    total = lines.sum(axis=0)
    return total[..., TOKENS] / (len(lines) if units == LINE else total[..., UNIT_COLUMNS[units]])


def fairness(sums: Mapping[str, np.ndarray], units: str, seed: int) -> dict[str, Any]:
    """Returns the tokenizer-fairness Gini of parallel texts with an interval over lines, and what stands behind it.

    Also the Gini coefficient of the means by script, the least and greatest cost, their ratio, and the Lorenz curve.
    """
    stacked = np.stack(list(sums.values()), axis=1)  # [lines, languages, 5]
    costs = dict(zip(sums, token_costs(stacked, units).tolist(), strict=True))
    together = resampled(lambda lines: gini(token_costs(lines, units)), [stacked], seed)
    scripts: dict[str, list[float]] = {}
    for language, cost in costs.items():
        scripts.setdefault(language.partition("_")[2], []).append(cost)
    least, greatest = min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)
    return {
        "unit": units,
        "languages": len(costs),
        "lines": len(stacked),
        "gini": dataclasses.asdict(together),
        "gini_between_scripts": gini([float(np.mean(each)) for each in scripts.values()]),
        "least": {"language": least, "cost": costs[least]},
        "greatest": {"language": greatest, "cost": costs[greatest]},
        "greatest_over_least": costs[greatest] / costs[least],
        "lorenz": [part.tolist() for part in lorenz_curve(list(costs.values()))],
    }

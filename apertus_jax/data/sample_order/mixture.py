"""Data mixture: sources and rates as data, resolved into exact integer quotas.

A `Mixture` says what a person means: rates, or a temperature over token counts, stage by stage. Resolved against the
sources it becomes a `QuotaBlend` (quota_blend.py): every block of Q samples holds exactly the quota of each source.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from apertus_jax.data.sample_order.permutation import derive_key
from apertus_jax.data.sample_order.quota_blend import QuotaBlend, QuotaStage
from apertus_jax.errors import UserError
from apertus_jax.validation import (
    fields_by_annotation,
    require_count,
    require_list,
    require_mapping,
    require_real,
    require_whole_number,
)

SMALLEST_BLOCK = 1 << 10
LARGEST_BLOCK = 1 << 16
LARGEST_BLOCK_ALLOWED = 1 << 20  # a block is laid out in memory
WANTED_RELATIVE_ERROR = 0.05


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class MixtureStage:
    """From sample number `start` on: sources at `rates`, or, where none are given, by their sizes.

    Without rates, each source weighs tokens^(1/temperature): 1 is proportional to size, large values even out.
    `sources` limits such a stage to the named ones; empty means all. Rates need not sum to one.
    """

    start: int = 0
    rates: Mapping[str, float] | None = None
    temperature: float = 1.0
    sources: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Which rates and temperatures make sense is for `stage_rates` to say, which knows the sources.
        require_count("MixtureStage.start", self.start)
        require_mapping("MixtureStage.rates", self.rates, optional=True)
        for name, rate in (self.rates or {}).items():
            require_real("MixtureStage.rates", rate, f"the rate of {name!r}")
        require_real("MixtureStage.temperature", self.temperature)
        require_list("MixtureStage.sources", self.sources, of=str, distinct=True)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Mixture:
    """Our order of samples: sources at exact rates.

    Attributes:
      stages: in the order of their starts, the first at 0.
      block_size: Q, samples in which the rates hold exactly; None chooses it from the rates.
      sample_index: how documents become samples, "windows" over the stored stream, "best_fit" packing of whole ones,
        or "one_document" a sample, padded or cut.
    """

    stages: Sequence[MixtureStage] = (MixtureStage(),)
    block_size: int | None = None
    sample_index: Literal["windows", "best_fit", "one_document"] = "windows"

    def __post_init__(self) -> None:
        require_list("Mixture.stages", self.stages, of=MixtureStage, at_least=1)
        require_whole_number("Mixture.block_size", self.block_size, optional=True)


def resolve_mixture(mixture: Mixture, token_counts: Mapping[str, int], seed: int) -> QuotaBlend:
    """Returns the blend of the sources of `token_counts` (name → tokens), in that order; those without a rate left out.

    Raises:
      UserError: stages out of order, unknown or missing sources, impossible rates, or a rate too small for the block.
    """
    names = tuple(token_counts)
    starts = [stage.start for stage in mixture.stages]
    if (
        not starts
        or starts[0] != 0
        or any(later <= earlier for earlier, later in zip(starts, starts[1:], strict=False))
    ):
        raise UserError(
            f"the stages of the mixture start at samples {starts}; the first must be 0 and each later than the last"
        )
    if mixture.block_size is not None and not 1 <= mixture.block_size <= LARGEST_BLOCK_ALLOWED:
        raise UserError(f"block_size of the mixture is {mixture.block_size}; it must be 1 to {LARGEST_BLOCK_ALLOWED}")
    stages: list[QuotaStage] = []
    base = np.zeros(len(names), dtype=np.int64)
    for number, stage in enumerate(mixture.stages):
        rates = stage_rates(stage, token_counts)
        block_size = mixture.block_size or choose_block_size(rates)
        quotas = largest_remainder(rates, block_size)
        refuse_empty_quotas(names, rates, quotas, block_size, mixture.block_size is None)
        length = None if number == len(starts) - 1 else starts[number + 1] - stage.start
        tail_quotas = largest_remainder(rates, 0 if length is None else length % block_size)
        resolved = QuotaStage(
            start=stage.start,
            length=length,
            rates=tuple(float(rate) for rate in rates),
            temperature=None if stage.rates is not None else float(stage.temperature),
            quotas=quotas,
            tail_quotas=tail_quotas,
            base_draws=base,
            key=derive_key("mixture", seed, number),
        )
        stages.append(resolved)
        base = base if length is None else base + (length // block_size) * quotas + tail_quotas
    used = np.flatnonzero(sum(stage.quotas for stage in stages))
    return QuotaBlend(tuple(names[source] for source in used), tuple(stage.only(used) for stage in stages))


def stage_rates(stage: MixtureStage, token_counts: Mapping[str, int]) -> list[Fraction]:
    """Returns the rate of every source as an exact fraction; they sum to 1. Sources that are not meant get 0.

    Raises:
      UserError: an unknown source, a rate that is negative or not finite, no positive rate, or a bad temperature.
    """
    named = stage.rates if stage.rates is not None else (stage.sources or token_counts)
    unknown = sorted(set(named) - set(token_counts))
    if unknown:
        raise UserError(
            f"the mixture names source {unknown[0]!r}, which the token store lacks; it has {', '.join(token_counts)}"
        )
    if stage.rates is not None:
        weights = {name: float(rate) for name, rate in stage.rates.items()}
    else:
        if not (math.isfinite(stage.temperature) and stage.temperature > 0):
            raise UserError(f"the temperature of the mixture is {stage.temperature}; it must be a number above 0")
        largest = max(1, *(token_counts[name] for name in named))
        weights = {name: (token_counts[name] / largest) ** (1.0 / stage.temperature) for name in named}
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"source {name!r} has rate {weight} in the mixture; it must be a number of 0 or more")
    total = sum(Fraction(weight) for weight in weights.values())
    if total == 0:
        raise UserError(
            f"no source has a positive rate in the stage that starts at sample {stage.start}; give one a rate"
        )
    return [Fraction(weights.get(name, 0.0)) / total for name in token_counts]


def largest_remainder(rates: Sequence[Fraction], slots: int) -> np.ndarray:
    """Returns int64[S]: whole quotas that sum to `slots`, each within one of rate · slots; ties go to the first."""
    exact = [rate * slots for rate in rates]
    quotas = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda source: quotas[source] - exact[source])
    for source in by_remainder[: slots - sum(quotas)]:
        quotas[source] += 1
    return np.array(quotas, dtype=np.int64)


def choose_block_size(rates: Sequence[Fraction]) -> int:
    """Returns the least power of two from 2^10 to 2^16 at which every quota is within 5 % of its rate, else 2^16."""
    block_size = SMALLEST_BLOCK
    while block_size < LARGEST_BLOCK and relative_error(rates, block_size) > WANTED_RELATIVE_ERROR:
        block_size *= 2
    return block_size


def relative_error(rates: Sequence[Fraction], block_size: int) -> float:
    """Returns the largest |realised rate / rate - 1| over the sources with a rate."""
    quotas = largest_remainder(rates, block_size)
    return max(
        float(abs(Fraction(int(quota), block_size) / rate - 1))
        for rate, quota in zip(rates, quotas, strict=True)
        if rate
    )


def refuse_empty_quotas(
    names: Sequence[str], rates: Sequence[Fraction], quotas: np.ndarray, block_size: int, chosen_by_us: bool
) -> None:
    """Raises UserError naming the first source that has a rate but not one sample in a block."""
    for name, rate, quota in zip(names, rates, quotas, strict=True):
        if rate and not quota:
            needed = 1 << (math.ceil(1 / rate) - 1).bit_length()
            larger = f"set block_size to {needed}, " if needed <= LARGEST_BLOCK_ALLOWED else ""
            found = "the largest block we choose" if chosen_by_us else "its block_size"
            raise UserError(
                f"source {name!r} has rate {float(rate):.2e}, less than one sample in {found}, {block_size}; "
                f"{larger}raise the rate, or leave the source out"
            )

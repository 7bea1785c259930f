"""Options of the memorization audit: the grid of prompts, the figures, and membership inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from apertus_jax.errors import UserError
from apertus_jax.inference import Sampling
from apertus_jax.objectives import LossMask
from apertus_jax.validation import (
    fields_by_annotation,
    require_choice,
    require_count,
    require_list,
    require_number,
    require_seed,
)

GREEDY, NUCLEUS = "greedy", "nucleus"
STRATEGIES = (GREEDY, NUCLEUS)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class AuditGrid:
    """Grid of the audit: every prefix length at offset 0 and every offset at one, for each bucket and decoding.

    Attributes:
      prefix: tokens of the prompt in the sweep over offsets, and of the verdict; None means 500, or as many as fit.
      prefixes: prompt lengths asked for at offset 0; None means those of the paper that fit.
      offsets: places in the probe at which the prompt of `prefix` tokens begins; None means the paper's that fit.
      suffix: tokens generated and compared, exactly; None means 500, or as many as fit into the model's context and
        the probes beside the prompt.
      buckets: only these; None means all. One of them must be a control.
      strategies: `greedy`, `nucleus` or both; the first one gives the verdict.
      temperature, top_p: of nucleus decoding, see `Sampling`.
      seeds: of nucleus decoding; a probe's results are averaged over them.
    """

    prefix: int | None = None
    prefixes: Sequence[int] | None = None
    offsets: Sequence[int] | None = None
    suffix: int | None = None
    buckets: Sequence[str | int] | None = None
    strategies: Sequence[str] = STRATEGIES
    temperature: float = 1.0
    top_p: float = 0.9
    seeds: Sequence[int] = (42,)

    def __post_init__(self) -> None:
        for name, value in (("prefix", self.prefix), ("suffix", self.suffix)):
            require_count(f"AuditGrid.{name}", value, at_least=1, optional=True)
        for name, values, lowest in (("prefixes", self.prefixes, 1), ("offsets", self.offsets, 0)):
            require_list(f"AuditGrid.{name}", [] if values is None else values, of=int)
            for value in values or ():
                require_count(f"AuditGrid.{name}: each", value, at_least=lowest)
        if self.buckets is not None:
            require_list("AuditGrid.buckets", self.buckets, at_least=1, distinct=True)
        require_list("AuditGrid.strategies", self.strategies, of=str, at_least=1, distinct=True)
        for strategy in self.strategies:
            require_choice("AuditGrid.strategies: each", strategy, STRATEGIES)
        require_list("AuditGrid.seeds", self.seeds, of=int, at_least=int(NUCLEUS in self.strategies), distinct=True)
        for seed in self.seeds:
            require_seed("AuditGrid.seeds: each", seed)
        self.sampling  # noqa: B018 -- refuses a temperature or top_p out of bounds

    @property
    def sampling(self) -> Sampling:
        """How nucleus decoding draws."""
        return Sampling(self.temperature, None, self.top_p)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class AuditFigures:
    """Settings of the audit's figures, and of what is shown.

    Attributes:
      min_type_token_ratio: probes whose true suffix has a smaller share of distinct tokens are left out of the
        filtered figures.
      max_overlap: so are those that share more of their 13-grams with other training text.
      bootstrap_seed: of the intervals.
      max_recitations: closest recitations shown in the report.
    """

    min_type_token_ratio: float = 0.4
    max_overlap: float = 0.1
    bootstrap_seed: int = 0
    max_recitations: int = 20

    def __post_init__(self) -> None:
        require_number("AuditFigures.min_type_token_ratio", self.min_type_token_ratio, at_least=0, at_most=1)
        require_number("AuditFigures.max_overlap", self.max_overlap, at_least=0, at_most=1)
        require_seed("AuditFigures.bootstrap_seed", self.bootstrap_seed)
        require_count("AuditFigures.max_recitations", self.max_recitations)

    def keep(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a row of the audit is part of the filtered figures."""
        return row["type_token_ratio_reference"] >= self.min_type_token_ratio and row["overlap"] <= self.max_overlap

    @property
    def filters(self) -> dict[str, float]:
        """What is left out, as the results tell it."""
        return {"min_type_token_ratio": self.min_type_token_ratio, "max_overlap": self.max_overlap}


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class MembershipOptions:
    """Membership inference, beside that of the probes against the controls, and planted secrets among unplanted ones.

    Attributes:
      members, non_members: documents as `tokenize` takes them, trained on and not; give both or neither.
      reference: a model with the same tokenizer that saw neither, for the reference score.
      loss_masks: masks of the training, for membership on masked and unmasked tokens apart.
      canaries: the folder that `plant_canaries` wrote before training.
    """

    members: str | Sequence[str] | None = None
    non_members: str | Sequence[str] | None = None
    reference: str | None = None
    loss_masks: Sequence[LossMask] = ()
    canaries: str | None = None

    def __post_init__(self) -> None:
        if (self.members is None) != (self.non_members is None):
            given, lacking = ("members", "non_members") if self.non_members is None else ("non_members", "members")
            raise UserError(
                f"MembershipOptions.{given} is given without {lacking}; membership inference needs both, or neither"
            )

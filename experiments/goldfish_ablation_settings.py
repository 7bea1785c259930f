"""What a run of goldfish_ablation.py is made of: the arms, the probes, the twins' model and training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.objectives.goldfish import check_goldfish

STANDARD, RESTARTED = "none", "none:restarted"
ARMS = (
    STANDARD,
    RESTARTED,
    "megatron:50:50",
    "megatron:4:13",
    "megatron_v2:50:50",
    "megatron_v2:4:13",
    "document:50:50",
    "document:4:13",
    "cluster:50:50",
    "cluster:4:13",
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One twin: `name` as written in the settings; k and h are 0 without a mask.

    `restarted` begins at other initial weights: how far two trainings lie apart that no mask tells apart.
    """

    name: str
    strategy: str
    k: int = 0
    h: int = 0
    restarted: bool = False


@dataclasses.dataclass(frozen=True)
class GoldfishAblation:
    """The whole experiment; gin binds it.

    Attributes:
      model: architecture of the twins; its vocabulary is that of the tokenizer that is trained.
      arms: "none", "none:restarted", or STRATEGY:K:H; "none" must be among them, the others are compared with it.
      seeds: of probes, copies, data order and initial weights; every arm is trained once with each.
      exposures: how often the probes of a bucket are read; 0 must be among them, it is the control.
      probes: how many probes each bucket has.
      prefix, suffix: tokens of a probe that are shown and that should be recited; a probe fills one row of
        prefix + suffix inputs.
      clusters: how many texts are planted as near-duplicate copies.
      copy_exposures: how often each of the copies is read.
      background_rows: rows of ordinary text.
      language_share: of the background rows, how many come from the many languages and not from English books.
      held_out: most documents of a language group in the held-out loss.
      batch_size, learning_rate, b2, clip_norm: of training; warm-up is 5 % of it and decay the last 20 %.
      margin: held-out losses this near to the standard arm's count as equal.
    """

    model: ModelConfig
    arms: Sequence[str] = ARMS
    seeds: Sequence[int] = (0, 1)
    exposures: Sequence[int] = (0, 1, 2, 4, 8, 16, 32, 64, 128)
    probes: int = 6
    prefix: int = 64
    suffix: int = 384
    clusters: int = 3
    copy_exposures: int = 16
    background_rows: int = 800
    language_share: float = 0.6
    held_out: int = 24
    batch_size: int = 8
    learning_rate: float = 3e-3
    b2: float = 0.99
    clip_norm: float = 1.0
    margin: float = 0.005

    def __post_init__(self) -> None:
        for field in ("arms", "seeds", "exposures"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        parsed = [parse_arm(name) for name in self.arms]
        if STANDARD not in self.arms or len(set(parsed)) != len(parsed):
            raise UserError(f"GoldfishAblation.arms={self.arms} must name {STANDARD!r} and no arm twice")
        if 0 not in self.exposures or max(self.exposures) == 0 or len(set(self.exposures)) != len(self.exposures):
            raise UserError(
                f"GoldfishAblation.exposures={self.exposures} must hold 0, the control, and others, once each"
            )
        for field in ("probes", "prefix", "suffix", "background_rows", "batch_size", "held_out", "copy_exposures"):
            if getattr(self, field) < 1:
                raise UserError(f"GoldfishAblation.{field}={getattr(self, field)} must be at least 1")
        if self.length + 1 > self.model.max_position_embeddings:
            raise UserError(
                f"GoldfishAblation has prefix + suffix = {self.length} and ModelConfig.max_position_embeddings is "
                f"{self.model.max_position_embeddings}; raise that or shorten the probes"
            )

    @property
    def length(self) -> int:
        """T: the inputs of a row."""
        return self.prefix + self.suffix


def parse_arm(name: str) -> Arm:
    """Reads "none", "none:restarted" or "STRATEGY:K:H"; raises UserError for anything else."""
    if name in (STANDARD, RESTARTED):
        return Arm(name, STANDARD, restarted=name == RESTARTED)
    strategy, _, sizes = name.partition(":")
    k, _, h = sizes.partition(":")
    if not (k.isdecimal() and h.isdecimal()):
        raise UserError(f"arm {name!r} is neither {STANDARD!r}, {RESTARTED!r} nor STRATEGY:K:H, such as document:50:50")
    check_goldfish(int(k), int(h), strategy, has_anchors=True)
    return Arm(name, strategy, int(k), int(h))

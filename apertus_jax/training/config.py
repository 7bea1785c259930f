"""How long and how often: the settings of the training loop."""

from __future__ import annotations

import dataclasses

from apertus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings of the loop that are neither model, data order, objective nor optimizer.

    Attributes:
      sequence_length: tokens of one sample.
      accumulation: sequential pieces per step; the batch must divide by it.
      clip_norm: global gradient norm above which gradients are scaled down (0.1 in the released runs).
      seed: decides initial parameters and data order.
      log_every, checkpoint_every: in steps.
      keep_last: newest checkpoints kept; keep_every: multiples of this many steps are kept for good (0: none).
      max_skipped_in_a_row: non-finite steps tolerated in a row before the run stops with an error; their updates are
        skipped in any case.
      prefetch: batches made ahead of the step.
    """

    sequence_length: int = 4096
    accumulation: int = 1
    clip_norm: float = 0.1
    seed: int = 28
    log_every: int = 10
    checkpoint_every: int = 250
    keep_last: int = 2
    keep_every: int = 0
    max_skipped_in_a_row: int = 0
    prefetch: int = 2

    def __post_init__(self) -> None:
        for name in ("sequence_length", "accumulation", "log_every", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise UserError(f"TrainingConfig.{name}={getattr(self, name)} must be at least 1")

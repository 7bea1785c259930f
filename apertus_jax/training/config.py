"""Training settings: steps, batch size, gradient accumulation, intervals of logging and saving."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from apertus_jax.errors import UserError
from apertus_jax.terminal.terminal_text import printable
from apertus_jax.training.trackers import TensorBoardTracker, Tracker, check_trackers
from apertus_jax.validation import (
    fields_by_annotation,
    require_count,
    require_list,
    require_number,
    require_seed,
    require_text,
    require_whole_number,
)

FREE_TO_CHANGE = "free_to_change"
LONGEST_NAME = 100
COMPILER_OPTION = re.compile(r"xla_\w+", re.ASCII)
LONGEST_SEQUENCE = 1 << 30  # positions are numbered in int32


def free_to_change(default: Any = dataclasses.MISSING) -> Any:
    """Declares a field that may change between two starts of one run, because no bit of the result depends on it."""
    return dataclasses.field(default=default, metadata={FREE_TO_CHANGE: True})


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class TrainingConfig:
    """Settings of the loop that are neither model, data order, objective nor optimizer.

    Attributes:
      sequence_length: tokens of one sample.
      accumulation: sequential pieces per step; the batch must divide by it.
      clip_norm: global gradient norm above which gradients are scaled down (0.1 in the released runs); None for never.
      decay_xielu_alphas: weight decay also on the two xIELU scalars of each layer, which are left out by default.
      seed: decides initial parameters and data order.
      init_from: weights to start from in place of random ones: a model folder, a Hugging Face Apertus folder, or a run;
        "" for none. A run that has a checkpoint goes on from it.
      init_step: a committed step of the run `init_from`; None for its last one.
      init_optimizer: go on from that step with its optimizer state, step count and order of samples.
      init_unread_sources: refuse a start from weights alone with a source that the run of the weights, or one that it
        started from itself, has read: no text is trained twice over phases that have their sources each.
      log_every, checkpoint_every: in steps.
      keep_last: newest checkpoints kept; keep_every: multiples of this many steps are kept for good (0: none).
      max_skipped_in_a_row: non-finite steps tolerated in a row before the run stops with an error; their updates are
        skipped in any case.
      prefetch: batches made ahead of the step.
      trackers: told the figures of the run beside metrics.jsonl, which is always written.
      name: what the run is called in its report, by trackers and in comparisons; empty for the name of its folder.
      compiler_options: flags of XLA and libtpu for the train step, each as NAME=VALUE, for example
        "xla_enable_async_all_gather=true"; they are given to the compiler, not to the environment.
      checked_blocks: how many blocks of 4 MiB of the token store are checked at each start, drawn by `seed`.
    """

    sequence_length: int = 4096
    accumulation: int = 1
    clip_norm: float | None = 0.1
    decay_xielu_alphas: bool = False
    seed: int = 28
    log_every: int = free_to_change(10)
    checkpoint_every: int = free_to_change(250)
    keep_last: int = free_to_change(2)
    keep_every: int = free_to_change(0)
    max_skipped_in_a_row: int = free_to_change(0)
    compiler_options: tuple[str, ...] = ()
    prefetch: int = free_to_change(2)
    checked_blocks: int = free_to_change(8)
    trackers: tuple[Tracker, ...] = free_to_change((TensorBoardTracker(),))
    name: str = free_to_change("")
    # The parent itself stands in the run's record, by digest, and another one is refused.
    init_from: str = free_to_change("")
    init_step: int | None = free_to_change(None)
    init_optimizer: bool = free_to_change(False)
    init_unread_sources: bool = free_to_change(False)

    def __post_init__(self) -> None:
        for name in ("accumulation", "log_every", "checkpoint_every", "keep_last", "prefetch"):
            require_count(f"TrainingConfig.{name}", getattr(self, name), at_least=1)
        for name in ("keep_every", "max_skipped_in_a_row", "checked_blocks"):
            require_count(f"TrainingConfig.{name}", getattr(self, name))
        require_whole_number("TrainingConfig.sequence_length", self.sequence_length, 1, LONGEST_SEQUENCE)
        require_number("TrainingConfig.clip_norm", self.clip_norm, above=0, optional=True)
        require_seed("TrainingConfig.seed", self.seed)
        require_list("TrainingConfig.trackers", self.trackers)
        object.__setattr__(self, "trackers", tuple(self.trackers))
        check_trackers(self.trackers)
        require_list("TrainingConfig.compiler_options", self.compiler_options)
        object.__setattr__(self, "compiler_options", tuple(self.compiler_options))
        _check_compiler_options(self.compiler_options)
        require_text("TrainingConfig.name", self.name)
        if len(self.name) > LONGEST_NAME or printable(self.name) != self.name:
            shown = repr(self.name[:LONGEST_NAME])
            raise UserError(f"TrainingConfig.name = {shown} must be one line of at most {LONGEST_NAME} characters")


def _check_compiler_options(options: tuple[Any, ...]) -> None:
    """Raises UserError unless each entry is NAME=VALUE, of a name that no other entry has."""
    name = "TrainingConfig.compiler_options"
    seen = set()
    for option in options:
        require_text(name, option)
        flag, equals, value = option.partition("=")
        if not COMPILER_OPTION.fullmatch(flag) or not equals or not value or printable(option) != option:
            raise UserError(f"{name} holds {option!r}; each entry is NAME=VALUE, as xla_enable_async_all_gather=true")
        if flag in seen:
            raise UserError(f"{name} sets {flag} twice; leave one out")
        seen.add(flag)


def free_bindings(*settings: type) -> frozenset[str]:
    """Returns the gin names of the fields of dataclasses that may change between two starts of one run."""
    return frozenset(
        f"{each.__name__}.{field.name}"
        for each in settings
        for field in dataclasses.fields(each)
        if FREE_TO_CHANGE in field.metadata
    )

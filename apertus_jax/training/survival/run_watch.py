"""Run watch: which steps are looked at more closely; the step itself stays the same program."""

from __future__ import annotations

import dataclasses

from apertus_jax.training.config import free_to_change
from apertus_jax.validation import fields_by_annotation, require_count


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RunWatch:
    """Looks at single steps, each off by default; no bit of the result depends on them.

    Attributes:
      replay_every: each of so many steps is computed twice and compared bit by bit, see `checked_step`; 0 for never. On
        GPUs the program has to be deterministic (`--xla_gpu_deterministic_ops=true`).
      layers_every: at each of so many steps the figures of `layer_figures` go to metrics.jsonl and the trackers; 0 for
        never. The gradients of that step are computed twice, and the devices hold the parameters twice.
      languages_every: at each of so many steps the figures of `language_figures` go there too; 0 for never. The forward
        pass of that step is computed twice.
      profile_step: the profiler records from after this step on; None for no. SIGUSR1 and the file `profile` in the run
        folder record from the next step on, at any time.
      profile_steps: how many steps it records.
    """

    replay_every: int = free_to_change(0)
    layers_every: int = free_to_change(0)
    languages_every: int = free_to_change(0)
    profile_step: int | None = free_to_change(None)
    profile_steps: int = free_to_change(3)

    def __post_init__(self) -> None:
        for name in ("replay_every", "layers_every", "languages_every"):
            require_count(f"RunWatch.{name}", getattr(self, name))
        require_count("RunWatch.profile_step", self.profile_step, optional=True)
        require_count("RunWatch.profile_steps", self.profile_steps, at_least=1)

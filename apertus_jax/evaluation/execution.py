"""Batch sizes and progress output of an evaluation: speed and memory, never a figure."""

from __future__ import annotations

import dataclasses

from apertus_jax.validation import fields_by_annotation, require_count


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Execution:
    """Execution settings of an evaluation. They decide no figure, so they are no part of an output's identity.

    Attributes:
      batch_size: texts generated together; None means what the command finds good.
      batch_tokens: about how many tokens one forward pass of scoring has; None means what suits the device.
      progress: shows a bar on a terminal, and the verdict of an audit.
    """

    batch_size: int | None = None
    batch_tokens: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        require_count("Execution.batch_size", self.batch_size, at_least=1, optional=True)
        require_count("Execution.batch_tokens", self.batch_tokens, at_least=1, optional=True)

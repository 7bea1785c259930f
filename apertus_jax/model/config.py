"""Model configuration: shape and numerics."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from apertus_jax.errors import UserError
from apertus_jax.model.attention import IMPLEMENTATIONS
from apertus_jax.model.attention_kernels import Tiles
from apertus_jax.model.feedforwards import FEEDFORWARDS, OWN
from apertus_jax.validation import (
    fields_by_annotation,
    require_choice,
    require_flag,
    require_number,
    require_whole_number,
    spelled,
)

if TYPE_CHECKING:
    from apertus_jax.validation import FilledIn

DOC_ATTENTION = ("segment", "causal")
REMAT_POLICIES = ("none", "full", "dots", "save_attention", "offload_attention")
COMPUTE_DTYPES = ("float32", "bfloat16")
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "max_position_embeddings",
    "scan_unroll",
)
LARGEST_SIZE = 2**31 - 1  # indices are int32
LEAST_TILE, LARGEST_TILE = 128, 2**14  # lanes of a TPU's registers; beyond, no chip has the memory
LARGEST_MATRIX = 10**15  # elements, all layers together
LARGEST_ALPHA = 80.0  # exp(80) still is a float32
# Bounds within which float32 still tells one value from the next.
NUMBERS: dict[str, dict[str, Any]] = {
    "norm_epsilon": {"above": 0, "at_most": 1},
    "rope_theta": {"above": 0, "at_most": 1e30},
    "init_std": {"above": 0},
    "xielu_alpha_p": {"above": 0, "at_most": LARGEST_ALPHA},
    "xielu_alpha_n": {"at_least": -LARGEST_ALPHA, "at_most": LARGEST_ALPHA},
    "xielu_beta": {"at_least": -LARGEST_ALPHA, "at_most": LARGEST_ALPHA},
    "xielu_epsilon": {"at_least": -LARGEST_ALPHA, "at_most": LARGEST_ALPHA},
}


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class RopeScaling:
    """The llama3 rule that slows low rotary frequencies. On from the first step of pretraining.

    Source: docs/reference/model_and_training.md §3.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        for field in ("factor", "low_frequency_factor", "high_frequency_factor"):
            require_number(f"RopeScaling.{field}", getattr(self, field), above=0, at_most=1e9)
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise UserError(
                f"RopeScaling.high_frequency_factor={self.high_frequency_factor} must be above "
                f"low_frequency_factor={self.low_frequency_factor}"
            )
        name = "original_max_position_embeddings"
        require_whole_number(f"RopeScaling.{name}", self.original_max_position_embeddings, 1, LARGEST_SIZE)


def _require_part(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UserError unless a part of the model is known by this name here."""
    if value not in known:
        raise UserError(
            f"{name} = {spelled(value)} must be one of {', '.join(map(repr, known))}, or of a module of yours: "
            "--import=MODULE"
        )


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class ModelConfig:
    """Everything that decides what the model computes. Defaults are the released Apertus models'.

    `doc_attention="segment"` is intra-document masking: documents of one window are kept apart; "causal" lets them
    attend to each other. `reset_positions` restarts positions at each document. The paper's design is segment + reset
    (the default); the released checkpoints were trained causal without reset
    (docs/reference/model_and_training.md §4.4). `attention_implementation` and `feedforward` are names, also of what
    a module outside of the package adds (docs/plugins.md). `tpu_splash` cuts its work into squares of `attention_tile`
    queries and keys, or of the largest power of two that divides the sequence; with `attention_fused_backward` one
    kernel computes all three gradients, for memory of the queries once for each tile of keys.

    Source: docs/reference/model_and_training.md §1.1.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    if TYPE_CHECKING:
        head_dim: FilledIn[int] = FilledIn()
    else:
        head_dim: int | None = None
    norm_epsilon: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = RopeScaling()
    max_position_embeddings: int = 4096
    init_std: float = 0.008944
    xielu_alpha_p: float = 0.8
    xielu_alpha_n: float = 0.8
    xielu_beta: float = 0.5
    xielu_epsilon: float = -1e-6
    doc_attention: str = "segment"
    reset_positions: bool = True
    compute_dtype: str = "float32"
    attention_implementation: str = "xla"
    attention_tile: int = Tiles.size
    attention_fused_backward: bool = Tiles.fused_backward
    remat_policy: str = "none"
    scan_unroll: int = 1
    feedforward: str = OWN

    def __post_init__(self) -> None:
        for field in SIZES:
            require_whole_number(f"ModelConfig.{field}", getattr(self, field), at_least=1, at_most=LARGEST_SIZE)
        if self.head_dim is None:
            if self.hidden_size % self.num_heads:
                raise UserError(
                    f"ModelConfig.hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}; "
                    "change one or set head_dim"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_heads)
        require_whole_number("ModelConfig.head_dim", self.head_dim, at_least=1, at_most=LARGEST_SIZE)
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"ModelConfig.num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"ModelConfig.head_dim={self.head_dim} must be even for rotary positions")
        # How many parameters there are is for `model.parameters` to say; this keeps every matrix one that could be.
        widest = max(self.vocab_size, self.num_layers * max(self.intermediate_size, self.num_heads * self.head_dim))
        if self.hidden_size * widest > LARGEST_MATRIX:
            raise UserError(
                f"ModelConfig describes a matrix of {self.hidden_size * widest:.3g} parameters, more than "
                f"{LARGEST_MATRIX:.0e}; correct its sizes"
            )
        tile = self.attention_tile
        require_whole_number("ModelConfig.attention_tile", tile, at_least=LEAST_TILE, at_most=LARGEST_TILE)
        if tile & (tile - 1):
            raise UserError(f"ModelConfig.attention_tile={tile} must be a power of two")
        require_flag("ModelConfig.attention_fused_backward", self.attention_fused_backward)
        self._check_numerics()
        for field, allowed in (
            ("doc_attention", DOC_ATTENTION),
            ("remat_policy", REMAT_POLICIES),
            ("compute_dtype", COMPUTE_DTYPES),
        ):
            require_choice(f"ModelConfig.{field}", getattr(self, field), allowed)
        for field, parts in (("attention_implementation", IMPLEMENTATIONS), ("feedforward", FEEDFORWARDS)):
            _require_part(f"ModelConfig.{field}", getattr(self, field), tuple(parts))

    def _check_numerics(self) -> None:
        """Checks everything that is not a size or a name."""
        for field, bounds in NUMBERS.items():
            require_number(f"ModelConfig.{field}", getattr(self, field), **bounds)
        if self.xielu_alpha_n <= self.xielu_beta:
            raise UserError(
                f"ModelConfig.xielu_alpha_n={self.xielu_alpha_n} must be above xielu_beta={self.xielu_beta}"
            )
        require_flag("ModelConfig.reset_positions", self.reset_positions)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise UserError(f"ModelConfig.rope_scaling={self.rope_scaling!r} must be a RopeScaling, or None for none")

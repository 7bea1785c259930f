"""Shape and numerics of an Apertus model."""

from __future__ import annotations

import dataclasses

from apertus_jax.errors import UserError

DOC_ATTENTION = ("segment", "causal")
ATTENTION_IMPLEMENTATIONS = ("xla", "xla_blockwise", "pallas_gpu_mha", "tpu_splash")
REMAT_POLICIES = ("none", "full", "dots", "save_attention", "offload_attention")
COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """The llama3 rule that slows low rotary frequencies (model spec §3). On from the first step of pretraining."""

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what the model computes. Defaults are the released Apertus models' (model spec §1.1).

    `doc_attention="segment"` keeps documents of one window apart, "causal" lets them attend to each other;
    `reset_positions` restarts positions at each document. The paper's design is segment + reset (the default); the
    released checkpoints were trained causal without reset (model spec §4.4).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
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
    remat_policy: str = "none"
    scan_unroll: int = 1

    def __post_init__(self) -> None:
        if self.head_dim is None:
            if self.hidden_size % self.num_heads:
                raise UserError(
                    f"ModelConfig.hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}; "
                    "change one or set head_dim"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"ModelConfig.num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"ModelConfig.head_dim={self.head_dim} must be even for rotary positions")
        for field, allowed in (
            ("doc_attention", DOC_ATTENTION),
            ("attention_implementation", ATTENTION_IMPLEMENTATIONS),
            ("remat_policy", REMAT_POLICIES),
            ("compute_dtype", COMPUTE_DTYPES),
        ):
            if getattr(self, field) not in allowed:
                raise UserError(f"ModelConfig.{field}={getattr(self, field)!r} must be one of {allowed}")
        if self.xielu_alpha_n <= self.xielu_beta:
            raise UserError(
                f"ModelConfig.xielu_alpha_n={self.xielu_alpha_n} must be above xielu_beta={self.xielu_beta}"
            )

    @property
    def num_parameters(self) -> int:
        """The exact number of trainable scalars, the two xIELU scalars of each layer included (model spec §1.1)."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        feedforward = 2 * self.hidden_size * self.intermediate_size
        norms_and_scalars = 2 * self.hidden_size + 2 * self.head_dim + 2
        per_layer = attention + feedforward + norms_and_scalars
        return 2 * self.vocab_size * self.hidden_size + self.num_layers * per_layer + self.hidden_size

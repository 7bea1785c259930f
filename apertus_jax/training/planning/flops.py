"""FLOPs of a training step: the analytic count behind "model FLOP/s" and MFU."""

from __future__ import annotations

from apertus_jax.model import ModelConfig
from apertus_jax.model.parameters import parameter_specs

BACKWARD_AND_FORWARD = 3


def forward_flops_per_sequence(config: ModelConfig, sequence_length: int) -> int:
    """Returns the floating-point operations of one forward pass over one sequence.

    The Apertus paper's count (appendix E; docs/reference/model_and_training.md §10): every matrix product, the softmax,
    rotary positions and norms; attention over the full square, without the causal half. Multiplications and additions
    count separately. Every parameter called `kernel` is taken to multiply every token once; one that does not (an
    expert that few tokens reach) needs a count of its own here.
    """
    length = sequence_length
    kernels = sum(spec.size for path, spec in parameter_specs(config).items() if path.endswith("/kernel"))
    scores_and_values = 2 * (2 * config.num_heads * length**2 * config.head_dim)
    softmax = 3 * config.num_heads * length**2
    rotary = 4 * length * (config.num_heads + config.num_kv_heads) * config.head_dim
    norms = 8 * length * config.hidden_size
    return 2 * length * kernels + config.num_layers * (scores_and_values + softmax + rotary + norms)


def train_flops_per_token(config: ModelConfig, sequence_length: int) -> float:
    """Returns forward and backward operations per trained token (backward counted as two forwards)."""
    return BACKWARD_AND_FORWARD * forward_flops_per_sequence(config, sequence_length) / sequence_length

"""How much arithmetic a training step is: the analytic count behind "model FLOP/s"."""

from __future__ import annotations

from apertus_jax.model import ModelConfig

BACKWARD_AND_FORWARD = 3


def forward_flops_per_sequence(config: ModelConfig, sequence_length: int) -> int:
    """Returns the floating-point operations of one forward pass over one sequence.

    The Apertus paper's count (appendix E, model spec §10): every matrix product, the softmax, rotary positions and
    norms; attention over the full square, without the causal half. Multiplications and additions count separately.
    """
    length, embed = sequence_length, config.hidden_size
    query_width = config.num_heads * config.head_dim
    kv_width = config.num_kv_heads * config.head_dim
    projections = 2 * length * embed * query_width + 2 * (2 * length * embed * kv_width)
    scores_and_values = 2 * (2 * config.num_heads * length**2 * config.head_dim)
    softmax = 3 * config.num_heads * length**2
    output = 2 * length * query_width * embed
    rotary = 4 * length * (config.num_heads + config.num_kv_heads) * config.head_dim
    feedforward = 4 * length * embed * config.intermediate_size
    norms = 8 * length * embed
    layer = projections + scores_and_values + softmax + output + rotary + feedforward + norms
    return config.num_layers * layer + 2 * length * embed * config.vocab_size


def train_flops_per_token(config: ModelConfig, sequence_length: int) -> float:
    """Returns forward and backward operations per trained token (backward counted as two forwards)."""
    return BACKWARD_AND_FORWARD * forward_flops_per_sequence(config, sequence_length) / sequence_length

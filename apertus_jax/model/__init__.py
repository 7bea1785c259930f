"""Apertus model: pure Flax Linen modules, no training and no data."""

from apertus_jax.model.attention import Implementation, add_attention, attend
from apertus_jax.model.config import ModelConfig, RopeScaling
from apertus_jax.model.feedforwards import add_feedforward
from apertus_jax.model.parameters import abstract_parameters, count_parameters, init_parameters
from apertus_jax.model.transformer import Dense, Transformer

__all__ = [
    "Dense",
    "Implementation",
    "ModelConfig",
    "RopeScaling",
    "Transformer",
    "abstract_parameters",
    "add_attention",
    "add_feedforward",
    "attend",
    "count_parameters",
    "init_parameters",
]

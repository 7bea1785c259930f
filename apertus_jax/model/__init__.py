"""The Apertus model: pure Flax Linen modules, no training and no data."""

from apertus_jax.model.attention import attend
from apertus_jax.model.config import ModelConfig, RopeScaling
from apertus_jax.model.parameters import abstract_parameters, count_parameters, initial_parameters
from apertus_jax.model.transformer import Transformer

__all__ = [
    "ModelConfig",
    "RopeScaling",
    "Transformer",
    "abstract_parameters",
    "attend",
    "count_parameters",
    "initial_parameters",
]

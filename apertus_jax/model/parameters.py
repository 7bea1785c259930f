"""Making and counting the parameter tree."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from apertus_jax.model.config import ModelConfig
from apertus_jax.model.transformer import Transformer

_ONE_TOKEN = jax.ShapeDtypeStruct((1, 1), jnp.int32)


def abstract_parameters(config: ModelConfig) -> Any:
    """The parameter tree without values: ShapeDtypeStructs boxed with their logical axis names."""
    # The plain attention has the same parameters and traces everywhere, so shapes can be asked for on any machine.
    return jax.eval_shape(Transformer(_traceable(config)).init, jax.random.key(0), _ONE_TOKEN)["params"]


def initial_parameters(config: ModelConfig, key: jax.Array) -> Any:
    """Fresh float32 parameters as a plain nested dict (model spec §2.3)."""
    tokens = jnp.zeros(_ONE_TOKEN.shape, _ONE_TOKEN.dtype)
    return nn.unbox(jax.jit(Transformer(_traceable(config)).init)(key, tokens)["params"])


def count_parameters(parameters: Any) -> int:
    """The exact number of scalars in a parameter tree, arrays or abstract."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nn.unbox(parameters)))


def _traceable(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, attention_implementation="xla", remat_policy="none")

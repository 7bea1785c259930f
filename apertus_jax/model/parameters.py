"""Parameter tree: names, shapes, logical axes, counts and initial values, all derived from the Linen modules.

What a new module declares with `self.param` is known here, and with it to checkpoints, the model folder, FLOPs, plans
and sharding. Nothing else lists the parameters of the model but the two places that need more than their shapes: how
they are published (`model/tensor_table.py`) and what the CPU's decoding step reads (`inference/unrolled.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from flax.core import meta

from apertus_jax.model.config import ModelConfig
from apertus_jax.model.transformer import Transformer

LAYERS_AXIS = "layers"
_ONE_TOKEN = jax.ShapeDtypeStruct((1, 1), jnp.int32)


class ParameterSpec(NamedTuple):
    """One parameter without its values: its shape, and the logical name of each axis (None where it has none)."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]

    @property
    def size(self) -> int:
        """The number of scalars."""
        return math.prod(self.shape)

    @property
    def per_layer(self) -> bool:
        """Whether the first axis stands for the layers."""
        return self.axes[:1] == (LAYERS_AXIS,)


def init_parameters(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Draws fresh float32 parameters as a plain nested dict; their bits depend on no mesh.

    Source: docs/reference/model_and_training.md §2.3.
    """
    tokens = jnp.zeros(_ONE_TOKEN.shape, _ONE_TOKEN.dtype)
    return nn.unbox(jax.jit(Transformer(_traceable(config)).init)(key, tokens)["params"])


def abstract_parameters(config: ModelConfig) -> dict[str, Any]:
    """Returns the parameter tree without values: ShapeDtypeStructs boxed with their logical axis names."""
    return jax.tree.map(lambda leaf: leaf, _traced_parameters(_traceable(config)))  # the caller's own to change


@functools.lru_cache(maxsize=64)
def parameter_specs(config: ModelConfig) -> Mapping[str, ParameterSpec]:
    """Returns shape and axes of every parameter, by its path joined with "/"."""

    def spec(leaf: Any) -> ParameterSpec:
        if not isinstance(leaf, meta.Partitioned):
            return ParameterSpec(leaf.shape, (None,) * len(leaf.shape))
        return ParameterSpec(leaf.value.shape, tuple(leaf.names))

    flat = flax.traverse_util.flatten_dict(abstract_parameters(config), sep="/")
    return types.MappingProxyType({path: spec(leaf) for path, leaf in flat.items()})


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter, by its path joined with "/"."""
    return {path: spec.shape for path, spec in parameter_specs(config).items()}


def count_parameters(parameters: Any) -> int:
    """Returns the exact number of scalars in a parameter tree, arrays or abstract."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nn.unbox(parameters)))


@functools.lru_cache(maxsize=64)
def _traced_parameters(config: ModelConfig) -> dict[str, Any]:
    return jax.eval_shape(Transformer(config).init, jax.random.key(0), _ONE_TOKEN)["params"]


def _traceable(config: ModelConfig) -> ModelConfig:
    """Returns a configuration with the same parameters that can be traced on any machine, at any length."""
    return dataclasses.replace(config, attention_implementation="xla", remat_policy="none", scan_unroll=1)

"""Which tensor of a Hugging Face Apertus checkpoint is which parameter of ours, and how one turns into the other.

Every row is data: the two names and the axes of the published tensor in the letters of `PARAMETER_AXES`. Both
directions follow from it: transpose to the published order, then merge grouped axes ("NH" is one axis of N·H rows), or
split and transpose back. Linear weights are published as [out, in], so their kernels turn over; the embedding does not.
Layers are separate tensors there and the first axis here. Rotary positions use the half-split convention on both sides,
so no rows are permuted (model spec §3, §12.1).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from apertus_jax.model.config import ModelConfig
from apertus_jax.model_folder import PARAMETER_AXES, axis_sizes

LAYER = "model.layers.{layer}."


@dataclasses.dataclass(frozen=True)
class TensorRow:
    """One kind of tensor: published name, our path, and the published axes as groups of our axis letters.

    An empty group is an axis of length one: xIELU's scalars are published with shape [1].
    """

    name: str
    path: str
    axes: tuple[str, ...]

    @property
    def per_layer(self) -> bool:
        """Whether there is one published tensor for each layer."""
        return "{layer}" in self.name

    @property
    def own_axes(self) -> str:
        """The axes of one layer's slice on our side."""
        return PARAMETER_AXES[self.path].removeprefix("L") if self.per_layer else PARAMETER_AXES[self.path]

    def published_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape of the published tensor."""
        sizes = axis_sizes(config)
        return tuple(math.prod(sizes[axis] for axis in group) for group in self.axes)

    def publish(self, config: ModelConfig, own: np.ndarray) -> np.ndarray:
        """Turns our array (one layer's slice) into the published layout; dtype kept."""
        order = "".join(self.axes)
        return own.transpose([self.own_axes.index(axis) for axis in order]).reshape(self.published_shape(config))

    def adopt(self, config: ModelConfig, published: np.ndarray) -> np.ndarray:
        """Turns the published array into our layout (one layer's slice); the inverse of `publish`."""
        order = "".join(self.axes)
        sizes = axis_sizes(config)
        split = published.reshape([sizes[axis] for axis in order])
        return split.transpose([order.index(axis) for axis in self.own_axes])


TENSOR_TABLE = (
    TensorRow("model.embed_tokens.weight", "embedder/embedding", ("V", "D")),
    TensorRow(LAYER + "attention_layernorm.weight", "layers/attention_norm/scale", ("D",)),
    TensorRow(LAYER + "self_attn.q_proj.weight", "layers/attention/query/kernel", ("NH", "D")),
    TensorRow(LAYER + "self_attn.k_proj.weight", "layers/attention/key/kernel", ("KH", "D")),
    TensorRow(LAYER + "self_attn.v_proj.weight", "layers/attention/value/kernel", ("KH", "D")),
    TensorRow(LAYER + "self_attn.o_proj.weight", "layers/attention/output/kernel", ("D", "NH")),
    TensorRow(LAYER + "self_attn.q_norm.weight", "layers/attention/query_norm/scale", ("H",)),
    TensorRow(LAYER + "self_attn.k_norm.weight", "layers/attention/key_norm/scale", ("H",)),
    TensorRow(LAYER + "feedforward_layernorm.weight", "layers/feedforward_norm/scale", ("D",)),
    TensorRow(LAYER + "mlp.up_proj.weight", "layers/feedforward/up/kernel", ("F", "D")),
    TensorRow(LAYER + "mlp.down_proj.weight", "layers/feedforward/down/kernel", ("D", "F")),
    TensorRow(LAYER + "mlp.act_fn.alpha_p", "layers/feedforward/xielu/alpha_p", ("",)),
    TensorRow(LAYER + "mlp.act_fn.alpha_n", "layers/feedforward/xielu/alpha_n", ("",)),
    TensorRow("model.norm.weight", "final_norm/scale", ("D",)),
    TensorRow("lm_head.weight", "lm_head/kernel", ("V", "D")),
)

# Constants of xIELU that the published layout stores as scalar tensors of each layer. Readers fill them from memory
# that nobody initialised when they are absent, so they are always written and always required (model spec §14.1).
CONSTANT_TABLE = (
    (LAYER + "mlp.act_fn.beta", "xielu_beta"),
    (LAYER + "mlp.act_fn.eps", "xielu_epsilon"),
)


@dataclasses.dataclass(frozen=True)
class PublishedTensor:
    """One tensor of a published checkpoint: a layer of a table row, or an xIELU constant (`row` is None)."""

    name: str
    shape: tuple[int, ...]
    row: TensorRow | None
    layer: int | None
    constant: float | None = None


def published_tensors(config: ModelConfig) -> dict[str, PublishedTensor]:
    """Returns every tensor of the published checkpoint of `config` by name, in the order of the forward pass."""
    before = [row for row in TENSOR_TABLE if not row.per_layer and row.path.startswith("embedder")]
    after = [row for row in TENSOR_TABLE if not row.per_layer and not row.path.startswith("embedder")]
    tensors = [PublishedTensor(row.name, row.published_shape(config), row, None) for row in before]
    for layer in range(config.num_layers):
        tensors += [
            PublishedTensor(row.name.format(layer=layer), row.published_shape(config), row, layer)
            for row in TENSOR_TABLE
            if row.per_layer
        ]
        tensors += [
            PublishedTensor(name.format(layer=layer), (), None, layer, getattr(config, field))
            for name, field in CONSTANT_TABLE
        ]
    tensors += [PublishedTensor(row.name, row.published_shape(config), row, None) for row in after]
    return {tensor.name: tensor for tensor in tensors}


@jax.jit
def _layer_slice(leaf: jax.Array, layer: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)


def take_layer(leaf: Any, layer: int | None) -> np.ndarray:
    """Returns one layer of a stacked leaf on the host; only that layer leaves the device. None means the whole leaf."""
    if layer is not None:
        leaf = _layer_slice(leaf, np.int32(layer)) if isinstance(leaf, jax.Array) else np.asarray(leaf)[layer]
    return np.asarray(leaf)

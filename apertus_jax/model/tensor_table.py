"""Hugging Face tensor names and layouts: which published tensor is which parameter, and how one turns into the other.

Every row is data: the two names and the axes of the published tensor, by the logical names that the model gives the
axes of the parameter. Both directions follow from it: transpose to the published order, then merge grouped axes
("heads head_dim" is one axis of N·H rows), or split and transpose back. Linear weights are published as [out, in], so
their kernels turn over; the embedding does not. Layers are separate tensors there and the first axis here. Rotary
positions use the half-split convention on both sides, so no rows are permuted (docs/reference/model_and_training.md
§3, §12.1).

An architecture can be exported when its parameters are exactly those of the rows: see `export_obstacle`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.model.config import ModelConfig
from apertus_jax.model.feedforwards import OWN
from apertus_jax.model.parameters import ParameterSpec, parameter_specs
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, ReadBox, box_shape, boxes_within, c_strides, moved
from apertus_jax.storage.tensors.reader import TensorReader

LAYER = "model.layers.{layer}."
FLOAT32_BYTES = 4


@dataclasses.dataclass(frozen=True)
class TensorRow:
    """One kind of tensor: published name, our path, and the published axes as groups of the parameter's axes.

    An empty group is an axis of length one: xIELU's scalars are published with shape [1].
    """

    name: str
    path: str
    groups: tuple[str, ...]

    @property
    def per_layer(self) -> bool:
        """Whether there is one published tensor for each layer."""
        return "{layer}" in self.name

    @property
    def order(self) -> Sequence[str]:
        """The axes in the published order."""
        return [axis for group in self.groups for axis in group.split()]

    def own_axes(self, spec: ParameterSpec) -> list[str | None]:
        """Returns the axes of the parameter, of one layer's slice where it has layers."""
        return list(spec.axes[1:] if self.per_layer else spec.axes)

    def fits(self, spec: ParameterSpec) -> bool:
        """Returns whether the row says where each axis of the parameter goes."""
        known = [axis for axis in self.own_axes(spec) if axis is not None]
        whole = self.per_layer == spec.per_layer and len(known) == len(self.own_axes(spec)) == len(set(known))
        return whole and sorted(self.order) == sorted(known)

    def published_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape of the published tensor."""
        sizes = self._sizes(config)
        return tuple(math.prod(sizes[axis] for axis in group.split()) for group in self.groups)

    def split_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape of the published tensor with grouped axes apart; boxes of it are cut in these axes."""
        sizes = self._sizes(config)
        return tuple(sizes[axis] for axis in self.order)

    def publish(self, config: ModelConfig, own: np.ndarray) -> np.ndarray:
        """Returns a box of our array (of one layer's slice) in the published order of axes, grouped ones apart."""
        axes = self.own_axes(parameter_specs(config)[self.path])
        return own.transpose([axes.index(axis) for axis in self.order])

    def read_published(self, config: ModelConfig, read: ReadBox, layer: int | None, box: Box) -> np.ndarray:
        """Returns what is in a box of `split_shape` of a published tensor; `read` knows our parameters by path."""
        own = tuple(box[self.order.index(axis)] for axis in self.own_axes(parameter_specs(config)[self.path]))
        if layer is None:
            return self.publish(config, read(self.path, own))
        return self.publish(config, read(self.path, (slice(layer, layer + 1), *own))[0])

    def read_own(self, config: ModelConfig, reader: TensorReader, box: Box) -> np.ndarray:
        """Returns what is in a box of our parameter, layers included, float32, from published tensors."""
        axes, shape = self.own_axes(parameter_specs(config)[self.path]), self.split_shape(config)
        layers, inside = (range(box[0].start, box[0].stop), box[1:]) if self.per_layer else ((None,), box)
        first = [inside[axes.index(axis)].start for axis in self.order]
        values = np.empty(box_shape(box), np.float32)
        for place, layer in enumerate(layers):
            # A view in the order of the file, which is filled from its start to its end.
            published = self.publish(config, values[place, ...] if self.per_layer else values)
            for part in boxes_within(published.shape, c_strides(shape, FLOAT32_BYTES), FLOAT32_BYTES, PIECE_BYTES):
                published[part] = reader.read_weights(self.name.format(layer=layer), moved(part, first), shape)
        return values

    def _sizes(self, config: ModelConfig) -> dict[str | None, int]:
        spec = parameter_specs(config)[self.path]
        return dict(zip(spec.axes, spec.shape, strict=True))


TENSOR_TABLE = (
    TensorRow("model.embed_tokens.weight", "embedder/embedding", ("vocab", "embed")),
    TensorRow(LAYER + "attention_layernorm.weight", "layers/attention_norm/scale", ("norm",)),
    TensorRow(LAYER + "self_attn.q_proj.weight", "layers/attention/query/kernel", ("heads head_dim", "embed")),
    TensorRow(LAYER + "self_attn.k_proj.weight", "layers/attention/key/kernel", ("kv_heads head_dim", "embed")),
    TensorRow(LAYER + "self_attn.v_proj.weight", "layers/attention/value/kernel", ("kv_heads head_dim", "embed")),
    TensorRow(LAYER + "self_attn.o_proj.weight", "layers/attention/output/kernel", ("embed", "heads head_dim")),
    TensorRow(LAYER + "self_attn.q_norm.weight", "layers/attention/query_norm/scale", ("norm",)),
    TensorRow(LAYER + "self_attn.k_norm.weight", "layers/attention/key_norm/scale", ("norm",)),
    TensorRow(LAYER + "feedforward_layernorm.weight", "layers/feedforward_norm/scale", ("norm",)),
    TensorRow(LAYER + "mlp.up_proj.weight", "layers/feedforward/up/kernel", ("mlp", "embed")),
    TensorRow(LAYER + "mlp.down_proj.weight", "layers/feedforward/down/kernel", ("embed", "mlp")),
    TensorRow(LAYER + "mlp.act_fn.alpha_p", "layers/feedforward/xielu/alpha_p", ("",)),
    TensorRow(LAYER + "mlp.act_fn.alpha_n", "layers/feedforward/xielu/alpha_n", ("",)),
    TensorRow("model.norm.weight", "final_norm/scale", ("norm",)),
    TensorRow("lm_head.weight", "lm_head/kernel", ("vocab", "embed")),
)

# Constants of xIELU that the published layout stores as scalar tensors of each layer. Readers fill them from memory
# that nobody initialised when they are absent, so they are always written and always required
# (docs/reference/model_and_training.md §14).
CONSTANT_TABLE = (
    (LAYER + "mlp.act_fn.beta", "xielu_beta"),
    (LAYER + "mlp.act_fn.eps", "xielu_epsilon"),
)

# Values of config.json that name the architecture, and settings of others in this format that Apertus has so.
MODEL_TYPE = "apertus"
FIXED_VALUES = {
    "hidden_act": "xielu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "qk_norm": True,
    "post_norm": False,
    "tie_word_embeddings": False,
}


@dataclasses.dataclass(frozen=True)
class PublishedFormat:
    """Published format of one architecture: names in config.json, tensors, and constants stored as tensors.

    `feedforward` is what `ModelConfig.feedforward` says of it.
    """

    model_type: str
    architecture: str
    fixed_values: Mapping[str, Any]
    rows: tuple[TensorRow, ...]
    constants: tuple[tuple[str, str], ...]
    feedforward: str = OWN


APERTUS = PublishedFormat(MODEL_TYPE, "ApertusForCausalLM", FIXED_VALUES, TENSOR_TABLE, CONSTANT_TABLE)


def published_format(config: ModelConfig) -> PublishedFormat:
    """Returns the format that models of this configuration are published in."""
    return APERTUS


def export_obstacle(config: ModelConfig) -> str | None:
    """Returns why this architecture cannot be exported to Hugging Face, naming the parameter; None when it can."""
    form = published_format(config)
    if form.feedforward != config.feedforward:  # also with parameters of the same names: it computes something else
        return f"its feedforward {config.feedforward!r} has no format in apertus_jax/model/tensor_table.py"
    specs, rows = parameter_specs(config), {row.path: row for row in form.rows}
    for path in sorted(specs.keys() | rows.keys()):
        if path not in rows:
            return f"parameter {path} has no row in apertus_jax/model/tensor_table.py"
        if path not in specs:
            return f"it lacks the parameter {path}, which published models have"
        if not rows[path].fits(specs[path]):
            return f"parameter {path} has axes {specs[path].axes}, its row in apertus_jax/model/tensor_table.py others"
    return None


@dataclasses.dataclass(frozen=True)
class PublishedTensor:
    """One tensor of a published checkpoint: a layer of a table row, or an xIELU constant (`row` is None)."""

    name: str
    shape: tuple[int, ...]
    row: TensorRow | None
    layer: int | None
    constant: float | None = None

    def split_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns its shape with grouped axes apart."""
        return self.shape if self.row is None else self.row.split_shape(config)


def num_published_tensors(config: ModelConfig) -> int:
    """Returns how many tensors the published checkpoint of `config` has, without naming them."""
    form = published_format(config)
    per_layer = sum(row.per_layer for row in form.rows)
    return len(form.rows) - per_layer + config.num_layers * (per_layer + len(form.constants))


def published_tensors(config: ModelConfig) -> dict[str, PublishedTensor]:
    """Returns every tensor of the published checkpoint of `config` by name, in the order of the forward pass."""
    form = published_format(config)
    before = [row for row in form.rows if not row.per_layer and row.path.startswith("embedder")]
    after = [row for row in form.rows if not row.per_layer and not row.path.startswith("embedder")]
    tensors = [PublishedTensor(row.name, row.published_shape(config), row, None) for row in before]
    of_layer = [(row, row.published_shape(config)) for row in form.rows if row.per_layer]
    for layer in range(config.num_layers):
        tensors += [PublishedTensor(row.name.format(layer=layer), shape, row, layer) for row, shape in of_layer]
        tensors += [
            PublishedTensor(name.format(layer=layer), (), None, layer, getattr(config, field))
            for name, field in form.constants
        ]
    tensors += [PublishedTensor(row.name, row.published_shape(config), row, None) for row in after]
    return {tensor.name: tensor for tensor in tensors}

"""Roofline of a training step: seconds of arithmetic, of memory and of each network, from peaks and one efficiency.

The step takes as long as the longest of them, for compilers overlap them, and what is known not to overlap comes on
top. The model of matrix products: bytes read and written once each; weights in bfloat16, the state in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh

from apertus_jax.model import ModelConfig
from apertus_jax.model.parameters import parameter_specs
from apertus_jax.training.planning.chips import Chip
from apertus_jax.training.planning.topology import slices_along, torus_extents

ITEM = 2  # bytes of bfloat16
LINKS = 2  # of a torus dimension, one each way
FORWARD_AND_BACKWARD = 3  # products with a matrix: of the forward pass, and two gradients
# Matrices whose products the backward pass needs, or that lead to one it needs, so that a policy that keeps less has
# them again: feed-forward's last product and the output matrix are never among them. model/remat.py has the policies.
_FEEDFORWARD = ("feedforward/up", "feedforward/gate")
AGAIN = {
    "none": (),
    "dots": (),
    "save_attention": ("attention/output", *_FEEDFORWARD),
    "offload_attention": ("attention/output", *_FEEDFORWARD),
    "full": ("attention/", *_FEEDFORWARD),
}
KEEP_ATTENTION = ("dots", "save_attention", "offload_attention")
NAMES_RESULTS = ("xla_blockwise", "tpu_splash")  # for `remat_policy`, see model/remat.py
ATTENTION_FORWARD, ATTENTION_BACKWARD = 2, 5  # products [T, S]: scores and values; those and their three gradients


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of all tokens with one matrix, or with the like matrices of all layers.

    Attributes:
      size: parameters, of all layers together.
      layers: how many matrices.
      again: the backward pass computes it a second time.
    """

    size: int
    layers: int
    again: bool


@dataclasses.dataclass(frozen=True)
class Attention:
    """Causal attention of all layers: heads × head_dim is `width`; `again` as in `Product`."""

    layers: int
    width: int
    again: bool


@dataclasses.dataclass(frozen=True)
class StepWork:
    """Work of one chip in one step.

    Attributes:
      products: FLOPs of products with weights, recomputation included.
      attention: FLOPs of the causal half of attention, recomputation included.
      again: the part of both that recomputes.
      memory_bytes: read from and written to HBM.
      wire_bytes: sent, by mesh axes as in `collectives.wire_by_axes`; axes joined by × are as slow as the slowest.
      synchronous: of `wire_bytes`, those with no work meanwhile.
    """

    products: float
    attention: float
    again: float
    memory_bytes: float
    wire_bytes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    synchronous: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step: each bound by itself, and what they make together.

    Attributes:
      arithmetic, memory: of a chip.
      network: by mesh axes, all bytes.
      waiting: of the bytes that nothing hides.
      step: the longest of the bounds, of the network what is hidden, and `waiting` on top.
      bound: what is the longest.
    """

    arithmetic: float
    memory: float
    network: Mapping[str, float]
    waiting: float
    step: float
    bound: str


def roofline(work: StepWork, chip: Chip, head_dim: int, bandwidths: Mapping[str, float]) -> Roofline:
    """Returns the seconds of a step; `bandwidths` are bytes per second that a chip sends along each mesh axis.

    Attention multiplies over `head_dim` numbers, so that wider matrix units are partly idle in it.
    """
    idle = max(chip.matrix_unit / head_dim, 1.0)
    arithmetic = (work.products + work.attention * idle) / (chip.flops_per_second * chip.efficiency)
    memory = work.memory_bytes / chip.memory_bandwidth
    network = {axes: _seconds(sent, axes, bandwidths) for axes, sent in work.wire_bytes.items() if sent}
    waiting = sum(_seconds(sent, axes, bandwidths) for axes, sent in work.synchronous.items() if sent)
    hidden = {
        f"network, {axes}": _seconds(sent - work.synchronous.get(axes, 0.0), axes, bandwidths)
        for axes, sent in work.wire_bytes.items()
        if sent
    }
    bounds = {"arithmetic": arithmetic, "memory": memory, **hidden}
    bound = max(bounds, key=lambda name: bounds[name])
    return Roofline(arithmetic, memory, network, waiting, bounds[bound] + waiting, bound)


def axis_bandwidths(mesh: Mesh, chip: Chip) -> dict[str, float]:
    """Returns the bytes per second that one chip sends along each mesh axis larger than 1.

    Each dimension of the torus that the axis reaches along adds a ring's two links, half of that where its ends are not
    joined; cores of a chip exchange through it and are not counted. Between slices the slow network bounds.
    """
    found = {}
    for axis, size in mesh.shape.items():
        if size == 1:
            continue
        if slices_along(mesh, axis) > 1:
            found[axis] = chip.slow_bandwidth
            continue
        extents = [extent for extent in torus_extents(mesh, axis) if extent > 1]
        rings = sum(1.0 if extent % chip.wraps_from == 0 else 0.5 for extent in extents)
        found[axis] = LINKS * chip.link_bandwidth * (rings or 1.0)
    return found


def products_of(model: ModelConfig) -> list[Product]:
    """Returns the products of a model, recomputed as its `remat_policy` says."""
    return [
        Product(
            size=spec.size,
            layers=model.num_layers if spec.per_layer else 1,
            again=any(part in path for part in AGAIN[model.remat_policy]),
        )
        for path, spec in parameter_specs(model).items()
        if path.endswith("/kernel")
    ]


def attention_of(model: ModelConfig) -> Attention:
    """Returns the attention of a model, computed again where its policy keeps no result of it, or it names none."""
    names = model.attention_implementation in NAMES_RESULTS
    kept = model.remat_policy == "none" or (model.remat_policy in KEEP_ATTENTION and names)
    return Attention(model.num_layers, model.num_heads * model.head_dim, not kept)


def step_work(
    products: Sequence[Product],
    attention: Attention,
    rows: float,
    sequence_length: int,
    state_bytes: float,
    passes: int = 1,
) -> StepWork:
    """Returns arithmetic and memory traffic of one chip.

    Args:
      products, attention: what is computed.
      rows: sequences of this chip in a step; a part of one where `tensor` or `context` share it.
      sequence_length: tokens of a sequence.
      state_bytes: parameters and moments that this chip keeps.
      passes: pieces that a batch is computed in; weights are read for each.
    """
    tokens = rows * sequence_length
    computed = again = traffic = 0.0
    for product in products:
        forward, times = 2 * tokens * product.size, FORWARD_AND_BACKWARD + product.again
        computed, again = computed + times * forward, again + product.again * forward
        ends = 2 * math.sqrt(product.size * product.layers)  # columns in and out of all, were each square
        traffic += times * ITEM * (passes * product.size + tokens * ends)
    half = attention.layers * rows * sequence_length**2 * attention.width  # FLOPs of one product's causal half
    repeated = ATTENTION_FORWARD * attention.again
    return StepWork(
        products=computed,
        attention=half * (ATTENTION_FORWARD + ATTENTION_BACKWARD + repeated),
        again=again + half * repeated,
        memory_bytes=traffic + 2 * state_bytes,  # the state is read and written
    )


def _seconds(sent: float, axes: str, bandwidths: Mapping[str, float]) -> float:
    """Seconds to send bytes over axes joined with ×."""
    return sent / min(bandwidths[axis] for axis in axes.split("×"))

"""Own arithmetic of a run on a TPU topology: what its step sends, how long it takes, and which meshes would do better.

Nothing is compiled. How often XLA gathers each matrix, and what it makes of gathers, is what programs compiled with
libtpu 0.0.42.1 show (docs/scale.md); tests/training/test_proposals.py holds it against their bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh

from apertus_jax import sharding
from apertus_jax.model import ModelConfig
from apertus_jax.model.parameters import parameter_specs
from apertus_jax.training.planning.collectives import wire_bytes
from apertus_jax.training.planning.plan import MemoryPlan
from apertus_jax.training.planning.roofline import (
    ITEM,
    Roofline,
    attention_of,
    axis_bandwidths,
    products_of,
    roofline,
    step_work,
)
from apertus_jax.training.planning.topology import Topology, drawn_devices, torus_extents

GRADIENT_ITEM = 4  # bytes, of the output matrix and of the embedding: float32
MOST_DIMENSIONS = 2  # of the torus under fsdp: over three, gathers become all-reduces
GATHERS, AGAIN_FOR_GRADIENTS = 2, ("attention/query", "attention/key", "attention/value")
# Of the residual stream under `tensor`, in each layer: a gather and a scatter round attention and feed-forward, in the
# forward pass, in the backward pass, and in the forward pass computed again.
RESIDUAL_MOVES = 4
PROPOSED = 3
MEMORY_SHARE = 0.9  # of a device that a proposal may fill


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a step: all its sequences, their length, the pieces it is computed in, gathers of lm_head in each piece.

    Until 2026-12 the tiles of the loss gathered the output matrix each for itself.
    """

    batch_size: int
    sequence_length: int
    accumulation: int
    head_gathers: int = 1


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A mesh with a way to recompute, and what they take by own arithmetic.

    Attributes:
      mesh: sizes of `data` and `fsdp`.
      remat_policy: of the model.
      step_seconds: with all of the network hidden.
      unhidden_seconds: with none of it hidden.
      memory_bytes: of a device.
    """

    mesh: Mapping[str, int]
    remat_policy: str
    step_seconds: float
    unhidden_seconds: float
    memory_bytes: float


def gathers_become_reductions(mesh: Mesh) -> bool:
    """Whether `fsdp` reaches over so many dimensions of the torus that XLA:TPU all-reduces whole weights."""
    if mesh.shape["fsdp"] == 1:
        return False
    return sum(extent > 1 for extent in torus_extents(mesh, "fsdp")) > MOST_DIMENSIONS


def planned_warnings(mesh: Mesh) -> list[str]:
    """Returns one line for each thing that will cost more than it must."""
    lines = []
    if gathers_become_reductions(mesh):
        lines.append(
            "fsdp reaches over three dimensions of the torus, where XLA makes all-reduces of the gathers of every "
            "matrix (layers/attention, layers/feedforward, lm_head): twice the bytes; lay it over two, with data"
        )
    return lines


def planned_wire(model: ModelConfig, mesh: Mesh, shape: Shape, torus_dimensions: int) -> dict[str, float]:
    """Returns the bytes that a device sends in a step, by mesh axes as in `collectives.wire_by_axes`.

    On a torus of two dimensions gradients are all-reduced whole; on one of three they are scattered, unless
    `gathers_become_reductions`.
    """
    sizes = mesh.shape
    reduced = gathers_become_reductions(mesh)
    dear = "all-reduce" if reduced else "all-gather"
    scatter = "all-reduce" if reduced or torus_dimensions == MOST_DIMENSIONS else "reduce-scatter"
    gathered = kernels = 0.0
    for path, spec in parameter_specs(model).items():
        if spec.per_layer and path.endswith("/kernel"):
            again = model.remat_policy == "full" and any(part in path for part in AGAIN_FOR_GRADIENTS)
            gathered += (GATHERS + again) * ITEM * spec.size / sizes["tensor"]
            kernels += ITEM * spec.size / sizes["tensor"]
    head = model.vocab_size * model.hidden_size / sizes["tensor"]
    pieces, fsdp = shape.accumulation, sizes["fsdp"]
    wire = {
        "fsdp": pieces
        * (
            wire_bytes(dear, gathered + shape.head_gathers * ITEM * head, fsdp)
            + wire_bytes(scatter, kernels, fsdp)
            + (wire_bytes("reduce-scatter", GRADIENT_ITEM * head, fsdp) if sizes["data"] == 1 else 0)
        )
    }
    if sizes["data"] > 1:
        wire["data"] = pieces * wire_bytes("all-reduce", kernels / fsdp, sizes["data"])
        wire["data×fsdp" if fsdp > 1 else "data"] = wire.get("data×fsdp" if fsdp > 1 else "data", 0) + (
            pieces * 2 * wire_bytes("all-reduce", GRADIENT_ITEM * head, sizes["data"] * fsdp)
        )
    if sizes["tensor"] > 1:
        rows = shape.batch_size / (sizes["data"] * fsdp)
        stream = ITEM * rows * shape.sequence_length / sizes["context"] * model.hidden_size * model.num_layers
        moves = RESIDUAL_MOVES * (3 if model.remat_policy == "full" else 2)
        wire["tensor"] = moves * wire_bytes("all-gather", stream, sizes["tensor"])
    return {axes: sent for axes, sent in wire.items() if sent}


def planned_roofline(
    model: ModelConfig,
    mesh: Mesh,
    topology: Topology,
    shape: Shape,
    state_bytes: float,
    wire: Mapping[str, float] | None = None,
    synchronous: Mapping[str, float] | None = None,
) -> tuple[Roofline, float]:
    """Returns the roofline of a step and the share of its arithmetic that recomputes.

    Args:
      model, mesh, topology, shape: of the run.
      state_bytes: parameters and moments of one device.
      wire, synchronous: what a compiled step sends; by own arithmetic, all of it hidden, if None.
    """
    chip = topology.kind
    rows = shape.batch_size / topology.num_devices * chip.devices
    work = step_work(
        products_of(model),
        attention_of(model),
        *(rows, shape.sequence_length, state_bytes * chip.devices, shape.accumulation),
    )
    sent = planned_wire(model, mesh, shape, chip.dimensions) if wire is None else wire
    work = dataclasses.replace(work, wire_bytes=sent, synchronous=synchronous or {})
    share = work.again / (work.products + work.attention)
    return roofline(work, chip, model.head_dim, axis_bandwidths(mesh, chip)), share


def proposals(
    candidates: Sequence[tuple[ModelConfig, MemoryPlan]], topology: Topology, shape: Shape, fsdp: int
) -> list[Proposal]:
    """Returns the fastest meshes data × fsdp that fit, fsdp over at most two dimensions of the torus.

    Args:
      candidates: the run's model, with one `remat_policy` each, and its memory as planned for a mesh without `tensor`
        and `context`.
      topology, shape: of the run.
      fsdp: the size of that axis in the plans; state and gradients are divided by another one, the rest stays.
    """
    count = topology.num_devices
    found: dict[tuple[int, str], Proposal] = {}
    for size in (each for each in range(1, count + 1) if count % each == 0 and not (count // each) % topology.slices):
        if shape.batch_size // shape.accumulation % count:
            continue
        mesh = sharding.make_mesh(sharding.MeshConfig(data=count // size, fsdp=size), drawn_devices(topology))
        if gathers_become_reductions(mesh):
            continue
        for model, memory in candidates:
            held = _memory_of(memory, fsdp / size)
            if held > MEMORY_SHARE * topology.kind.device.memory_bytes:
                continue
            state = (memory.parameters + memory.optimizer_state) * fsdp / size
            line, _ = planned_roofline(model, mesh, topology, shape, state)
            unhidden = max(line.arithmetic, line.memory) + sum(line.network.values())
            sizes = {"data": count // size, "fsdp": size}
            found[size, model.remat_policy] = Proposal(sizes, model.remat_policy, line.step, unhidden, held)
    return sorted(found.values(), key=lambda each: (each.unhidden_seconds, each.memory_bytes))[:PROPOSED]


def _memory_of(memory: MemoryPlan, share: float) -> float:
    """Returns the bytes of a device whose part of state and gradients is `share` of what was planned."""
    backward = memory.gradients * share + memory.kept_for_backward + memory.work_space + memory.gathered_weights
    state = (memory.parameters + memory.optimizer_state) * share
    return state + memory.batch + max(backward, memory.update * share)

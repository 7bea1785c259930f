"""Own arithmetic of TPU topologies against programs compiled for them, and what it warns of and proposes."""

import dataclasses

import pytest

from apertus_jax import sharding
from apertus_jax.model import ModelConfig
from apertus_jax.training.planning.plan import MemoryPlan
from apertus_jax.training.planning.proposals import (
    Shape,
    gathers_become_reductions,
    planned_roofline,
    planned_wire,
    proposals,
)
from apertus_jax.training.planning.topology import drawn_devices, topology_named

COMMON = {"compute_dtype": "bfloat16", "remat_policy": "full", "attention_implementation": "tpu_splash"}
MODEL_8B = ModelConfig(131072, 4096, 21504, 32, 32, 8, **COMMON)
MODEL_70B = ModelConfig(131072, 8192, 43008, 80, 64, 8, **COMMON)
TWO_LAYERS = dataclasses.replace(MODEL_8B, num_layers=2)
# Topology, mesh, batch of 4,096 tokens: gigabytes that a device of the compiled step sends (docs/scale.md).
COMPILED = [
    (TWO_LAYERS, "v5p:2x2x1", (1, 4, 1), 16, 10.4),
    (MODEL_8B, "v5p:4x8x8", (1, 256, 1), 1024, 108.5),
    (MODEL_8B, "v5p:4x8x8", (4, 64, 1), 1024, 60.3),
    (MODEL_8B, "v5p:4x4x4", (1, 32, 2), 1024, 253),
    (MODEL_8B, "v6e:16x16", (1, 256, 1), 1024, 72),
    (MODEL_70B, "v5p:8x8x8", (1, 64, 8), 2048, 1990),
    (MODEL_70B, "v5p:8x8x8", (8, 64, 1), 2048, 522),
]
SHAPE = Shape(1024, 4096, 1)
GATHERS_THEN = 8  # of lm_head, when these were compiled: one for each tile of the loss


def mesh_over(name, data, fsdp, tensor=1):
    """A mesh over a drawn topology."""
    return sharding.make_mesh(sharding.MeshConfig(data, fsdp, tensor), drawn_devices(topology_named(name)))


@pytest.mark.parametrize(("model", "topology", "sizes", "batch", "gigabytes"), COMPILED)
def test_planned_bytes_are_those_of_compiled_programs(model, topology, sizes, batch, gigabytes):
    shape = dataclasses.replace(SHAPE, batch_size=batch, head_gathers=GATHERS_THEN)
    kind = topology_named(topology).kind
    wire = planned_wire(model, mesh_over(topology, *sizes), shape, kind.dimensions)
    assert sum(wire.values()) / 1e9 == pytest.approx(gigabytes, rel=0.15)


@pytest.mark.parametrize(
    ("topology", "sizes", "expected"),
    [
        ("v5p:4x4x4", (1, 64), True),
        ("v5p:4x8x8", (1, 256), True),
        ("v5p:8x8x8", (1, 512), True),
        ("v5p:4x8x8", (4, 64), False),
        ("v5p:8x8x8", (8, 64), False),
        ("v6e:16x16", (1, 256), False),
        ("v5p:4x4x4", (64, 1), False),
    ],
)
def test_fsdp_over_three_dimensions_turns_gathers_into_sums(topology, sizes, expected):
    assert gathers_become_reductions(mesh_over(topology, *sizes)) is expected


def memory_of(state, rest):
    """A plan with that much state, and that much else."""
    return MemoryPlan(state // 4, state - state // 4, 10**6, state // 4, rest, 0, 0, state)


def test_a_proposed_mesh_is_faster_and_fits():
    topology, state = topology_named("v5p:4x8x8"), 16 * 8_053_338_176 // 256
    present, _ = planned_roofline(MODEL_8B, mesh_over("v5p:4x8x8", 1, 256), topology, SHAPE, state)
    less = dataclasses.replace(MODEL_8B, remat_policy="dots")
    planned = [(less, memory_of(state, 60 * 10**9)), (MODEL_8B, memory_of(state, 14 * 10**9))]
    found = proposals(planned, topology, SHAPE, 256)
    assert found and all(each.step_seconds < present.step for each in found)
    assert {each.remat_policy for each in found} == {"dots"}
    assert all(each.memory_bytes <= 0.9 * 95e9 for each in found)
    assert {"data": 4, "fsdp": 64} in [dict(each.mesh) for each in found]
    assert proposals([(MODEL_8B, memory_of(state, 90 * 10**9))], topology, SHAPE, 256) == []


def test_every_slice_has_its_whole_part_of_a_proposed_mesh():
    topology = topology_named("v5p:4x4x4:2")
    found = proposals([(MODEL_8B, memory_of(2 * 10**9, 14 * 10**9))], topology, SHAPE, 64)
    assert found and all(each.mesh["data"] % 2 == 0 for each in found)

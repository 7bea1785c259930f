"""`plan --topology`: names, meshes over drawn tori, what is refused, and a step compiled for real ones by libtpu."""

import dataclasses
import importlib.util

import pytest

from apertus_jax import sharding
from apertus_jax.data import BatchSchedule
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig
from apertus_jax.objectives import goldfish, not_after_eod
from apertus_jax.optimization import ademamix
from apertus_jax.training import Objective, RunSchedule, TrainingConfig
from apertus_jax.training.planning import topology as topologies
from apertus_jax.training.planning.ahead_of_time import part_of_model
from apertus_jax.training.planning.plan import plan_memory, plan_mesh
from apertus_jax.training.planning.plan_command import plan
from apertus_jax.training.planning.topology import drawn_devices, slices_along, topology_named, torus_extents
from tests.sharding.fake_devices import RECORDED, tpu_devices

MODEL = ModelConfig(4096, 256, 1344, 2, 8, 4, attention_implementation="xla_blockwise")
OBJECTIVE = Objective([goldfish(k=4, h=8, strategy="document"), not_after_eod(2)], num_tiles=4)


def plan_for(name, mesh=None, batch=64, model=MODEL, training=TrainingConfig(256), **options):  # noqa: B008
    """Returns the figures of a plan for a topology; without compiling unless said otherwise."""
    arguments = {"mesh": sharding.MeshConfig(**(mesh or {})), "topology": name, "compile": False} | options
    return plan(model, OBJECTIVE, ademamix, RunSchedule(BatchSchedule(batch), 1e-3, 10), training, **arguments)


@pytest.mark.parametrize("name", [name for name in RECORDED if "," not in name and "1x1" not in name.split(":")])
def test_drawn_tori_are_those_that_libtpu_describes(name):
    recorded, drawn = tpu_devices(name), drawn_devices(topology_named(name))
    places = [{(*device.coords, device.core_on_chip) for device in devices} for devices in (recorded, drawn)]
    assert places[0] == places[1]
    assert {device.device_kind for device in recorded} == {device.device_kind for device in drawn}


@pytest.mark.parametrize(
    ("name", "sizes", "reach"),
    [
        ("v5p:4x8x8", {"data": 4, "fsdp": 64}, {"data": (4,), "fsdp": (8, 8)}),
        ("v5p:4x8x8", {"data": 1, "fsdp": 256}, {"fsdp": (4, 8, 8)}),
        ("v6e:16x16:2", {"data": 2, "fsdp": 256}, {"data": (), "fsdp": (16, 16)}),
        ("tpu7x:4x4x4", {"data": 1, "fsdp": 64, "tensor": 2}, {"fsdp": (4, 4, 4), "tensor": ()}),
    ],
)
def test_axes_reach_over_dimensions_of_the_torus(name, sizes, reach):
    mesh = sharding.make_mesh(sharding.MeshConfig(**sizes), drawn_devices(topology_named(name)))
    for axis, extents in reach.items():
        assert tuple(sorted(size for size in torus_extents(mesh, axis) if size > 1)) == extents
    assert slices_along(mesh, "data") == topology_named(name).slices
    assert slices_along(mesh, "fsdp") == 1


def test_a_plan_of_a_topology_needs_no_libtpu_for_arithmetic(capsys):
    figures = plan_for("v5p:2x2x4", {"data": 1, "fsdp": -1})
    assert figures["devices"] == 16 and figures["memory"]["device"] == 95e9
    assert figures["topology"]["axes"] == {"fsdp": "2×2×4"}
    assert "step" not in figures["topology"]
    assert "fsdp reaches over" in capsys.readouterr().out


def test_memory_under_tensor_is_what_xla_allots_on_a_torus():
    # Compiled for v5p 8×8×8 by libtpu: 2.23 GB of arguments and 49.5 GB temporary (docs/scale.md).
    model = ModelConfig(131072, 8192, 43008, 80, 64, 8, compute_dtype="bfloat16", remat_policy="full")
    model = dataclasses.replace(model, attention_implementation="tpu_splash")
    objective = dataclasses.replace(OBJECTIVE, num_tiles=8)
    mesh = sharding.MeshConfig(data=1, fsdp=64, tensor=8)
    training = TrainingConfig(sequence_length=4096)
    abstract, rules = plan_mesh(mesh, 512), mesh.axis_rules("tpu")
    memory = plan_memory(model, ademamix(1e-3), objective, training, 2048, abstract, rules)
    assert memory.total == pytest.approx(51.7e9, rel=0.2)  # whole hidden states counted: 3.8 times as much


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v5p", {}, "must be CHIP:AxBxC"),
        ("v5p:4x4", {}, "has a torus of 3 dimensions"),
        ("v6e:4x4x4", {}, "has a torus of 2 dimensions"),
        ("v9:4x4", {}, "known are v4"),
        ("v5p:0x4x4", {}, "from 1 to 1024"),
        ("v5p:4x4x4:0", {}, "from 1 to 1024"),
        ("v5p:4x4x4", {"mesh": {"data": 8, "fsdp": 16}}, "a mesh of 128 devices, and there are 64"),
        ("v5p:2x2x1", {"mesh": {"data": 1, "fsdp": 3, "tensor": -1}}, "needs a multiple of 3"),
        ("v5p:4x4x4:3", {"mesh": {"data": 2, "fsdp": -1}, "batch": 192}, "joins 3 slices"),
        ("v5p:4x4x4", {"batch": 32}, "does not divide over 64"),
        ("v5p:4x4x4", {"devices": 32}, "leave one out"),
        (
            "v5p:2x2x1",
            {"model": dataclasses.replace(MODEL, attention_implementation="pallas_gpu_mha")},
            "runs on gpu only",
        ),
    ],
)
def test_impossible_topologies_are_refused_in_one_line(name, options, message):
    with pytest.raises(UserError, match=message) as refusal:
        plan_for(name, **options)
    assert "\n" not in str(refusal.value)


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r requirements-tpu\.txt"):
        plan_for("v5p:2x2x1", compile=True)


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(train_step)/jvp(T)/while/body/layers/feedforward/up/BTD,DF->BTF/dot_general", "layers/feedforward/up"),
        ("jit(train_step)/jvp()/while/body/closed_call/BTD,DV->BTV/dot_general", "lm_head"),
        ("jit(train_step)/jvp(lm_head)/sharding_constraint", "lm_head"),
        ("jit(train_step)/jvp(T)/Transformer._embed/embedder/gather", "embedder"),
        ("", "an operation without a name"),
    ],
)  # fmt: skip
def test_collectives_are_named_after_their_layer(op_name, part):
    assert part_of_model(op_name) == part


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("mesh", [{"data": 1, "fsdp": 4}, {"data": 1, "fsdp": 2, "tensor": 2}])
def test_libtpu_compiles_the_step_with_its_kernel(mesh, capsys):
    model = ModelConfig(4096, 512, 1024, 2, 4, 2, head_dim=128, remat_policy="full", compute_dtype="bfloat16")
    model = dataclasses.replace(model, attention_implementation="tpu_splash")
    figures = plan_for("v5p:2x2x1", mesh, batch=8, model=model, compile=True)
    step, memory = figures["topology"]["step"], figures["memory"]
    exact = memory["parameters"] + memory["optimizer_state"] + memory["batch"]
    assert exact * 0.99 <= step["argument_bytes"] <= exact * 1.05  # padded to tiles
    assert step["flops"]["kernels"] > 0 and 0.1 < step["flops"]["again"] / step["flops"]["products"] < 0.4
    assert any(kind.endswith("fsdp") for kind in step["wire"])
    assert any("tensor" in kind for kind in step["wire"]) == ("tensor" in mesh)
    assert "compiled for it" in capsys.readouterr().out
    with pytest.raises(UserError, match="TPU v5 refuses xla_tpu_no_such=true"):
        unknown = TrainingConfig(256, compiler_options=["xla_tpu_no_such=true"])
        plan_for("v5p:2x2x1", mesh, 8, model, unknown, compile=True)
    with pytest.raises(UserError, match="libtpu describes no topology"):
        plan_for("v5p:3x5x7", {"data": 105}, 105, compile=True)

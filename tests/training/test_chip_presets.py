"""gin_configs/chips: each preset lies over a recipe, is planned by own arithmetic, and compilers know its options."""

import importlib.util

import gin
import jax
import jax.numpy as jnp
import pytest

from apertus_jax import cli, configuration, sharding
from apertus_jax.model.attention import Tiles, attend
from apertus_jax.sharding import use_mesh
from apertus_jax.training.compiled_steps import compiler_options_of
from apertus_jax.training.planning.plan_command import plan
from apertus_jax.training.planning.topology import described_devices, topology_named

PRESETS = sorted(path.stem for path in (configuration.GIN_CONFIGS / "chips").glob("*.gin"))
# What a preset is planned for: TPUs, or so many GPUs of a kind.
TPUS = {"v5e": "v5e:16x16", "v5p": "v5p:4x8x8", "v6e": "v6e:16x16", "ironwood": "tpu7x:4x4x4"}
GPUS = {"h100": 256, "gh200": 256}
PIECES = {"v5e": 2}  # the batch is computed in, where the preset says so


@pytest.fixture
def arguments(tmp_path):
    """What `plan` is called with under the 8B recipe and a preset after it, as docs/scale.md includes it."""

    def build(preset, *flags):
        configuration.register(cli.locations())
        mine = tmp_path / "mine.gin"
        mine.write_text(f"include 'apertus_8b.gin'\ninclude 'chips/{preset}.gin'\nBatchSchedule.final = 1024\n")
        configuration.parse([str(mine)], list(flags))
        configuration.borrow("pretrain", "plan")
        configuration.refer_to_options("plan")
        return configuration.built_arguments("plan")

    yield build
    gin.clear_config()


def test_every_preset_has_its_hardware():
    assert sorted([*TPUS, *GPUS]) == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_planned_by_own_arithmetic(preset, arguments, capsys):
    given = arguments(preset, f"TrainingConfig.accumulation = {PIECES.get(preset, 1)}")
    hardware = {"topology": TPUS[preset]} if preset in TPUS else {"device": preset, "devices": GPUS[preset]}
    figures = plan(**given, **hardware, compile=False)
    assert figures["fits"] and figures["mesh"]["tensor"] == 1, "what the recipe says of the mesh is overridden"
    assert figures["compiler_options"] and figures["attention"] == given["model"].attention_implementation
    if preset in TPUS:
        assert figures["topology"]["warnings"] == []
        assert figures["topology"]["roofline"]["mfu"] > 0.4


@pytest.mark.parametrize("preset", GPUS)
def test_options_for_gpus_are_known_to_xla(preset, arguments):
    options = arguments(preset)["training"].compiler_options
    assert len(compiler_options_of(options, jax.devices()[0])) == len(options)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("preset", TPUS)
def test_libtpu_takes_options_and_tiles(preset, arguments):
    given = arguments(preset)
    model, chip = given["model"], TPUS[preset].partition(":")[0]
    devices = described_devices(topology_named(f"{chip}:2x2x1" if chip in ("v5p", "tpu7x") else f"{chip}:2x2"))
    options = compiler_options_of(given["training"].compiler_options, devices[0])
    config = sharding.MeshConfig(data=len(devices))
    mesh = sharding.make_mesh(config, devices)
    tiles = Tiles(model.attention_tile, model.attention_fused_backward)

    def loss(query, key, value, segments):
        context = attend(query, key, value, segment_ids=segments, implementation="tpu_splash", tiles=tiles)
        return context.astype(jnp.float32).sum()

    heads = [
        jax.ShapeDtypeStruct((len(devices), 4096, count, 128), jnp.bfloat16, sharding=sharding.batch_sharding(mesh))
        for count in (4, 1, 1)
    ]
    segments = jax.ShapeDtypeStruct((len(devices), 4096), jnp.int32, sharding=sharding.batch_sharding(mesh))
    with use_mesh(mesh, config.axis_rules("tpu")):
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*heads, segments).compile(compiler_options=options)
    assert ("splash_mha_dq" in compiled.as_text()) is not tiles.fused_backward

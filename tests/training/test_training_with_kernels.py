"""The program of a run with each fused kernel, interpreted: two steps as with the plain attention, on every mesh."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from apertus_jax import sharding
from apertus_jax.model import ModelConfig
from apertus_jax.model import attention as attention_module
from apertus_jax.objectives import goldfish, not_after_eod
from apertus_jax.optimization import ademamix, optimizer_chain, wsd_schedule
from apertus_jax.training.program import Program
from apertus_jax.training.train_step import Objective

LENGTH = 128  # the shortest that every kernel takes
MODEL = ModelConfig(512, 64, 128, 2, 4, 2)
OBJECTIVE = Objective([goldfish(k=4, h=8), not_after_eod(2)], num_tiles=2)
KERNELS = {"pallas_gpu_mha": "gpu", "tpu_splash": "tpu"}
MESHES = {
    "one device": sharding.MeshConfig(data=1),
    "data 2, fsdp 2, tensor 2": sharding.MeshConfig(data=2, fsdp=2, tensor=2),
}


@pytest.fixture
def interpreted(monkeypatch):
    """The kernels run on CPU under their own names; everything else is as it is where they belong."""
    for name in KERNELS:
        kernel = attention_module.IMPLEMENTATIONS[name]
        function = functools.partial(kernel.function, interpret=True)
        replaced = dataclasses.replace(kernel, function=function, platforms=(), needs_kernel=False)
        monkeypatch.setitem(attention_module.IMPLEMENTATIONS, name, replaced)


def batches():
    """Two batches of random tokens in documents of random lengths."""
    generator = np.random.default_rng(5)
    for _ in range(2):
        segments = np.cumsum(generator.random((8, LENGTH)) < 0.03, axis=1).astype(np.int32)
        starts = np.maximum.accumulate(np.where(np.diff(segments, prepend=-1), np.arange(LENGTH), 0), axis=1)
        yield {
            "tokens": generator.integers(0, 512, (8, LENGTH + 1)).astype(np.int32),
            "segment_ids": segments,
            "positions": (np.arange(LENGTH) - starts).astype(np.int32),
            "left_context": np.full((8, OBJECTIVE.left_context), -1, np.int32),
            "document_keys": segments.astype(np.uint32),
            "loss_weights": np.ones((8, LENGTH), np.float32),
        }


def trained(attention, config, platform):
    """Returns losses, gradient norms and parameters of two steps on a mesh, under the table of a platform."""
    devices = jax.devices()[:1] if config.data == 1 else None
    program = Program(
        config=dataclasses.replace(MODEL, attention_implementation=attention),
        optimizer=optimizer_chain(ademamix(wsd_schedule(1e-3, 80, 400, 100)), 0.1),
        objective=OBJECTIVE,
        accumulation=1,
        sequence_length=LENGTH,
        mesh=sharding.make_mesh(config, devices),
        rules=config.axis_rules(platform),
    )
    state, found = program.initial_state(seed=1), []
    for batch in batches():
        state, metrics = program.step(state, jax.device_put(batch, program.batch_sharding))
        found.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
    return np.array(found), jax.device_get(state.params)


@pytest.fixture(scope="module")
def oracle():
    """The same two steps with the plain attention on one device."""
    return trained("xla", MESHES["one device"], "cpu")


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_two_steps_with_a_kernel_are_those_of_plain_attention(kernel, mesh, oracle, interpreted):
    metrics, params = trained(kernel, MESHES[mesh], KERNELS[kernel])
    np.testing.assert_allclose(metrics, oracle[0], rtol=1e-5)
    for (path, leaf), expected in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(oracle[1]), strict=True
    ):
        np.testing.assert_allclose(leaf, expected, atol=2e-5, err_msg=jax.tree_util.keystr(path))

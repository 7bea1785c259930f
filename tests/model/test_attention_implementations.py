"""Every attention implementation against the plain one, which is itself checked against brute force."""

import dataclasses
import functools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer, attend
from apertus_jax.model import attention as attention_module
from apertus_jax.model.attention_blockwise import blockwise_attention
from apertus_jax.model.attention_kernels import Tiles
from apertus_jax.model.remat import remat_options
from apertus_jax.sharding import PRESETS, MeshConfig, make_mesh, use_mesh
from tests.sharding.fake_devices import tpu_devices


def random_heads(length, num_heads, num_kv_heads, head_dim, batch=2, dtype=jnp.float32):
    rng = np.random.default_rng(length + num_heads)
    shapes = [(batch, length, heads, head_dim) for heads in (num_heads, num_kv_heads, num_kv_heads, num_heads)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def random_segments(length, batch=2, border_rate=0.04):
    borders = np.random.default_rng(length).random((batch, length)) < border_rate
    return jnp.asarray(np.cumsum(borders, axis=1), jnp.int32)


def brute_force(query, key, value, segments):
    """One query and one head at a time, float64."""
    query, key, value = (np.asarray(heads, np.float64) for heads in (query, key, value))
    out = np.zeros_like(query)
    for b, t, n in np.ndindex(query.shape[:3]):
        kv_head = n // (query.shape[2] // key.shape[2])
        seen = [s for s in range(t + 1) if segments is None or segments[b, s] == segments[b, t]]
        scores = key[b, seen, kv_head] @ query[b, t, n] / np.sqrt(query.shape[3])
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights @ value[b, seen, kv_head] / weights.sum()
    return out


def values_and_gradients(attention, query, key, value, upstream):
    @jax.jit
    def run(query, key, value):
        context, backward = jax.vjp(attention, query, key, value)
        return context, *backward(upstream)

    return run(query, key, value)


def assert_close(ours, theirs, tolerance):
    for our, their in zip(ours, theirs, strict=True):
        assert np.max(np.abs(our - their)) <= tolerance * np.max(np.abs(their))


@pytest.mark.parametrize("packed", [False, True])
def test_plain_attention_equals_brute_force(packed):
    query, key, value, _ = random_heads(37, 6, 2, 8)
    segments = random_segments(37, border_rate=0.2) if packed else None
    context = attend(query, key, value, segment_ids=segments)
    np.testing.assert_allclose(context, brute_force(query, key, value, segments), atol=2e-6)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length, block", [(300, 64), (128, 128), (5, 128), (33, 32)])
def test_blockwise_equals_plain_with_gradients(length, block, packed):
    query, key, value, upstream = random_heads(length, 4, 2, 16)
    segments = random_segments(length) if packed else None
    ours = values_and_gradients(
        lambda *heads: blockwise_attention(*heads, segments, block=block), query, key, value, upstream
    )
    theirs = values_and_gradients(lambda *heads: attend(*heads, segment_ids=segments), query, key, value, upstream)
    assert_close(ours, theirs, 2e-6)


@pytest.mark.parametrize(
    "name, length, head_dim", [("pallas_gpu_mha", 64, 16), ("pallas_gpu_mha", 96, 32), ("tpu_splash", 256, 32)]
)
def test_kernel_in_interpret_mode_equals_plain_with_gradients(name, length, head_dim):
    query, key, value, upstream = random_heads(length, 2, 1, head_dim, batch=1)
    segments = random_segments(length, batch=1)
    ours = values_and_gradients(
        lambda *heads: attend(*heads, segment_ids=segments, implementation=name, interpret=True),
        query,
        key,
        value,
        upstream,
    )
    theirs = values_and_gradients(lambda *heads: attend(*heads, segment_ids=segments), query, key, value, upstream)
    assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize("tiles", [Tiles(128), Tiles(256, fused_backward=True), Tiles(128, fused_backward=True)])
def test_splash_in_any_tiles_equals_plain_with_gradients(tiles):
    query, key, value, upstream = random_heads(256, 2, 1, 32, batch=1)
    segments = random_segments(256, batch=1)
    splash = functools.partial(attend, implementation="tpu_splash", interpret=True, tiles=tiles)
    ours = values_and_gradients(lambda *heads: splash(*heads, segment_ids=segments), *(query, key, value), upstream)
    theirs = values_and_gradients(lambda *heads: attend(*heads, segment_ids=segments), query, key, value, upstream)
    assert_close(ours, theirs, 1e-5)
    kernels = str(jax.make_jaxpr(jax.grad(lambda q: splash(q, key, value).sum()))(query))
    assert ("splash_mha_dq" in kernels) is not tiles.fused_backward


def kernels_of(jaxpr):
    """Yields the name of each call of a kernel, wherever it stands; what nobody reads the compiler leaves out."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation.params["name"]
        elif equation.outvars:
            for inner in jaxprs_in_params(equation.params):
                yield from kernels_of(inner)


@pytest.mark.parametrize("policy, runs", [("full", 2), ("save_attention", 1), ("dots", 1)])
def test_a_policy_that_keeps_results_runs_the_kernel_once(policy, runs):
    query, key, value, _ = random_heads(128, 2, 1, 32, batch=1)
    splash = functools.partial(attend, implementation="tpu_splash", interpret=True)
    attention = jax.checkpoint(lambda *heads: jnp.sin(splash(*heads)).sum(), **remat_options(policy))
    kernels = list(kernels_of(jax.make_jaxpr(jax.grad(attention, (0, 1, 2)))(query, key, value).jaxpr))
    assert sum("fwd" in name for name in kernels) == runs and sum("dkv" in name for name in kernels) == 1


def test_kernel_runs_per_shard_of_a_mesh():
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rules = (("activation_batch", "data"), ("activation_heads", "tensor"), ("activation_kv_heads", "tensor"))
    query, key, value, _ = random_heads(32, 4, 2, 16)
    segments = random_segments(32)
    expected = attend(query, key, value, segment_ids=segments)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        sharded = jax.jit(
            lambda *heads: attend(*heads, segment_ids=segments, implementation="pallas_gpu_mha", interpret=True)
        )(query, key, value)
        np.testing.assert_allclose(sharded, expected, atol=1e-5)
        with (
            nn.logical_axis_rules((("activation_length", "data"),)),
            pytest.raises(UserError, match="activation_length is split"),
        ):
            attend(query, key, value, implementation="pallas_gpu_mha", interpret=True)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["pallas_gpu_mha", "tpu_splash"])
def test_kernels_take_every_preset_table(name, preset):
    config = MeshConfig(data=2, fsdp=2, tensor=2, rules=preset)
    query, key, value, _ = random_heads(128, 4, 2, 16, batch=4)
    attention = functools.partial(attend, implementation=name, interpret=True)
    with use_mesh(make_mesh(config), config.axis_rules()):
        assert jax.eval_shape(attention, query, key, value).shape == query.shape


def test_kernel_whose_heads_are_apart_from_their_keys_is_refused():
    config = MeshConfig(tensor=2, rule_overrides=[("activation_kv_heads", None)])
    query, key, value, _ = random_heads(128, 4, 2, 16, batch=4)
    with (
        use_mesh(make_mesh(config), config.axis_rules()),
        pytest.raises(UserError, match="activation_heads is split over .*tensor.* and activation_kv_heads over None"),
    ):
        attend(query, key, value, implementation="tpu_splash", interpret=True)


def test_kernels_are_asked_for_by_the_platform_of_the_mesh():
    mesh = make_mesh(MeshConfig(), tpu_devices("v5p:2x2x1"))
    query, key, value, _ = random_heads(128, 2, 1, 16, batch=4)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        attention = functools.partial(attend, implementation="tpu_splash")
        assert jax.eval_shape(attention, query, key, value).shape == query.shape
        with pytest.raises(UserError, match="'pallas_gpu_mha' runs on gpu only and this is tpu"):
            attend(query, key, value, implementation="pallas_gpu_mha")


def test_blockwise_memory_does_not_grow_with_the_squared_length():
    def temporary_bytes(implementation, length):
        heads = [jax.ShapeDtypeStruct((1, length, n, 16), jnp.float32) for n in (2, 1, 1)]
        segments = jax.ShapeDtypeStruct((1, length), jnp.int32)

        def gradients(query, key, value, segments):
            def total(*heads):
                return attend(*heads, segment_ids=segments, implementation=implementation).sum()

            return jax.grad(total, argnums=(0, 1, 2))(query, key, value)

        return jax.jit(gradients).lower(*heads, segments).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes("xla_blockwise", 8192) < 5 * temporary_bytes("xla_blockwise", 2048)
    assert temporary_bytes("xla", 8192) > 12 * temporary_bytes("xla", 2048)


def test_blockwise_visits_only_blocks_that_can_be_attended():
    query, key, value, upstream = random_heads(96, 2, 1, 8, batch=1)
    segments = jnp.asarray(np.repeat([0, 1, 1], 32))[None]

    def attention(*heads):
        return blockwise_attention(*heads, segments, block=32)

    # A visited block would spread NaN, since 0 * NaN is NaN.
    poisoned = value.at[:, :32].set(jnp.nan).at[:, 64:].set(jnp.nan)
    context, for_query, for_key, _ = values_and_gradients(
        attention, query, key, poisoned, upstream.at[:, :32].set(0).at[:, 64:].set(0)
    )
    clean = values_and_gradients(attention, query, key, value, upstream)
    np.testing.assert_array_equal(context[:, 32:64], clean[0][:, 32:64])
    np.testing.assert_array_equal(for_query[:, 32:64], clean[1][:, 32:64])


@pytest.mark.parametrize("name, backend", [("pallas_gpu_mha", "gpu"), ("tpu_splash", "tpu")])
def test_implementation_that_cannot_run_here_is_refused(name, backend):
    query, key, value, _ = random_heads(128, 2, 1, 16, batch=1)
    with pytest.raises(UserError, match=f"'{name}' runs on {backend} only and this is cpu"):
        attend(query, key, value, implementation=name)


def test_unknown_names_and_odd_lengths_are_refused():
    query, key, value, _ = random_heads(100, 2, 1, 16, batch=1)
    with pytest.raises(UserError, match="flash"):
        attend(query, key, value, implementation="flash")
    with pytest.raises(UserError, match="flash"):
        ModelConfig(8, 8, 8, 1, 1, 1, attention_implementation="flash")
    for name in ("pallas_gpu_mha", "tpu_splash"):
        with pytest.raises(UserError, match="multiple of"):
            attend(query, key, value, implementation=name, interpret=True)


def test_chosen_implementation_is_logged_once(caplog):
    attention_module._log_once.cache_clear()
    config = ModelConfig(16, 8, 8, 2, 2, 1, attention_implementation="xla_blockwise")
    tokens = jnp.zeros((1, 4), jnp.int32)
    with caplog.at_level(logging.INFO, logger="apertus_jax.model"):
        for unroll in (1, 2):
            model = Transformer(dataclasses.replace(config, scan_unroll=unroll))
            jax.eval_shape(model.init, jax.random.key(0), tokens)
    assert [record.getMessage() for record in caplog.records] == ["attention implementation: xla_blockwise on cpu"]

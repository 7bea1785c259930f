"""Remat policies, unrolling, compute dtype, and meshes change how the model is computed, not what."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.model import ModelConfig, Transformer, abstract_parameters, init_parameters
from apertus_jax.model.config import REMAT_POLICIES

CONFIG = ModelConfig(
    vocab_size=32,
    hidden_size=32,
    intermediate_size=48,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    init_std=0.1,
    attention_implementation="xla_blockwise",
)
TOKENS = np.random.default_rng(0).integers(0, 32, (4, 24)).astype(np.int32)


@pytest.fixture(scope="module")
def params():
    return init_parameters(CONFIG, jax.random.key(0))


def loss_and_gradients(config):
    def loss(params, tokens):
        return jnp.mean(Transformer(config).apply({"params": params}, tokens) ** 2)

    return jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module")
def expected(params):
    return loss_and_gradients(CONFIG)(params, TOKENS)


def assert_same(ours, theirs, tolerance=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * np.max(np.abs(b))), ours, theirs)


@pytest.mark.parametrize("change", [dict(remat_policy=name) for name in REMAT_POLICIES[1:]] + [dict(scan_unroll=4)])
def test_remat_and_unrolling_do_not_change_gradients(params, expected, change):
    assert_same(loss_and_gradients(dataclasses.replace(CONFIG, **change))(params, TOKENS), expected)


def test_remat_policies_keep_what_their_names_say():
    def saved(policy, implementation="xla_blockwise"):
        config = dataclasses.replace(CONFIG, remat_policy=policy, attention_implementation=implementation)
        shapes = nn.unbox(abstract_parameters(config))
        _, backward = jax.eval_shape(
            lambda params: jax.vjp(lambda p: Transformer(config).apply({"params": p}, TOKENS), params), shapes
        )
        return sorted(leaf.shape for leaf in jax.tree.leaves(backward) if leaf.shape[:1] == (4,) and leaf.size > 3000)

    def attention_saved(shapes):
        return any(shape == (4, 1, 4, 2, 48, 8) for shape in shapes)  # [L,n,B,K,X,H]

    def feedforward_saved(shapes):
        return any(shape == (4, 4, 24, 48) for shape in shapes)  # [L,B,T,F]

    full, dots, attention, none = (saved(policy) for policy in ("full", "dots", "save_attention", "none"))
    assert attention_saved(attention) and attention_saved(none) and not attention_saved(full)
    assert feedforward_saved(dots) and feedforward_saved(none)
    assert not feedforward_saved(attention) and not feedforward_saved(full)


def test_bfloat16_compute_is_near_float32_with_float32_logits(params):
    model = Transformer(dataclasses.replace(CONFIG, compute_dtype="bfloat16"))

    @jax.jit
    def run(params, tokens):
        def loss(params):
            logits = model.apply({"params": params}, tokens)
            return jnp.mean(logits**2), logits

        exact = Transformer(CONFIG).apply({"params": params}, tokens)
        return exact, jax.grad(loss, has_aux=True)(params)

    exact, (gradients, logits) = run(params, TOKENS)
    hidden = jax.eval_shape(lambda p, t: model.apply({"params": p}, t, method="hidden_states"), params, TOKENS)
    assert logits.dtype == jnp.float32 and hidden.dtype == jnp.bfloat16
    assert np.max(np.abs(logits - exact)) < 0.05 * np.max(np.abs(exact))
    assert all(leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_logits_are_hidden_states_times_the_output_head(params):
    @jax.jit
    def both(params, tokens):
        model = Transformer(CONFIG)
        hidden = model.apply({"params": params}, tokens, method="hidden_states")
        return hidden, model.apply({"params": params}, tokens)

    hidden, logits = both(params, TOKENS)
    np.testing.assert_allclose(hidden @ params["lm_head"]["kernel"], logits, atol=1e-5)


@pytest.mark.parametrize("length_axis", [None, "context"])
def test_the_same_program_runs_on_a_mesh(params, expected, length_axis):
    mesh = jax.make_mesh((2, 2, 2), ("data", "tensor", "context"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rules = (
        ("activation_batch", "data"),
        ("activation_length", length_axis),
        ("activation_heads", "tensor"),
        ("activation_kv_heads", "tensor"),
        ("activation_mlp", "tensor"),
        ("activation_vocab", "tensor"),
        ("activation_embed", None),
        ("vocab", "tensor"),
        ("embed", None),
        ("heads", "tensor"),
        ("kv_heads", "tensor"),
        ("mlp", "tensor"),
        ("head_dim", None),
        ("layers", None),
        ("norm", None),
    )
    specs = nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract_parameters(CONFIG)), mesh, rules)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        step = loss_and_gradients(CONFIG)
        sharded = jax.device_put(params, specs)
        ours = step(sharded, TOKENS)
        hlo = step.lower(sharded, TOKENS).as_text()
    assert_same(ours, expected)
    assert "sharding_constraint" in hlo

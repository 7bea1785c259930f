"""AdamW equals optax's and torch's; clipping is Megatron's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from apertus_jax.errors import UserError
from apertus_jax.optimization import adamw, clip_by_global_norm, global_norm, optimizer_chain
from apertus_jax.optimization.chain import make_optimizer


def train(transform, start, gradients):
    params, state, update = start, transform.init(start), jax.jit(transform.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(20, 6, 5)).astype(np.float32)


def test_adamw_equals_optax(problem):
    start, gradients = problem
    ours = train(adamw(3e-3, 0.9, 0.95, 1e-8, 0.1), jnp.asarray(start), gradients)
    theirs = train(optax.adamw(3e-3, 0.9, 0.95, 1e-8, weight_decay=0.1), jnp.asarray(start), gradients)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_adamw_equals_torch(problem):
    start, gradients = problem
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([parameter], lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    ours = train(adamw(3e-3, 0.9, 0.95, 1e-8, 0.1), jnp.asarray(start), gradients)
    np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clipping_is_megatron_s(scale):
    rng = np.random.default_rng(1)
    gradients = {"kernel": rng.normal(size=(7, 3)).astype(np.float32) * scale, "alpha_p": np.float32(scale)}
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in gradients.values()))
    np.testing.assert_allclose(global_norm(gradients), norm, rtol=1e-6)
    factor = min(0.1 / (norm + 1e-6), 1.0)
    clip = clip_by_global_norm(0.1)
    clipped, _ = clip.update(gradients, clip.init(gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b * factor, rtol=1e-6), clipped, gradients)


def test_norm_of_bfloat16_gradients_is_taken_in_float32():
    gradients = jnp.full(70_000, 0.01, jnp.bfloat16)
    np.testing.assert_allclose(global_norm(gradients), float(jnp.bfloat16(0.01)) * 70_000**0.5, rtol=1e-5)
    clip = clip_by_global_norm(1.0)
    assert clip.update(gradients, clip.init(gradients))[0].dtype == jnp.bfloat16


def test_chain_clips_before_the_optimizer(problem):
    start, gradients = problem
    chained = train(optimizer_chain(adamw(3e-3), 0.1), jnp.asarray(start), gradients)
    norms = np.sqrt((gradients.astype(np.float64) ** 2).sum(axis=(1, 2), keepdims=True))
    clipped = (gradients * np.minimum(0.1 / (norms + 1e-6), 1)).astype(np.float32)
    np.testing.assert_allclose(chained, train(adamw(3e-3), jnp.asarray(start), clipped), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_bad_clip_norm_is_named(clip_norm):
    with pytest.raises(UserError, match="clip_norm"):
        optimizer_chain(adamw(1e-3), clip_norm)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (
            lambda learning_rate: optax.sgd(learning_rate),
            r"cannot be called with learning_rate and mask \(got",
        ),
        (lambda learning_rate, mask, beta: optax.sgd(beta), "missing a required argument: 'beta'"),
        (lambda learning_rate, mask: 3, r"gives 3; it must give an optax.GradientTransformation"),
    ],
)
def test_what_makes_no_optimizer_is_one_line(factory, told):
    with pytest.raises(UserError, match=told):
        make_optimizer(factory, 1e-3)
    assert make_optimizer(adamw, 1e-3).update

"""RMSNorm against transformers' module in both compute dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers.models.apertus.modeling_apertus import ApertusRMSNorm

from apertus_jax.model.norm import rms_norm


def peer(scale, dtype):
    module = ApertusRMSNorm(len(scale), eps=1e-5).to(dtype)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(scale))
    return module


def test_values_and_gradients_equal_transformers():
    rng = np.random.default_rng(0)
    x, upstream = (rng.normal(size=(3, 5, 48)).astype(np.float32) for _ in range(2))
    scale = (1 + 0.1 * rng.normal(size=48)).astype(np.float32)
    module, inputs = peer(scale, torch.float32), torch.tensor(x, requires_grad=True)
    expected = module(inputs)
    expected.backward(torch.tensor(upstream))
    y, backward = jax.vjp(lambda x, scale: rms_norm(x, scale, 1e-5), x, scale)
    for_x, for_scale = backward(jnp.asarray(upstream))
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(for_x, inputs.grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(for_scale, module.weight.grad, rtol=1e-5, atol=1e-6)


def test_bfloat16_rounds_in_the_order_of_transformers():
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(200, 64)) * 3).to(torch.bfloat16)
    scale = torch.tensor(1 + 0.3 * rng.normal(size=64)).to(torch.bfloat16)
    expected = peer(scale.float().numpy(), torch.bfloat16)(x).float().detach().numpy()
    ours = jax.jit(lambda x, scale: rms_norm(x, scale, 1e-5))(
        jnp.asarray(x.float().numpy(), jnp.bfloat16), jnp.asarray(scale.float().numpy())
    )
    assert ours.dtype == jnp.bfloat16
    # The mean may differ by one float32 step and so, rarely, flip a tie; another order of rounding moves far more.
    assert np.mean(np.asarray(ours, np.float32) != expected) < 0.002

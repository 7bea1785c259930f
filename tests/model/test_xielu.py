"""xIELU against the published table, torch's autograd in float64, and its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from apertus_jax.model.xielu import raw_alphas, xielu

# docs/reference/model_and_training.md §2.2, alpha_p = alpha_n = 0.8.
POINTS = np.array([-8, -2, -1, -0.25, 0, 0.25, 1, 2, 8], np.float32)
VALUES = [1.6002688, -0.091731846, -0.20569643, -0.10195937, -7.9999967e-07, 0.175, 1.3, 4.2, 55.2]
SLOPES = [-0.29973164, -0.1917318, -0.0056964457, 0.3230406, -0.3, 0.9, 2.1, 3.7, 13.3]
RAW_P, RAW_N = raw_alphas(0.8, 0.8, 0.5)


@jax.jit
def gradients(x, upstream, raw_p=RAW_P, raw_n=RAW_N):
    """→ y, dx, d raw_alpha_p, d raw_alpha_n."""
    y, backward = jax.vjp(xielu, x, jnp.float32(raw_p), jnp.float32(raw_n))
    return y, *backward(upstream)


def reference(x, upstream, raw_p=RAW_P, raw_n=RAW_N):
    """The definition in torch, float64, with autograd."""
    x, raw_p, raw_n = (torch.tensor(np.asarray(v, np.float64), requires_grad=True) for v in (x, raw_p, raw_n))
    alpha_p, alpha_n = torch.nn.functional.softplus(raw_p), 0.5 + torch.nn.functional.softplus(raw_n)
    epsilon = torch.tensor(float(np.float32(-1e-6)), dtype=torch.float64)
    negative = alpha_n * (torch.expm1(torch.minimum(x, epsilon)) - x)
    y = torch.where(x > 0, alpha_p * x * x, negative) + 0.5 * x
    y.backward(torch.tensor(np.asarray(upstream, np.float64)))
    return tuple(v.detach().numpy() for v in (y, x.grad, raw_p.grad, raw_n.grad))


def test_raw_scalars_are_the_published_initial_values():
    assert pytest.approx(0.2033823208110246, abs=1e-15) == RAW_P
    assert pytest.approx(-1.0502256128148464, abs=1e-15) == RAW_N


def test_values_slopes_and_gradients_are_the_published_table():
    y, dx, for_p, for_n = gradients(jnp.asarray(POINTS), jnp.ones(9))
    np.testing.assert_allclose(y, VALUES, rtol=5e-7)
    np.testing.assert_allclose(dx, SLOPES, rtol=1e-6, atol=6e-8)
    assert float(for_p) == pytest.approx(38.0307, abs=1e-4)
    assert float(for_n) == pytest.approx(2.2114, abs=1e-4)


@pytest.mark.parametrize(
    "x, slope",
    [(0.0, -0.3), (-0.0, -0.3), (-5e-7, -0.3), (-9.9e-7, -0.3), (-1.1e-6, 0.5), (-1e-5, 0.5), (1e-12, 0.5)],
)
def test_slope_at_the_corner(x, slope):
    assert float(gradients(jnp.float32([x]), jnp.ones(1))[1][0]) == pytest.approx(slope, abs=1e-4)


def test_gradients_equal_float64_autograd():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 300)) * 2).astype(np.float32)
    x[0, :50] = 0
    upstream = rng.normal(size=x.shape).astype(np.float32)
    for ours, theirs in zip(gradients(x, upstream, 0.3, -0.7), reference(x, upstream, 0.3, -0.7), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6 * np.max(np.abs(theirs)))


def test_large_inputs_give_no_nan():
    y, dx, for_p, for_n = gradients(jnp.float32([1e4, 1e15, -1e4, -1e15]), jnp.ones(4))
    assert np.all(np.isfinite(y)) and np.all(np.isfinite(dx)) and np.isfinite(for_p) and np.isfinite(for_n)


def test_scalar_gradients_over_a_million_inputs_lose_no_digits():
    x = np.random.default_rng(1).normal(size=(1000, 1000)).astype(np.float32)
    _, _, for_p, for_n = gradients(x, np.ones_like(x))
    _, _, exact_p, exact_n = reference(x, np.ones_like(x))
    assert float(for_p) == pytest.approx(float(exact_p), rel=2e-6)
    assert float(for_n) == pytest.approx(float(exact_n), rel=2e-6)


def bfloat16(values):
    return jnp.asarray(values, jnp.float32).astype(jnp.bfloat16)


def test_bfloat16_is_rounded_once():
    x = bfloat16(np.random.default_rng(2).normal(size=20_000) * 3)
    y, dx, _, _ = gradients(x, jnp.ones_like(x))
    exact_y, exact_dx, _, _ = reference(np.asarray(x, np.float64), np.ones(x.shape))
    assert y.dtype == dx.dtype == jnp.bfloat16
    for ours, exact in ((y, exact_y), (dx, exact_dx)):
        # Half a step of bfloat16 is 2^-9 of the leading power of two; float32 work adds a little near ties.
        half_step = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), 1e-30))) - 8)
        assert np.all(np.abs(np.asarray(ours, np.float64) - exact) <= half_step * 1.001 + 1e-7)


def test_bfloat16_gradient_of_alpha_n_near_zero_does_not_cancel():
    x = bfloat16(-np.random.default_rng(3).random(50_000) * 0.02)
    for_n = gradients(x, jnp.ones_like(x))[3]
    exact = reference(np.asarray(x, np.float64), np.ones(x.shape))[3]
    assert for_n.dtype == jnp.float32
    assert float(for_n) == pytest.approx(float(exact), rel=1e-4)

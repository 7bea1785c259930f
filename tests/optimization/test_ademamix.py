"""AdEMAMix is the training fork's: its vectors, its warm-ups, its decay; and it stays right in bfloat16."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from apertus_jax.errors import UserError
from apertus_jax.optimization import ademamix, weight_decay_mask
from apertus_jax.optimization.ademamix import alpha_at, one_minus_b3_at

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "ademamix.npz")


@pytest.mark.parametrize("case", [0, 1])
def test_ademamix_matches_the_training_fork(case):
    config = ast.literal_eval(GOLDEN[f"{case}_config"].item())
    transform = ademamix(
        config["lr"],
        *config["betas"],
        alpha=config["alpha"],
        eps=config["eps"],
        weight_decay=config["weight_decay"],
        alpha_warmup_steps=config.get("alpha_warmup"),
        b3_warmup_steps=config.get("beta3_warmup"),
    )
    params = jnp.asarray(GOLDEN[f"{case}_p0"])
    state, update = transform.init(params), jax.jit(transform.update)
    for gradient, expected in zip(GOLDEN[f"{case}_grads"], GOLDEN[f"{case}_params"], strict=True):
        before = params
        updates, state = update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(before, updates)
        assert np.abs(params - expected).max() <= 1e-6 * np.abs(expected).max()
        # The step itself, up to the rounding of the parameter that carried it.
        step, rounding = expected - before, 2**-23 * np.abs(expected).max()
        assert np.abs(updates - step).max() <= 1e-6 * np.abs(step).max() + 2 * rounding


def test_warmups_count_from_one_as_the_specification_s_example():
    transform = ademamix(1e-2, alpha_warmup_steps=10, b3_warmup_steps=10)
    params = jnp.array([1.0, -2.0, 0.5])
    state = transform.init(params)
    seen = {}
    for step in range(1, 13):
        updates, state = transform.update(step * jnp.array([0.1, -0.2, 0.3]), state, params)
        params = optax.apply_updates(params, updates)
        seen[step] = params
    np.testing.assert_allclose(seen[1], [0.98899207, -1.98799207, 0.48949207], rtol=1e-6)
    np.testing.assert_allclose(seen[2], [0.97833116, -1.97633216, 0.47933066], rtol=1e-6)
    np.testing.assert_allclose(seen[12], [0.86848695, -1.85655273, 0.37445406], rtol=1e-6)


@pytest.mark.parametrize(
    "step, alpha, b3",
    [
        (1, 0.00008, 0.9009883313),
        (10, 0.0008, 0.9090765770),
        (100, 0.008, 0.9499662489),
        (1000, 0.08, 0.9909009906),
        (10_000, 0.8, 0.9990090103),
        (50_000, 4.0, 0.9998002196),
        (99_999, 7.99992, 0.9999000090),
        (100_000, 8.0, 0.9999),
        (250_000, 8.0, 0.9999),
    ],
)
def test_warmup_schedules_have_the_specification_s_values(step, alpha, b3):
    np.testing.assert_allclose(alpha_at(step, 8.0, 100_000), alpha, rtol=1e-6)
    # The table has ten digits of β3, which is 1e-10 of 1 - β3.
    np.testing.assert_allclose(one_minus_b3_at(step, 0.9, 0.9999, 100_000), 1 - b3, rtol=1e-6, atol=1e-10)


def test_ademamix_equals_optax_with_shifted_schedules():
    """optax evaluates its schedules before it counts the step, hence the + 1.

    Source: docs/reference/model_and_training.md §6.1.
    """
    ours = ademamix(3e-3, 0.9, 0.99, 0.999, alpha=5.0, weight_decay=0.1, alpha_warmup_steps=8, b3_warmup_steps=12)
    theirs = optax.contrib.ademamix(
        3e-3,
        b1=0.9,
        b2=0.99,
        b3=lambda count: 1 - one_minus_b3_at(count + 1, 0.9, 0.999, 12),
        alpha=lambda count: alpha_at(count + 1, 5.0, 8),
        weight_decay=0.1,
    )
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), "alpha_p": jnp.float32(0.3)}
    states = [ours.init(params), theirs.init(params)]
    trees = [params, params]
    updates = [jax.jit(ours.update), jax.jit(theirs.update)]
    for _ in range(15):
        gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
        for which in range(2):
            change, states[which] = updates[which](gradient, states[which], trees[which])
            trees[which] = optax.apply_updates(trees[which], change)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-7), *trees)


def test_decay_falls_on_matrices_and_embeddings_by_name():
    params = {
        "embedder": {"embedding": jnp.ones((4, 2))},
        "layers": {"attention_norm": {"scale": jnp.ones((3, 2))}, "xielu": {"alpha_p": jnp.ones(3)}},
        "lm_head": {"kernel": jnp.ones((2, 4))},
    }
    mask = weight_decay_mask(params)
    assert mask["embedder"]["embedding"] and mask["lm_head"]["kernel"]
    assert not mask["layers"]["attention_norm"]["scale"] and not mask["layers"]["xielu"]["alpha_p"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    for given in (weight_decay_mask, mask):
        transform = ademamix(0.5, weight_decay=0.1, mask=given)
        updates, _ = transform.update(zeros, transform.init(params), params)
        expected = jax.tree.map(lambda decays: -0.05 if decays else 0.0, mask)
        jax.tree.map(lambda update, value: np.testing.assert_allclose(update, value, rtol=1e-6), updates, expected)


def test_slow_average_in_bfloat16_forgets_as_in_float32():
    """A token that is seen once: with plain rounding its slow average would never shrink and the update explode."""
    transforms = [ademamix(1.0, weight_decay=0.0, moment_dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32)]
    params, zeros = jnp.zeros(4096), jnp.zeros(4096)

    def after_silence(transform):
        _, state = transform.update(jnp.linspace(0.5, 1.5, 4096), transform.init(params), params)
        body = lambda _, state: transform.update(zeros, state, params)[1]  # noqa: E731
        return jax.jit(lambda state: jax.lax.fori_loop(0, 2000, body, state))(state)

    low, full = (after_silence(transform) for transform in transforms)
    assert low.m2.dtype == jnp.bfloat16
    ratio = np.asarray(low.m2, np.float64) / np.asarray(full.m2, np.float64)
    assert abs(ratio.mean() - 1) < 0.005 and ratio.std() < 0.05
    np.testing.assert_allclose(full.m2.mean(), 1e-4 * 0.9999**2000, rtol=1e-4)


def test_bfloat16_rounding_is_unbiased_and_repeatable():
    transform = ademamix(1.0, b3=0.5, moment_dtype=jnp.bfloat16)
    params, gradient = jnp.zeros(20_000), jnp.full(20_000, 2 * (1 + 2**-8 * 0.25))
    states = [transform.update(gradient, transform.init(params), params)[1] for _ in range(2)]
    np.testing.assert_array_equal(states[0].m2, states[1].m2)
    values = np.asarray(states[0].m2, np.float64)
    assert sorted(set(values)) == [1.0, 1 + 2**-7]
    assert abs((values > 1).mean() - 0.125) < 0.01


@pytest.mark.parametrize("arguments", [{"moment_dtype": jnp.float16}, {"alpha_warmup_steps": -1}])
def test_bad_ademamix_settings_are_named(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        ademamix(1e-3, **arguments)

"""One contract over every transformation: dtypes, structure, jit, sharding, samples, zeros and scalars."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from apertus_jax import optimization
from apertus_jax.configuration.names import CONFIGURABLES
from apertus_jax.errors import UserError
from apertus_jax.optimization import (
    adamw,
    ademamix,
    clip_by_global_norm,
    optimizer_chain,
    sample_count,
    scale_by_learning_rate,
    weight_decay_mask,
    wsd_schedule,
)

SCHEDULE = wsd_schedule(1e-2, warmup_samples=100, total_samples=2**33, decay_samples=2**32)
BF16 = jnp.bfloat16
WARMUPS = {"alpha_warmup_steps": 5, "b3_warmup_steps": 5}

# Every optimizer that gin files may bind is held to the contract without a row of its own.
OPTIMIZERS = [name for name in CONFIGURABLES["apertus_jax.optimization"] if not name.endswith("_schedule")]


def with_defaults(name):
    """Returns what makes an optimizer with its default settings from a learning rate."""
    return lambda lr: getattr(optimization, name)(lr, mask=weight_decay_mask)


# Each makes its transformation from a learning rate.
TRANSFORMS = {
    **{name: with_defaults(name) for name in OPTIMIZERS},
    "ademamix_with_warmups": lambda lr: ademamix(lr, mask=weight_decay_mask, **WARMUPS),
    "ademamix_bfloat16": lambda lr: ademamix(lr, mask=weight_decay_mask, moment_dtype=BF16, **WARMUPS),
    "adamw_bfloat16": lambda lr: adamw(lr, mask=weight_decay_mask, moment_dtype=BF16),
    "chain_ademamix": lambda lr: optimizer_chain(ademamix(lr, mask=weight_decay_mask, **WARMUPS), clip_norm=0.1),
    "chain_adamw": lambda lr: optimizer_chain(adamw(lr, mask=weight_decay_mask), clip_norm=0.1),
    "chain_without_clip": lambda lr: optimizer_chain(ademamix(lr), clip_norm=None),
    "scale_by_learning_rate": scale_by_learning_rate,
    "clip_by_global_norm": lambda lr: optax.with_extra_args_support(clip_by_global_norm(0.1)),
}
RATED = [name for name in TRANSFORMS if name != "clip_by_global_norm"]
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"layers": {"dense": {"kernel": (8, 4)}, "norm": {"scale": (8,)}, "xielu": {"alpha_p": ()}}}
    shapes["embedder"] = {"embedding": (16, 2)}
    is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    return jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape), dtype), shapes, is_leaf=is_shape)


def run(transform, steps, samples=None, params=None, gradients=None):
    params = tree(0) if params is None else params
    state = transform.init(params)

    @jax.jit
    def step(params, state, gradients, samples):
        updates, state = transform.update(gradients, state, params, samples_consumed=samples)
        return optax.apply_updates(params, updates), state, updates

    for number in range(steps):
        gradient = tree(number + 1) if gradients is None else gradients
        params, state, updates = step(params, state, gradient, sample_count(0) if samples is None else samples)
    return params, state, updates


def signature(values):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf), jnp.asarray(leaf).weak_type), values)


@every_transform
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_and_updates_keep_their_dtype_and_shape(name, dtype):
    params, _, updates = run(TRANSFORMS[name](1e-2), 2, params=tree(0, dtype), gradients=tree(1, dtype))
    assert signature(params) == signature(tree(0, dtype)) == signature(updates)


@every_transform
def test_state_keeps_structure_shapes_and_dtypes_under_update(name):
    transform = TRANSFORMS[name](SCHEDULE)
    _, state, _ = run(transform, 2, samples=sample_count(7))
    assert signature(state) == signature(transform.init(tree(0)))


@every_transform
def test_state_shapes_follow_parameters(name):
    state = TRANSFORMS[name](1e-2).init(tree(0))
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree(0))]
    moments = [leaf.shape for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert moments == shapes * (len(moments) // len(shapes))


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if "bfloat16" in name])
def test_bfloat16_moments_stay_and_the_second_is_float32(name):
    _, state, _ = run(TRANSFORMS[name](1e-2), 3)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert dtypes == {jnp.dtype(BF16), jnp.dtype(jnp.float32)}
    second_moment = state.nu if hasattr(state, "nu") else state[0].nu
    assert {leaf.dtype for leaf in jax.tree.leaves(second_moment)} == {jnp.dtype(jnp.float32)}


@every_transform
def test_jit_equals_eager(name):
    transform = TRANSFORMS[name](SCHEDULE)
    params = tree(0)
    updates, _ = transform.update(tree(1), transform.init(params), params, samples_consumed=sample_count(50))
    _, _, jitted = run(transform, 1, samples=sample_count(50))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-9), updates, jitted)


@every_transform
def test_eight_devices_equal_one(name):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))

    def shard(values):
        return jax.tree.map(
            lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P("fsdp") if leaf.ndim else P())), values
        )

    transform = TRANSFORMS[name](1e-2)
    sharded = run(transform, 3, params=shard(tree(0)), gradients=shard(tree(1)))
    single = run(transform, 3, gradients=tree(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), sharded, single)
    kernel = sharded[0]["layers"]["dense"]["kernel"]
    assert kernel.sharding.is_equivalent_to(NamedSharding(mesh, P("fsdp")), 2)


@pytest.mark.parametrize("name", RATED)
def test_learning_rate_depends_on_samples_and_not_on_updates(name):
    """Batch ramps and skipped steps move samples and updates apart: the third update's rate knows the samples alone."""

    def third_updates(learning_rate, all_samples):
        transform = TRANSFORMS[name](learning_rate)
        update = jax.jit(lambda *arguments, samples: transform.update(*arguments, samples_consumed=samples))
        for samples in all_samples:
            state = transform.init(tree(0))
            for number in range(3):
                updates, state = update(tree(number), state, tree(0), samples=sample_count(samples))
            yield updates

    all_samples = (37, 2**32 + 5, 2**33 - 2**31)
    (unit,) = third_updates(1.0, [0])
    for samples, updates in zip(all_samples, third_updates(SCHEDULE, all_samples), strict=True):
        rate = float(SCHEDULE(samples))
        jax.tree.map(lambda a, b, r=rate: np.testing.assert_allclose(a, r * b, rtol=1e-6, atol=1e-9), updates, unit)


@pytest.mark.parametrize("name", RATED)
def test_schedule_without_samples_is_one_clear_error(name):
    transform = TRANSFORMS[name](SCHEDULE)
    with pytest.raises(UserError, match="samples_consumed"):
        transform.update(tree(1), transform.init(tree(0)), tree(0))


@pytest.mark.parametrize("name", RATED)
def test_float_learning_rate_needs_no_samples(name):
    transform = TRANSFORMS[name](1e-2)
    updates, _ = jax.jit(transform.update)(tree(1), transform.init(tree(0)), tree(0))
    _, _, expected = run(transform, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-9), updates, expected)


@every_transform
def test_zero_gradients_move_nothing_but_decay(name):
    zeros = jax.tree.map(jnp.zeros_like, tree(0))
    before = tree(0)
    params, state, _ = run(TRANSFORMS[name](1e-2), 1, gradients=zeros)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))
    decays = any(word in name for word in ("adamw", "ademamix", "chain"))
    shrunk = 1 - 1e-2 * 0.1 if decays else 1
    kernel = params["layers"]["dense"]["kernel"]
    np.testing.assert_allclose(kernel, before["layers"]["dense"]["kernel"] * shrunk, rtol=1e-6)
    if name != "chain_without_clip":
        np.testing.assert_array_equal(params["layers"]["norm"]["scale"], before["layers"]["norm"]["scale"])
        np.testing.assert_array_equal(params["layers"]["xielu"]["alpha_p"], before["layers"]["xielu"]["alpha_p"])


@every_transform
def test_scalar_leaves_move_like_any_other(name):
    params, gradient = {"alpha_p": jnp.float32(0.3)}, {"alpha_p": jnp.float32(0.02)}
    as_vector = jax.tree.map(lambda leaf: leaf[None], (params, gradient))
    scalar, _, _ = run(TRANSFORMS[name](1e-2), 3, params=params, gradients=gradient)
    vector, _, _ = run(TRANSFORMS[name](1e-2), 3, params=as_vector[0], gradients=as_vector[1])
    assert scalar["alpha_p"].shape == () and scalar["alpha_p"] == vector["alpha_p"][0]
    assert scalar["alpha_p"] != params["alpha_p"]

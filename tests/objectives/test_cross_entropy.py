"""Tiled cross-entropy is cross-entropy, without ever holding the logits of the whole batch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from apertus_jax.errors import UserError
from apertus_jax.objectives import cross_entropy, mean_loss, token_losses


def example(batch=4, length=12, width=16, vocabulary=96, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(batch, length, width)).astype(np.float32)
    lm_head = (rng.normal(size=(width, vocabulary)) * 0.3).astype(np.float32)
    labels = rng.integers(0, vocabulary, (batch, length)).astype(np.int32)
    weights = rng.choice([0, 1, 0.5], (batch, length)).astype(np.float32)
    return hidden, lm_head, labels, weights


def tiled_loss(hidden, lm_head, labels, weights, num_tiles=8, batch_shards=1):
    return mean_loss(*cross_entropy(hidden, lm_head, labels, weights, num_tiles, batch_shards))


def full_loss(hidden, lm_head, labels, weights):
    logits = jnp.einsum("BTD,DV->BTV", hidden, lm_head)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * weights).sum() / weights.sum()


def assert_relative(actual, expected, tolerance):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def equations(jaxpr):
    """Every equation of a jaxpr and of the jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("length, num_tiles, shards", [(12, 4, 1), (13, 4, 2), (5, 8, 4), (12, 1, 1)])
def test_tiled_loss_and_gradients_equal_optax(length, num_tiles, shards):
    arguments = example(length=length)
    tiled = jax.jit(jax.value_and_grad(lambda *a: tiled_loss(*a, num_tiles, shards), argnums=(0, 1, 3)))(*arguments)
    full = jax.jit(jax.value_and_grad(full_loss, argnums=(0, 1, 3)))(*arguments)
    jax.tree.map(lambda a, b: assert_relative(a, b, 1e-6), tiled, full)
    assert_relative(jax.jit(lambda *a: tiled_loss(*a, num_tiles))(*arguments), full[0], 1e-6)


def test_token_losses_equal_optax_and_differentiate():
    hidden, lm_head, labels, weights = example(length=13)
    logits = jnp.einsum("BTD,DV->BTV", hidden, lm_head)
    assert_relative(
        token_losses(hidden, lm_head, labels, 4), optax.softmax_cross_entropy_with_integer_labels(logits, labels), 1e-6
    )
    gradient = jax.grad(lambda kernel: (token_losses(hidden, kernel, labels, 4) * weights).sum() / weights.sum())
    assert_relative(gradient(lm_head), jax.grad(full_loss, argnums=1)(hidden, lm_head, labels, weights), 1e-6)


def test_no_array_of_batch_length_vocabulary_exists():
    arguments = example(batch=4, length=64, width=8, vocabulary=512)
    whole = 4 * 64 * 512
    step = jax.value_and_grad(tiled_loss, argnums=(0, 1))
    sizes = [
        variable.aval.size
        for equation in equations(jax.make_jaxpr(step)(*arguments).jaxpr)
        for variable in equation.outvars
        if hasattr(variable.aval, "size")
    ]
    assert whole // 8 <= max(sizes) < whole // 4
    temporary = jax.jit(step).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * whole / 2


def test_training_takes_3_products_over_the_vocabulary_scoring_1():
    def products(function):
        jaxpr = jax.make_jaxpr(function)(*example(width=16)).jaxpr
        return sum(equation.primitive.name == "dot_general" for equation in equations(jaxpr))

    assert products(jax.value_and_grad(tiled_loss, argnums=(0, 1))) == 3
    assert products(tiled_loss) == 1


def test_nothing_left_in_the_loss_gives_zero_and_zero_gradients():
    hidden, lm_head, labels, weights = example()
    loss, gradients = jax.value_and_grad(tiled_loss, argnums=(0, 1))(hidden, lm_head, labels - 1000, weights * 0)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_huge_logits_stay_finite():
    hidden, lm_head, labels, weights = example()
    loss, gradients = jax.value_and_grad(tiled_loss, argnums=(0, 1))(hidden * 1e4, lm_head, labels, weights)
    assert np.isfinite(loss) and all(np.isfinite(gradient).all() for gradient in gradients)


def test_bfloat16_hidden_gives_float32_losses_and_gradients():
    hidden, lm_head, labels, weights = example()
    hidden = hidden.astype(jnp.bfloat16)
    loss, (d_hidden, d_lm_head) = jax.value_and_grad(tiled_loss, argnums=(0, 1))(hidden, lm_head, labels, weights)
    assert (loss.dtype, d_hidden.dtype, d_lm_head.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    rounded = (hidden.astype(jnp.float32), lm_head.astype(jnp.bfloat16).astype(jnp.float32), labels, weights)
    expected, (expected_hidden, expected_lm_head) = jax.value_and_grad(full_loss, argnums=(0, 1))(*rounded)
    assert_relative(loss, expected, 1e-6)
    assert_relative(d_hidden, expected_hidden, 2**-7)
    assert_relative(d_lm_head, expected_lm_head, 2**-8)


@pytest.mark.parametrize(
    "axes, hidden_spec, kernel_spec, shards",
    [
        ({"data": 8}, P("data"), P(), 8),
        ({"data": 2, "tensor": 4}, P("data"), P(None, "tensor"), 2),
        ({"fsdp": 2, "context": 4}, P("fsdp", "context"), P("fsdp"), 2),
    ],
)
def test_sharded_loss_equals_the_single_device_one(axes, hidden_spec, kernel_spec, shards):
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
    arguments = example(batch=8, length=16, width=16, vocabulary=512)
    specs = (hidden_spec, kernel_spec, hidden_spec, hidden_spec)
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    step = jax.value_and_grad(lambda *a: tiled_loss(*a, 4, shards), argnums=(0, 1))
    compiled = (
        jax.jit(step, out_shardings=(NamedSharding(mesh, P()), shardings[:2]))
        .lower(*jax.device_put(arguments, shardings))
        .compile()
    )
    sharded = compiled(*jax.device_put(arguments, shardings))
    jax.tree.map(lambda a, b: assert_relative(a, b, 1e-6), sharded, jax.jit(step)(*arguments))
    gathered = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather", compiled.as_text())
    assert not any(re.fullmatch(r"\d+,\d+,512", shape) for shape in gathered), "logits were gathered"


def test_kernel_gradient_is_reduced_once_and_not_once_per_tile():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = (P("data"), P(), P("data"), P("data"))
    arguments = jax.device_put(example(batch=8, length=16), tuple(NamedSharding(mesh, spec) for spec in specs))

    def is_reduced_in_the_loop(shards):
        step = jax.grad(lambda *a: tiled_loss(*a, 4, shards), argnums=1)
        text = jax.jit(step, out_shardings=NamedSharding(mesh, P())).lower(*arguments).compile().as_text()
        reducing = [
            computation
            for computation in re.split(r"\n(?=\S)", text)
            if re.search(r"16,96\].* all-reduce(-start)?\(", computation)
        ]
        assert len(reducing) == 1
        return not reducing[0].startswith("ENTRY")

    assert not is_reduced_in_the_loop(shards=8)
    assert is_reduced_in_the_loop(shards=1)


def test_batch_shards_that_do_not_divide_the_batch_are_named():
    with pytest.raises(UserError, match="batch_shards=3 does not divide the batch of 4 rows"):
        cross_entropy(*example(), batch_shards=3)

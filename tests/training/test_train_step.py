"""The pure step against plain references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.objectives import not_after_eod
from apertus_jax.optimization import adamw, optimizer_chain, sample_count_to_int, wsd_schedule
from apertus_jax.training import Objective, initialize_state, make_train_step
from apertus_jax.training.train_step import check_microbatches, normalize_weights

MODEL = ModelConfig(64, 32, 48, 2, 4, 2)


def make_batch(rows, seed=0, length=24):
    """Returns a random batch in which a few tokens end documents."""
    tokens = np.random.default_rng(seed).integers(3, 64, (rows, length + 1)).astype(np.int32)
    tokens[:, 7] = 2
    inputs = tokens[:, :-1]
    segments = np.cumsum(np.pad(inputs == 2, ((0, 0), (1, 0)))[:, :-1], axis=1).astype(np.int32)
    starts = np.maximum.accumulate(np.where(np.diff(segments, prepend=-1) != 0, np.arange(length), 0), axis=1)
    return {
        "tokens": jnp.asarray(tokens),
        "segment_ids": jnp.asarray(segments),
        "positions": jnp.asarray((np.arange(length) - starts).astype(np.int32)),
        "left_context": jnp.zeros((rows, 0), jnp.int32),
        "document_keys": jnp.zeros((rows, length), jnp.uint32),
        "loss_weights": jnp.ones((rows, length), jnp.float32),
    }


def plain_losses(params, batch):
    """Cross-entropy of every label from full logits."""
    logits = Transformer(MODEL).apply(
        {"params": params}, batch["tokens"][:, :-1], positions=batch["positions"], segment_ids=batch["segment_ids"]
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["tokens"][:, 1:])


@pytest.fixture(scope="module")
def optimizer():
    return optimizer_chain(adamw(wsd_schedule(1e-2, 8, 64, 16)), 1.0)


@pytest.fixture(scope="module")
def state(optimizer):
    return initialize_state(MODEL, optimizer, jax.random.key(0))


ROWS, AFTER_EOD = 8, not_after_eod(2)
OBJECTIVES = {
    "global": Objective([AFTER_EOD], num_tiles=3),
    "microbatch": Objective([AFTER_EOD], "microbatch", microbatch_size=2),
}


@pytest.fixture(scope="module")
def compiled_step(optimizer):
    """Returns a function: loss_norm, accumulation → the step for batches of ROWS, compiled once."""
    return functools.cache(
        lambda loss_norm, accumulation=1: jax.jit(
            make_train_step(MODEL, optimizer, OBJECTIVES[loss_norm], accumulation)
        )
    )


@pytest.fixture(scope="module")
def losses_of():
    """`plain_losses`, compiled."""
    return jax.jit(plain_losses)


def test_global_loss_is_the_mean_over_kept_labels(state, compiled_step, losses_of):
    batch = make_batch(ROWS)
    _, metrics = compiled_step("global")(state, batch)
    kept = np.asarray(batch["tokens"][:, :-1] != 2)
    expected = np.asarray(losses_of(state.params, batch))[kept].mean()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-6)
    assert float(metrics["kept_fraction"]) == pytest.approx(kept.mean(), rel=1e-6)


def test_microbatch_loss_is_the_mean_of_group_means(state, compiled_step, losses_of):
    batch = make_batch(ROWS)
    weights = np.random.default_rng(1).integers(0, 2, batch["loss_weights"].shape).astype(np.float32)
    batch["loss_weights"] = jnp.asarray(weights)
    _, metrics = compiled_step("microbatch")(state, batch)
    losses = np.asarray(losses_of(state.params, batch))
    weights *= np.asarray(batch["tokens"][:, :-1] != 2)
    groups = [slice(first, first + 2) for first in range(0, ROWS, 2)]
    means = [(losses[rows] * weights[rows]).sum() / weights[rows].sum() for rows in groups]
    assert float(metrics["loss"]) == pytest.approx(np.mean(means), rel=1e-6)


@pytest.mark.parametrize("loss_norm", OBJECTIVES)
def test_accumulation_gives_the_update_of_the_whole_batch(state, compiled_step, loss_norm):
    batch = make_batch(ROWS)
    whole, whole_metrics = compiled_step(loss_norm)(state, batch)
    pieces, pieces_metrics = compiled_step(loss_norm, 4)(state, batch)
    assert float(whole_metrics["loss"]) == pytest.approx(float(pieces_metrics["loss"]), rel=1e-6)
    for left, right in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(pieces.opt_state), strict=True):
        scale = max(float(jnp.abs(left).max()), 1e-12)
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), atol=1e-5 * scale)


def test_a_group_without_kept_labels_weighs_nothing():
    weights = jnp.asarray([[0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(normalize_weights(weights, "microbatch", 1), [[0, 0], [0.25, 0.25]])
    np.testing.assert_array_equal(normalize_weights(weights * 0, "global", 1), np.zeros((2, 2)))


def test_batch_that_does_not_split_into_microbatches_is_refused():
    with pytest.raises(UserError, match=r"3 rows does not split .*microbatch_size=2"):
        check_microbatches(3, Objective([], "microbatch", microbatch_size=2))


def test_step_not_finite_changes_nothing_but_the_counts(state, compiled_step):
    batch = make_batch(ROWS)
    batch["loss_weights"] = batch["loss_weights"].at[0, 0].set(jnp.nan)
    after, metrics = compiled_step("global")(state, batch)
    assert float(metrics["skipped"]) == 1 and np.isnan(float(metrics["loss"]))
    for left, right in zip(
        jax.tree.leaves((state.params, state.opt_state)), jax.tree.leaves((after.params, after.opt_state)), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
    assert int(after.skipped_steps) == 1 and int(after.optimizer_step) == 0
    assert sample_count_to_int(after.samples_consumed) == ROWS


def test_an_update_that_overflows_is_not_applied():
    huge = optimizer_chain(adamw(1e38, weight_decay=1e38), None)
    fresh = initialize_state(MODEL, huge, jax.random.key(0))
    after, metrics = jax.jit(make_train_step(MODEL, huge, Objective([])))(fresh, make_batch(4))
    assert np.isfinite(float(metrics["loss"])) and np.isfinite(float(metrics["gradient_norm"]))
    assert float(metrics["skipped"]) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_the_first_update_follows_the_plain_gradient():
    rate = 1e-3
    plain = optimizer_chain(adamw(rate, weight_decay=0.0), None)
    fresh = initialize_state(MODEL, plain, jax.random.key(0))
    batch = make_batch(4)
    after, _ = jax.jit(make_train_step(MODEL, plain, Objective([])))(fresh, batch)
    gradients = jax.jit(jax.grad(lambda p: plain_losses(p, batch).mean()))(fresh.params)
    reference = optax.adam(rate, b1=0.9, b2=0.95, eps=1e-8)
    updates, _ = reference.update(gradients, reference.init(fresh.params), fresh.params)
    moved = jax.tree.map(jnp.subtract, after.params, fresh.params)
    big = jax.tree.map(lambda g: jnp.abs(g) > 1e-6, gradients)
    for left, right, chosen in zip(*map(jax.tree.leaves, (moved, updates, big)), strict=True):
        np.testing.assert_allclose(np.asarray(left)[chosen], np.asarray(right)[chosen], rtol=0, atol=2e-3 * rate)


def test_mask_can_draw_anew_at_each_step(state, optimizer):
    """A drop keyed on `samples_consumed`: other labels at the next step, the same ones when a step is done again."""

    def half(batch):
        high, low = batch["samples_consumed"]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), high), low)
        return jax.random.bernoulli(key, 0.5, batch["tokens"][:, 1:].shape)

    batch = make_batch(4)
    step = jax.jit(make_train_step(MODEL, optimizer, Objective([half])))
    after, first = step(state, batch)
    _, second = step(state.replace(samples_consumed=after.samples_consumed), batch)
    _, again = step(state, batch)
    assert 0.3 < float(first["kept_fraction"]) < 0.7
    assert first["loss"] == again["loss"] != second["loss"]

"""Spikes are skipped inside the step, counted and named; without a guard nothing is different."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.optimization import adamw, optimizer_chain
from apertus_jax.training import Objective, initialize_state, make_train_step
from apertus_jax.training.records.telemetry import read_metrics
from apertus_jax.training.survival.step_guard import RunningValues, StepGuard, after_step, is_spike
from apertus_jax.training.survival.supervision import Supervision
from tests.training.small_run import small_run
from tests.training.test_train_step import MODEL, make_batch


def running(loss, norm, count):
    return RunningValues(jnp.float32(loss), jnp.float32(norm), jnp.int32(count))


@pytest.mark.parametrize(
    ("guard", "loss", "norm", "spike"),
    [
        (StepGuard(loss_factor=2.0, window=4), 4.1, 1.0, True),
        (StepGuard(loss_factor=2.0, window=4), 3.9, 99.0, False),
        (StepGuard(norm_factor=3.0, window=4), 99.0, 3.1, True),
        (StepGuard(norm_factor=3.0, window=5), 99.0, 3.1, False),  # the mean is not full yet
        (StepGuard(loss_limit=4.0, window=5), 4.1, 1.0, True),
        (StepGuard(norm_limit=3.0, window=5), 1.0, 3.1, True),
    ],
)
def test_a_spike_stands_out_of_its_running_mean_or_limit(guard, loss, norm, spike):
    assert bool(is_spike(guard, running(2.0, 1.0, 4), jnp.float32(loss), jnp.float32(norm))) == spike


def test_running_means_cover_the_window_and_applied_steps():
    guard = StepGuard(loss_factor=2.0, window=4)
    values = np.random.default_rng(0).uniform(1, 3, (20, 2)).astype(np.float32)
    applied = np.random.default_rng(1).random(20) > 0.3
    found, expected, count = running(0, 0, 0), np.zeros(2), 0
    for (loss, norm), ok in zip(values, applied, strict=True):
        found = after_step(guard, found, jnp.float32(loss), jnp.float32(norm), jnp.asarray(ok))
        if ok:
            count += 1
            expected += (np.array([loss, norm]) - expected) / min(count, 4)
    np.testing.assert_allclose([found.loss, found.norm], expected, rtol=1e-5)
    assert int(found.count) == count


def test_a_skipped_step_leaves_parameters_and_moments():
    guard = StepGuard(loss_limit=1e-3)
    optimizer = optimizer_chain(adamw(1e-2), 1.0)
    state = initialize_state(MODEL, optimizer, jax.random.key(0), guarded=True)
    step = jax.jit(make_train_step(MODEL, optimizer, Objective(num_tiles=1), guard=guard))
    after, metrics = step(state, make_batch(2))
    assert (float(metrics["skipped"]), float(metrics["spiked"])) == (1.0, 1.0)
    for old, new in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(after.skipped_steps) == 1 and int(after.optimizer_step) == 0 and int(after.running.count) == 0
    assert int(after.samples_consumed[1]) == 2


def test_without_a_guard_the_state_has_no_leaf_more():
    optimizer = optimizer_chain(adamw(1e-2), 1.0)
    plain = initialize_state(MODEL, optimizer, jax.random.key(0))
    guarded = initialize_state(MODEL, optimizer, jax.random.key(0), guarded=True)
    assert len(jax.tree.leaves(guarded)) == len(jax.tree.leaves(plain)) + 3
    step = jax.eval_shape(make_train_step(MODEL, optimizer, Objective(num_tiles=1)), plain, make_batch(2))
    assert "spiked" not in step[1] and not StepGuard().is_on


def test_a_planted_spike_is_skipped_and_its_samples_named(store, tmp_path, caplog):
    guard = StepGuard(norm_factor=1.0001, window=3, max_in_a_row=50)
    small_run(store, tmp_path / "run", total_steps=8, supervision=Supervision(guard=guard))
    rows = read_metrics(tmp_path / "run")
    spikes = [spike for row in rows for spike in row.get("spikes", [])]
    assert spikes and sum(row["skipped"] for row in rows) == len(spikes)
    for spike in spikes:
        assert spike["first_sample"] == 8 * spike["step"] and spike["last_sample"] == spike["first_sample"] + 7
        assert spike["gradient_norm"] > spike["running_norm"] and spike["step"] >= 3
    assert sum("was skipped as a spike" in record.getMessage() for record in caplog.records) == len(spikes)
    assert "Steps skipped as spikes" in (tmp_path / "run" / "report.html").read_text()
    assert all(isinstance(json.loads(line), dict) for line in (tmp_path / "run" / "metrics.jsonl").open())


def test_too_many_spikes_in_a_row_stop_the_run(store, tmp_path):
    guard = StepGuard(loss_limit=1e-3, max_in_a_row=3)
    with pytest.raises(UserError, match=r"step 2 was skipped .* samples 16 to 23, the 3th in a row") as raised:
        small_run(store, tmp_path / "run", supervision=Supervision(guard=guard))
    assert "\n" not in str(raised.value)


def test_a_guard_is_switched_on_and_off_on_the_way(store, tmp_path):
    run = tmp_path / "run"
    small_run(store, run, total_steps=2)
    guard = StepGuard(loss_factor=50.0, window=1)
    small_run(store, run, total_steps=4, supervision=Supervision(guard=guard), allow_config_change=True)
    summary = small_run(store, run, total_steps=6, allow_config_change=True)
    assert summary["step"] == 6


def test_a_guard_that_would_skip_everything_is_refused():
    with pytest.raises(UserError, match="StepGuard.loss_factor"):
        StepGuard(loss_factor=1.0)
    with pytest.raises(UserError, match="StepGuard.window"):
        StepGuard(window=0)

"""A run that is looked at closely has the bits of one that is not; a wrong bit is caught."""

import gzip
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import TemporaryFailure
from apertus_jax.model.model_folder import load_model
from apertus_jax.sharding import MeshConfig, make_mesh, replicated
from apertus_jax.training.program import Program
from apertus_jax.training.records.telemetry import read_evaluations, read_metrics
from apertus_jax.training.survival.layer_figures import layer_figures
from apertus_jax.training.survival.run_watch import RunWatch
from apertus_jax.training.survival.supervision import Supervision
from tests.training.small_run import small_run
from tests.training.test_resume import assert_same_end


@pytest.fixture(scope="module")
def watched_run(store, tmp_path_factory):
    """A finished run with every kind of look, and a profile that a signal asked for."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    watch = RunWatch(replay_every=3, layers_every=4, languages_every=6, profile_step=2, profile_steps=1)
    assert small_run(store, folder, training={"keep_last": 9}, supervision=Supervision(watch=watch))["finished"]
    return folder


def test_looking_at_steps_changes_no_bit(watched_run, finished_run, tmp_path):
    rows = [row for row in read_metrics(watched_run)]
    assert [row["step"] for row in rows] == [4, 8, 12]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("checkpoints", "model"):
        (copy / name).symlink_to(watched_run / name)
    lines = [line for line in (watched_run / "metrics.jsonl").read_text().splitlines() if "evaluator" not in line]
    (copy / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert_same_end(finished_run, copy)


def test_layer_figures_stand_in_the_log_and_on_the_page(watched_run):
    found = [row for row in read_evaluations(watched_run) if row["evaluator"] == "layer_figures"]
    assert [(row["evaluator"], row["step"]) for row in found] == [("layer_figures", step) for step in (4, 8, 12)]
    config, params = load_model(watched_run)
    alpha = params["layers"]["feedforward"]["xielu"]["alpha_n"]
    metrics = found[-1]["metrics"]
    for layer in range(config.num_layers):
        expected = np.log1p(np.exp(np.float64(alpha[layer]))) + config.xielu_beta
        assert metrics[f"alpha_n/layer_{layer:02d}"] == pytest.approx(expected, rel=1e-5)
        squares = [np.square(np.asarray(leaf[layer], np.float64)).sum() for leaf in jax.tree.leaves(params["layers"])]
        assert metrics[f"parameter_norm/layer_{layer:02d}"] == pytest.approx(np.sqrt(sum(squares)), rel=1e-5)
    assert "layer_figures" in (watched_run / "report.html").read_text()


def test_update_ratios_are_norms_of_differences():
    before = {"layers": {"kernel": jnp.array([[3.0, 4.0], [1.0, 0.0]])}, "embedding": jnp.array([2.0])}
    after = {"layers": {"kernel": jnp.array([[3.0, 4.5], [1.0, 0.0]])}, "embedding": jnp.array([1.0])}
    mesh = make_mesh(MeshConfig())
    before, after = (jax.device_put(tree, replicated(mesh)) for tree in (before, after))
    figures = layer_figures(before, after, 0.5, mesh)
    assert figures["update_ratio/layer_00"] == pytest.approx(0.5 / np.hypot(3, 4.5))
    assert figures["update_ratio/layer_01"] == 0.0 and figures["update_ratio/embedding"] == 1.0


def test_a_profile_is_readable(watched_run):
    [trace] = (watched_run / "profiles").rglob("*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    assert any(event for plane in planes for line in plane.lines for event in line.events)
    [viewer] = (watched_run / "profiles").rglob("*.trace.json.gz")
    assert json.loads(gzip.decompress(viewer.read_bytes()))["traceEvents"]


def test_a_signal_asks_for_a_profile(store, tmp_path, monkeypatch):
    original = Program.step

    def step(program, state, batch):
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGUSR1))
        return original(program, state, batch)

    asked = []
    monkeypatch.setattr(Program, "step", step)
    small_run(store, tmp_path / "run", total_steps=4, supervision=Supervision(watch=RunWatch(profile_steps=1)))
    assert len(list((tmp_path / "run" / "profiles").rglob("*.xplane.pb"))) == 1


def test_rows_tell_the_time_that_data_took(watched_run):
    assert all(row["data_seconds"] >= 0 for row in read_metrics(watched_run))


def test_a_flipped_bit_is_caught_and_told(store, tmp_path, monkeypatch):
    original, calls = Program.step, []

    def flipping(program, state, batch):
        state, metrics = original(program, state, batch)
        calls.append(None)
        if len(calls) == 5:  # step 4 is the first that is computed twice
            kernel = np.asarray(state.params["lm_head"]["kernel"]).copy()
            kernel.view(np.uint32)[3, 5] ^= 1
            sharding = state.params["lm_head"]["kernel"].sharding
            params = {**state.params, "lm_head": {"kernel": jax.device_put(kernel, sharding)}}
            state = state.replace(params=params)
        return state, metrics

    monkeypatch.setattr(Program, "step", flipping)
    with pytest.raises(TemporaryFailure, match="step 4, computed twice .* in params/lm_head/kernel, on") as raised:
        small_run(store, tmp_path / "run", total_steps=6, supervision=Supervision(watch=RunWatch(replay_every=4)))
    assert "\n" not in str(raised.value) and "the devices cpu:0, cpu:1" in str(raised.value)

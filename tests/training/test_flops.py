"""The analytic count of arithmetic against published figures and against the compiler's own count."""

import types

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.training.planning.devices import DEVICES, Device, peak_flops_per_second
from apertus_jax.training.planning.flops import forward_flops_per_sequence, train_flops_per_token
from apertus_jax.training.records.event_files import read_scalars
from apertus_jax.training.records.telemetry import read_metrics
from tests.training.small_run import small_run


@pytest.mark.parametrize(
    ("shape", "published"),
    [((131072, 4096, 21504, 32, 32, 8), 5.158e10), ((131072, 8192, 43008, 80, 64, 8), 4.4957e11)],
    ids=["8b", "70b"],
)
def test_flops_per_token_equal_the_papers_figures(shape, published):
    assert train_flops_per_token(ModelConfig(*shape), 4096) == pytest.approx(published, rel=2e-4)


def test_fifteen_trillion_tokens_of_70b_are_the_papers_total():
    config = ModelConfig(131072, 8192, 43008, 80, 64, 8)
    assert 15e12 * train_flops_per_token(config, 4096) == pytest.approx(6.74e24, rel=1e-3)


def test_analytic_count_agrees_with_the_compilers_count():
    config = ModelConfig(512, 64, 256, 1, 4, 2)
    tokens = jnp.zeros((1, 128), jnp.int32)
    params = jax.eval_shape(lambda: Transformer(config).init(jax.random.key(0), tokens))
    compiled = jax.jit(Transformer(config).apply).lower(params, tokens).compile()
    counted = compiled.cost_analysis()["flops"]
    assert forward_flops_per_sequence(config, 128) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("kinds", "peak"),
    [
        (["NVIDIA H200"], 989e12),
        (["NVIDIA GH200 480GB"] * 4, 4 * 989e12),
        (["TPU v5"], 459e12),
        (["TPU v5 lite"] * 8, 8 * 197e12),
        (["NVIDIA H100 PCIe"], None),
        (["NVIDIA H200", "cpu"], None),
        (["cpu"], None),
    ],
)
def test_peak_is_known_only_where_every_device_is(kinds, peak):
    assert peak_flops_per_second(types.SimpleNamespace(device_kind=kind) for kind in kinds) == peak


def test_mfu_is_logged_where_the_peak_is_known(store, tmp_path, monkeypatch):
    small_run(store, tmp_path / "unknown", total_steps=4)
    assert all("mfu" not in row for row in read_metrics(tmp_path / "unknown"))
    monkeypatch.setitem(DEVICES, "this", Device(1e12, 1e9, "cpu", "cpu"))
    small_run(store, tmp_path / "known", total_steps=4)
    (row,) = read_metrics(tmp_path / "known")
    assert row["mfu"] == pytest.approx(row["model_flops_per_second"] / (jax.device_count() * 1e12))
    assert "train/mfu" in {tag for _, _, tag, _ in read_scalars(epath.Path(tmp_path / "known" / "tensorboard"))}

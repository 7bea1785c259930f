"""A run from start to end."""

import dataclasses
import json

import pytest

from apertus_jax.errors import UserError
from apertus_jax.model.model_folder import load_model
from apertus_jax.storage import artifacts
from apertus_jax.training.run import Caller
from tests.training.small_run import MODEL, small_run


def test_a_run_ends_with_model_report_and_metrics(finished_run):
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert [row["samples"] for row in rows] == [32, 64, 128], "the batch doubles after 64 samples"
    assert rows[-1]["loss"] < rows[0]["loss"]
    artifacts.verify(finished_run / "model", "model")
    config, params = load_model(finished_run)
    assert config.vocab_size == 512 and params["lm_head"]["kernel"].shape == (32, 512)
    page = (finished_run / "report.html").read_text()
    assert page.count("<figure") == 6 and "<script" not in page and "src=" not in page


def test_kernel_of_another_platform_leaves_no_run_folder(store, tmp_path):
    model = dataclasses.replace(MODEL, attention_implementation="tpu_splash")
    with pytest.raises(UserError, match="'tpu_splash' runs on tpu only and this is cpu"):
        small_run(store, tmp_path / "run", model=model)
    assert not (tmp_path / "run").exists()


def test_an_unknown_compiler_option_leaves_no_run_folder(store, tmp_path):
    with pytest.raises(UserError, match="refuses xla_tpu_no_such=1"):
        small_run(store, tmp_path / "run", training={"compiler_options": ["xla_tpu_no_such=1"]})
    assert not (tmp_path / "run").exists()


def test_compiler_options_reach_the_step_and_nothing_else(store, tmp_path):
    compiled = []

    def compiler(lowered, options):
        compiled.append((lowered.as_text().splitlines()[0], dict(options)))
        return lowered.compile()

    options = {"compiler_options": ["xla_llvm_disable_expensive_passes=true"]}
    small_run(store, tmp_path / "run", options, caller=Caller(compiler=compiler), total_steps=2, stop_step=1)
    steps = [given for module, given in compiled if "train_step" in module]
    others = [given for module, given in compiled if "train_step" not in module]
    assert steps == [{"xla_llvm_disable_expensive_passes": True}] and others == [{}]


def test_a_finished_run_started_again_changes_nothing(finished_run, store):
    before = (finished_run / "model" / artifacts.COMMIT_MARKER).read_bytes()
    metrics = (finished_run / "metrics.jsonl").read_bytes()
    assert small_run(store, finished_run, training={"keep_last": 9})["finished"]
    assert (finished_run / "model" / artifacts.COMMIT_MARKER).read_bytes() == before
    assert (finished_run / "metrics.jsonl").read_bytes() == metrics


def test_weights_decay_only_where_they_should(finished_run, store, tmp_path):
    from apertus_jax.optimization import adamw

    def no_gradient(batch):
        return batch["segment_ids"] < 0

    from apertus_jax.training import Objective

    small_run(
        store,
        tmp_path / "run",
        objective=Objective([no_gradient]),
        optimizer=adamw,
        learning_rate=0.1,
        total_steps=1,
    )
    _, params = load_model(tmp_path / "run")
    assert (params["final_norm"]["scale"] == 1).all()
    assert (params["layers"]["attention"]["query_norm"]["scale"] == 1).all()
    assert len(set(params["layers"]["feedforward"]["xielu"]["alpha_p"].tolist())) == 1
    spread = params["lm_head"]["kernel"].std()
    assert abs(spread / (0.008944 * (1 - 0.1 * 0.1)) - 1) < 0.005

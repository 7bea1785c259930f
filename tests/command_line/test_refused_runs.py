"""Runs that must not start or go on: what differs is named, and the run folder stays as it was."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.storage.artifacts import COMMIT_MARKER, digest_file, digest_json
from apertus_jax.storage.lease import acquire_lease
from tests.command_line.conftest import content


def test_the_same_command_resumes_and_a_longer_one_goes_on(pretrain, run_copy):
    """What every refusal below is compared with: the folder itself is fine."""
    assert pretrain(run_copy).status == 0
    assert pretrain(run_copy, "--steps=5").status == 0
    assert json.loads((run_copy / "finished.json").read_text())["step"] == 5


def test_the_record_of_a_run_has_every_binding_in_effect(finished_run):
    config = json.loads((finished_run / "run.json").read_text())["config"]
    assert config["goldfish.k"] == "4" and config["constant_schedule.peak"] == "0.001"
    assert config["ademamix.alpha"] == "8.0" and config["TrainingConfig.seed"] == "28"
    assert "goldfish.k = 4" in (finished_run / "config.gin").read_text()


def test_changed_configuration_is_shown_and_refused_till_allowed(pretrain, run_copy):
    before = content(run_copy)
    changes = ["--gin.constant_schedule.peak=2e-3", "--gin.goldfish.k=5", "--gin.not_after_eod.eod_id=2"]
    complaint = pretrain(run_copy, *changes, "--steps=5").complaint
    assert str(run_copy) in complaint
    assert "constant_schedule.peak: 0.001 -> 0.002" in complaint and "goldfish.k: 4 -> 5" in complaint
    assert "eod_id" not in complaint and "total_steps" not in complaint
    assert "pretrain.allow_config_change = True" in complaint
    assert content(run_copy) == before
    assert pretrain(run_copy, *changes, "--steps=5", "--gin.pretrain.allow_config_change=True").status == 0
    assert json.loads((run_copy / "run.json").read_text())["config"]["goldfish.k"] == "5"


def test_what_changes_no_bit_of_the_result_may_change(pretrain, run_copy):
    assert pretrain(run_copy, "--gin.TrainingConfig.log_every=1", "--gin.TrainingConfig.keep_last=1").status == 0


@pytest.mark.parametrize("binding", ["goldfish.h=9", "TrainingConfig.seed=29", "BatchSchedule.initial=16"])
def test_each_decisive_binding_counts(pretrain, run_copy, binding):
    name, _, value = binding.partition("=")
    assert f"{name}: " in (complaint := pretrain(run_copy, f"--gin.{binding}").complaint) and f"-> {value}" in complaint


def test_a_default_that_is_now_bound_to_another_value_counts(pretrain, run_copy):
    complaint = pretrain(run_copy, "--gin.ademamix.alpha=5.0").complaint
    assert "ademamix.alpha: 8.0 -> 5.0" in complaint


def test_a_store_of_another_tokenizer_is_refused(pretrain, run_copy):
    before = content(run_copy)
    complaint = pretrain(run_copy, "--gin.pretrain.allow_config_change=True", store="other_tokenizer").complaint
    assert "was trained with tokenizer" in complaint and "give the store it began with" in complaint
    assert content(run_copy) == before


def test_a_store_rebuilt_in_place_is_refused(pretrain, workshop, run_copy, tmp_path):
    before = content(run_copy)
    place = tmp_path / "store"
    shutil.copytree(workshop / "store", place)
    assert pretrain(run_copy, store=place).status == 0  # a copy with the same digest is the same store
    shutil.rmtree(place)
    shutil.copytree(workshop / "rebuilt", place)
    complaint = pretrain(run_copy, "--gin.pretrain.allow_config_change=True", store=place).complaint
    assert "was rebuilt or replaced" in complaint and "restore the old store" in complaint
    assert {k: v for k, v in content(run_copy).items() if "checkpoints" in k} == {
        k: v for k, v in before.items() if "checkpoints" in k
    }


@pytest.mark.parametrize("kind", ["missing", "not_a_store", "half_built"])
def test_a_folder_that_is_no_store_leaves_no_run_folder(pretrain, workshop, tmp_path, kind):
    store = tmp_path / "store"
    if kind == "not_a_store":
        store.mkdir()
    if kind == "half_built":
        shutil.copytree(workshop / "store", store)
        (store / COMMIT_MARKER).unlink()
    complaint = pretrain(tmp_path / "run", store=store).complaint
    assert str(store) in complaint and "token_store" in complaint
    assert not (tmp_path / "run").exists()


def test_store_with_more_ids_than_the_model_leaves_no_run_folder(pretrain, workshop, tmp_path):
    complaint = pretrain(tmp_path / "run", "--gin.ModelConfig.vocab_size=256").complaint
    assert "token ids up to 359" in complaint and "ModelConfig.vocab_size is 256" in complaint
    assert str(workshop / "store") in complaint and not (tmp_path / "run").exists()


def test_a_token_id_beyond_the_vocabulary_is_found_at_the_start(pretrain, workshop, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(workshop / "store", store)
    path = store / "sources" / "text" / "tokens.bin"
    tokens = np.fromfile(path, dtype="<u2")
    tokens[::40] = 60_000
    tokens.tofile(path)
    manifest = json.loads((store / COMMIT_MARKER).read_text())
    path.with_name("tokens.blocks").unlink()  # as stores of older versions are
    del manifest["files"]["sources/text/tokens.blocks"]
    manifest["files"]["sources/text/tokens.bin"]["blake2b"] = digest_file(path)
    manifest["digest"] = digest_json({name: value for name, value in manifest.items() if name != "digest"})
    (store / COMMIT_MARKER).write_text(json.dumps(manifest))
    complaint = pretrain(tmp_path / "run", store=store).complaint
    assert "token id 60000 at token 0, outside the vocabulary" in complaint and str(path) in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bindings", "parts"),
    [
        (["MeshConfig.data=3", "pretrain.mesh=@MeshConfig()"], ["data=3", "there are 8", "change the axis sizes"]),
        (["BatchSchedule.initial=12"], ["batch of 12", "8 devices", "multiple of 8"]),
        (["BatchSchedule.final=20", "BatchSchedule.ramp_samples=800"], ["batch of 20", "multiple of 8"]),
        (["TrainingConfig.accumulation=3"], ["batch of 8", "TrainingConfig.accumulation=3"]),
        (
            ["Objective.loss_norm='microbatch'", "Objective.microbatch_size=3"],
            ["batch of 8", "Objective.microbatch_size=3"],
        ),
        (["MixtureStage.rates={'news':1.0}", "Mixture.stages=[@MixtureStage()]"], ["'news'", "it has text"]),
        (["ModelConfig.num_kv_heads=3"], ["num_heads=4", "num_kv_heads=3"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_does_not_divide_or_fit_leaves_no_run_folder(pretrain, tmp_path, bindings, parts):
    ended = pretrain(tmp_path / "run", *(f"--gin.{binding}" for binding in bindings))
    assert all(part in ended.complaint for part in parts), ended.stderr
    assert not (tmp_path / "run").exists()


def test_checkpoint_of_other_architecture_names_leaf_and_shapes(pretrain, run_copy):
    before = content(run_copy)
    complaint = pretrain(
        run_copy, "--gin.ModelConfig.intermediate_size=96", "--gin.pretrain.allow_config_change=True", "--steps=5"
    ).complaint
    assert "params/layers/feedforward/down/kernel" in complaint
    assert "(2, 64, 32) in the checkpoint and (2, 96, 32) here" in complaint
    assert content(run_copy) == before


def test_second_process_on_a_run_folder_is_told_who_is_there(workshop, run_copy):
    before = content(run_copy)
    command = [sys.executable, "-m", "apertus_jax", "pretrain", f"--gin_file={workshop / 'experiment.gin'}"]
    with acquire_lease(run_copy):
        done = subprocess.run(
            [*command, f"--input={workshop / 'store'}", f"--output={run_copy}", "--steps=5"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    complaints = [line for line in done.stderr.splitlines() if line.startswith("apertus: ")]
    assert complaints == done.stderr.splitlines()[-1:] and "Traceback" not in done.stderr
    assert f"{run_copy} is in use by process {os.getpid()}" in complaints[0] and "wait for it" in complaints[0]
    assert content(run_copy) == before


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_loss_not_finite_names_step_samples_and_good_checkpoint(pretrain, run_copy):
    changes = ["--gin.constant_schedule.peak=1e39", "--gin.pretrain.allow_config_change=True", "--steps=8"]
    complaint = pretrain(run_copy, *changes).complaint
    assert "step 4 gave loss" in complaint and "update norm inf on samples 32 to 39" in complaint
    assert f"the last good checkpoint is step 4 in {run_copy / 'checkpoints'}" in complaint
    assert "lower the learning rate" in complaint
    assert Checkpointer(run_copy / "checkpoints").valid_steps() == [2, 4]
    back = pretrain(run_copy, "--steps=5", "--gin.pretrain.allow_config_change=True")
    assert back.status == 0


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_first_loss_not_finite_says_there_is_no_checkpoint(pretrain, tmp_path):
    complaint = pretrain(tmp_path / "run", "--gin.ModelConfig.init_std=1e39").complaint
    assert "step 0 gave loss nan" in complaint and "samples 0 to 7" in complaint and "none was written yet" in complaint
    assert pretrain(tmp_path / "run").status == 0

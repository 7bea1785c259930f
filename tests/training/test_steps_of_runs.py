"""Any committed step of any run, running or finished, is evaluated, generated from and exported."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from apertus_jax.checkpoints import open_model, step_folders
from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.evaluation import evaluate
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.languages import languages
from apertus_jax.evaluation.languages.options import LanguageOptions
from apertus_jax.inference import generate
from apertus_jax.model.model_folder import load_model
from apertus_jax.release import export, load_huggingface
from apertus_jax.storage import artifacts
from apertus_jax.storage.run_folder import RunFolder, step_folder
from tests.training.small_run import MODEL

ROOT = Path(__file__).resolve().parents[2]
ONE_DEVICE = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
ENDLESS = """
import dataclasses, sys
from tests.training.small_run import MODEL, small_run
kept = {"keep_last": 1, "keep_every": 10}
small_run(sys.argv[1], sys.argv[2], kept, model=dataclasses.replace(MODEL, vocab_size=384), total_steps=10**6)
"""


def same_trees(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def parameters_by_orbax(run, step):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(step_folder(run / "checkpoints", step) / "state")["params"]


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A copy of the finished run that a test may do anything to."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_step_has_the_parameters_that_training_had(finished_run):
    earlier = open_model(finished_run, 5)
    assert earlier.config == MODEL and earlier.name == "finished, step 5"
    params = earlier.load()
    same_trees(params, jax.tree.map(np.asarray, parameters_by_orbax(finished_run, 5)))
    config, final = load_model(finished_run)
    last = open_model(finished_run, 12).load()
    same_trees(last, final)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    assert not np.array_equal(params["embedder"]["embedding"], final["embedder"]["embedding"])


def test_step_is_part_of_the_identity_of_a_model(finished_run):
    final, step = open_model(finished_run), open_model(finished_run, 12)
    assert set(final.identity) == {"model"} and step.identity["step"] == 12
    assert final.identity["model"] != step.identity["model"]


def test_step_is_opened_without_the_token_store(finished_run, store):
    opened = open_model(finished_run, 5)
    assert opened.tokenizer == finished_run / "tokenizer"
    kept = {path.name: path.read_bytes() for path in opened.tokenizer.iterdir() if path.name != "COMMITTED.json"}
    made = {path.name: path.read_bytes() for path in TokenStore.open(store).tokenizer_folder.iterdir()}
    assert kept == {name: made[name] for name in kept} and "tokenizer.json" in kept


def test_running_run_is_evaluated_generated_from_and_exported(store, tmp_path):
    run = RunFolder(tmp_path / "run")
    trainer = subprocess.Popen([sys.executable, "-c", ENDLESS, str(store), str(run.path)], cwd=ROOT, env=ONE_DEVICE)
    try:
        deadline = time.monotonic() + 200
        while not {10, 20} <= set(run.committed_steps()) or 15 in run.committed_steps():  # until it is removed
            assert trainer.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(UserError, match=r"has not finished; give one of its committed steps with --step: 10, 20"):
            evaluate(str(run.path), str(store), str(tmp_path / "none"), sequence_length=32)
        for step in (10, 20):
            results = evaluate(
                str(run.path), str(store), str(tmp_path / f"evaluation_{step}"), "held_out", 32, step=step
            )
            assert np.isfinite(results["pooled"]["nats_per_token"])
            written = artifacts.read_manifest(tmp_path / f"evaluation_{step}", "evaluation")
            assert written["inputs"]["step"] == step
            assert f"step {step}" in (tmp_path / f"evaluation_{step}" / "report.html").read_text()
        (text,) = generate(run.path, ["sun"], tmp_path / "samples", max_new_tokens=4, step=20)
        assert text["tokens"]
        export(run.path, tmp_path / "huggingface", step=20)
        assert trainer.poll() is None and not run.finished.exists() and run.committed_steps()[-1] > 20
    finally:
        trainer.kill()
        trainer.wait()
    config, exported = load_huggingface(tmp_path / "huggingface")
    same_trees(exported, open_model(run.path, 20).load())
    assert artifacts.read_manifest(tmp_path / "samples", "generations")["inputs"]["step"] == 20


def test_command_line_takes_a_step(finished_run, tmp_path):
    from apertus_jax.cli import main

    arguments = [f"--input={finished_run}", f"--output={tmp_path / 'huggingface'}"]
    assert main(["export", *arguments, "--step=5"]) == 0
    same_trees(load_huggingface(tmp_path / "huggingface")[1], open_model(finished_run, 5).load())


def test_missing_step_is_one_line_with_the_committed_ones(finished_run):
    with pytest.raises(
        UserError, match=r"no checkpoint of step 7; give one of its committed steps with --step: 5, 10, 12"
    ):
        open_model(finished_run, 7)


def test_model_folder_has_no_steps(finished_run):
    with pytest.raises(UserError, match=r"model is no run folder and has no step 5; leave --step out"):
        open_model(finished_run / "model", 5)


@pytest.mark.parametrize("step", [0, -5, 5.0, True, "5"])
def test_step_that_is_no_count_is_refused(finished_run, step):
    with pytest.raises(UserError, match="step"):
        open_model(finished_run, step)


def test_damaged_step_is_refused_naming_the_file(run_copy):
    state = Path(step_folder(run_copy / "checkpoints", 5)) / "state"
    largest = max((path for path in state.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    opened = open_model(run_copy, 5)
    with pytest.raises(UserError, match=rf"step 5: state/.*{largest.name} has changed since it was committed"):
        opened.load()
    open_model(run_copy, 10).load()


@pytest.mark.parametrize(
    "name, told", [("metadata.json", "cannot be used: metadata.json"), ("COMMITTED.json", "COMMITTED.json has changed")]
)
def test_damaged_record_of_a_step_is_refused(run_copy, name, told):
    path = Path(step_folder(run_copy / "checkpoints", 5)) / name
    path.write_bytes(path.read_bytes().replace(b"5", b"6", 1))
    with pytest.raises(UserError, match=told):
        open_model(run_copy, 5)


def test_step_under_the_name_of_another_is_refused(run_copy):
    Path(step_folder(run_copy / "checkpoints", 5)).rename(step_folder(run_copy / "checkpoints", 7))
    with pytest.raises(UserError, match="belongs to step 5: the folder was renamed"):
        open_model(run_copy, 7)


@pytest.mark.parametrize("part", ["store", "tokenizer"])
def test_step_of_another_run_is_refused(run_copy, part):
    record = json.loads((run_copy / "run.json").read_text())
    record["identity"][part] = "0" * 32
    (run_copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"is a step of another run: its {part} is"):
        open_model(run_copy, 5)


def test_tokenizer_of_another_run_is_refused(run_copy):
    path = run_copy / "tokenizer" / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"tokenizer\.json has .* bytes where"):
        open_model(run_copy, 5)


def test_checkpoint_opens_with_orbax_alone_as_documented(finished_run, tmp_path):
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 5 and "apertus_jax" not in lines
    place = tmp_path / re.search(r'"(runs/.*)/state"', lines)[1]
    shutil.copytree(step_folder(finished_run / "checkpoints", 5), place)
    code = f"""{lines}
import sys
np.savez({str(tmp_path / "read.npz")!r}, embedding=state["params"]["embedder"]["embedding"])
assert set(state) == {{"params", "opt_state", "optimizer_step", "samples_consumed", "skipped_steps"}}
assert len(jax.devices()) == 1 and not any(name.startswith("apertus_jax") for name in sys.modules)
"""
    # Saved from eight devices, read where there is one.
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ONE_DEVICE, check=True)
    read = np.load(tmp_path / "read.npz")["embedding"]
    np.testing.assert_array_equal(read, open_model(finished_run, 5).load()["embedder"]["embedding"])


def test_verify_reads_the_tokenizer_of_a_run(run_copy):
    from apertus_jax.pipeline.verify_command import verify

    checked = {row["folder"] for row in verify(str(run_copy))}
    assert {str(run_copy / "tokenizer"), str(step_folder(run_copy / "checkpoints", 5))} <= checked
    shutil.rmtree(run_copy / "tokenizer")
    with artifacts.build(run_copy / "tokenizer", "tokenizer", {"tokenizer": "0" * 32}) as build:
        shutil.copy(run_copy / "model" / "tokenizer" / "tokenizer.json", build.path)
    with pytest.raises(UserError, match=r"is the tokenizer 0{32} and the run's own"):
        verify(str(run_copy))


def commit_again(run, step, change):
    """Changes the record of a step as whoever wrote it could have written it, digests and all."""
    folder = step_folder(run / "checkpoints", step)
    saved = json.loads((folder / "metadata.json").read_text())
    change(saved)
    (folder / "metadata.json").write_text(json.dumps(saved))
    step_folders.commit(folder, step, step_folders.digest_files(folder, artifacts.list_files(folder)))


def test_step_of_an_earlier_version_is_one_line(run_copy):
    commit_again(run_copy, 5, lambda saved: saved["metadata"].pop("model"))
    with pytest.raises(UserError, match=r"does not say what model it is of \(an earlier version saved it\)"):
        open_model(run_copy, 5)


def test_parameter_that_the_architecture_lacks_is_not_left_out(run_copy):
    commit_again(run_copy, 5, lambda saved: saved["leaves"].update({"params/gate": {"shape": [4], "dtype": "float32"}}))
    with pytest.raises(UserError, match="holds the parameter params/gate, which the architecture in its record lacks"):
        open_model(run_copy, 5).load()


def test_step_of_another_architecture_is_refused_naming_the_leaf(run_copy):
    commit_again(run_copy, 5, lambda saved: saved["metadata"]["model"].update(num_layers=3))
    with pytest.raises(UserError, match=r"params/layers/.* has shape \(2, .* in the checkpoint and \(3, "):
        open_model(run_copy, 5).load()


def test_verify_compares_a_step_with_the_architecture_it_names(run_copy):
    from apertus_jax.pipeline.verify_command import verify

    commit_again(run_copy, 5, lambda saved: saved["metadata"]["model"].update(num_layers=3))
    with pytest.raises(UserError, match="is of another model than"):
        verify(str(run_copy))


def test_last_step_has_the_final_models_figures_by_language(finished_run, store, tmp_path):
    options = LanguageOptions(tokens_per_language=64, sequence_length=32)
    quiet = Execution(progress=False)
    given = {"store": str(store), "parallel": "", "options": options, "execution": quiet}
    final = languages(str(finished_run), str(tmp_path / "final"), **given)
    last = languages(str(finished_run), str(tmp_path / "last"), **given, step=12)
    earlier = languages(str(finished_run), str(tmp_path / "earlier"), **given, step=5)
    assert last["languages"] == final["languages"] != earlier["languages"]
    assert "step 12" in (tmp_path / "last" / "report.html").read_text()


def test_last_step_answers_tasks_as_the_final_model_does(finished_run, tmp_path):
    pytest.importorskip("lm_eval")
    from apertus_jax.evaluation.harness import evaluate_tasks
    from apertus_jax.evaluation.harness.options import HarnessOptions

    options = HarnessOptions(limit=2, max_length=64, max_gen_toks=2, bootstrap_resamples=2)
    given = {"options": options, "execution": Execution(progress=False)}
    final = evaluate_tasks(finished_run, "apertus_demo", tmp_path / "final", **given)
    last = evaluate_tasks(finished_run, "apertus_demo", tmp_path / "last", **given, step=12)
    earlier = evaluate_tasks(finished_run, "apertus_demo", tmp_path / "earlier", **given, step=5)
    assert last["results"] == final["results"] and last["consumed_tokens"] == final["consumed_tokens"]
    assert earlier["consumed_tokens"] < last["consumed_tokens"] and earlier["config"]["step"] == 5

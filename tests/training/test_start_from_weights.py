"""A run starts from weights of before: alone, or with the optimizer; and every wrong folder is one line."""

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.checkpoints import open_model
from apertus_jax.data import (
    BatchSchedule,
    MegatronMixture,
    MegatronStage,
    Mixture,
    MixtureStage,
    TokenStore,
    stream_of_store,
)
from apertus_jax.data.loader.batch_loader import BatchLoader, ReadAhead
from apertus_jax.data.loader.device_batches import DeviceBatches
from apertus_jax.data.provenance.provenance_command import provenance
from apertus_jax.errors import UserError
from apertus_jax.optimization import ademamix, optimizer_chain, sample_count, weight_decay_mask, wsd_schedule
from apertus_jax.release import export, import_huggingface
from apertus_jax.release.data_summary import PublishedModel
from apertus_jax.sharding import MeshConfig
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.run_parent import read_parent, recorded_parent
from apertus_jax.training import Objective, pretrain
from apertus_jax.training.program import make_program
from apertus_jax.training.starting.parent_weights import StartFrom, check_architecture, open_parent
from apertus_jax.training.state import TrainState
from tests.training.small_run import MODEL, OBJECTIVE, TRAINING, small_run
from tests.training.test_resume import assert_same_end, state_bytes

MODULE = sys.modules[pretrain.__module__]
MIXTURE = Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})])


def record_of(folder):
    return json.loads((Path(folder) / "run.json").read_text())


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """A Hugging Face folder with the weights of step 5."""
    folder = tmp_path_factory.mktemp("exported") / "huggingface"
    export(finished_run, folder, step=5)
    return folder


@pytest.fixture(scope="module")
def started(store, finished_run, tmp_path_factory):
    """A run of two steps that started from the weights of step 5, and nothing else of it."""
    folder = tmp_path_factory.mktemp("started") / "run"
    small_run(store, folder, init_from=str(finished_run), init_step=5, stop_step=2)
    return folder


def hand_made_state(store, params, steps):
    """Returns the bytes of a state with these weights and a fresh optimizer after some steps on a new data order."""
    optimizer = optimizer_chain(ademamix(wsd_schedule(1e-2, 16, 160, 40), mask=weight_decay_mask), 1.0)
    program = make_program(MODEL, optimizer, OBJECTIVE, MeshConfig(), 1, TRAINING["sequence_length"])
    state = TrainState(
        params=params,
        opt_state=optimizer.init(jax.tree.map(jnp.asarray, params)),
        optimizer_step=jnp.zeros((), jnp.int32),
        samples_consumed=jnp.asarray(sample_count(0)),
        skipped_steps=jnp.zeros((), jnp.int32),
    )
    state = jax.device_put(state, program.state_shardings)
    opened = TokenStore.open(store)
    stream = stream_of_store(opened, MIXTURE, BatchSchedule(8, 16, 64), TRAINING["sequence_length"], 28, 12)
    loader = BatchLoader(stream, MODEL.vocab_size, opened.eod_id, context_window=OBJECTIVE.left_context + 1)
    batches = DeviceBatches(loader.iterate(0, steps, ReadAhead(num_batches=1)), program.batch_sharding, num_ready=1)
    for batch in batches:
        state, _ = program.step(state, batch)
    batches.close()
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def test_weights_only_start_is_a_hand_made_state_bit_for_bit(store, finished_run, started):
    expected = hand_made_state(store, open_model(finished_run, 5).load(), 2)
    assert state_bytes(started, 2)[0] == expected


def test_weights_are_the_same_from_all_three_kinds_of_folder(store, finished_run, started, exported, tmp_path):
    small_run(store, tmp_path / "from_export", init_from=str(exported), stop_step=2)
    assert state_bytes(tmp_path / "from_export", 2)[0] == state_bytes(started, 2)[0]
    model = Path(finished_run) / "model"
    small_run(store, tmp_path / "from_model", init_from=str(model), stop_step=1)
    small_run(store, tmp_path / "from_last_step", init_from=str(finished_run), stop_step=1)
    assert state_bytes(tmp_path / "from_model", 1)[0] == state_bytes(tmp_path / "from_last_step", 1)[0]
    kinds = {name: read_parent(tmp_path / name).kind for name in ("from_export", "from_model", "from_last_step")}
    assert list(kinds.values()) == ["Hugging Face folder", "model folder", "run"]
    assert [read_parent(tmp_path / name).step for name in kinds] == [None, 12, 12]


def test_start_with_optimizer_and_nothing_changed_is_a_resume(store, finished_run, tmp_path):
    small_run(store, tmp_path / "run", init_from=str(finished_run), init_step=5, init_optimizer=True)
    assert_same_end(tmp_path / "run", finished_run)
    ours, theirs = (json.loads((Path(run) / "mixture.json").read_text()) for run in (tmp_path / "run", finished_run))
    assert ours == theirs
    assert read_parent(tmp_path / "run").with_optimizer and not record_of(tmp_path / "run")["config"].get("other")


@pytest.mark.parametrize("length", [32, pytest.param(16, marks=pytest.mark.slow)])
def test_start_with_optimizer_keeps_history_under_other_data(store, finished_run, tmp_path, length):
    other = Mixture([MixtureStage(rates={"one": 0.2, "two": 0.8})])
    changed = {"mixture": other, "batch_schedule": BatchSchedule(16), "total_steps": 9}
    onward = {"init_from": str(finished_run), "init_step": 5, "init_optimizer": True}
    small_run(store, tmp_path / "run", {"sequence_length": length}, **onward, **changed)
    record = json.loads((tmp_path / "run" / "mixture.json").read_text())
    assert (record["from_step"], record["from_sample"], len(record["earlier"])) == (5, 40, 1)
    assert record["earlier"][0]["sequence_length"] == 32 and record["sequence_length"] == length
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 9]
    assert rows[-1]["samples"] == 40 + 4 * 16


def test_killed_start_resumes_itself_without_its_parent(store, finished_run, exported, tmp_path):
    parent = Path(shutil.copytree(exported, tmp_path / "parent"))
    small_run(store, tmp_path / "whole", init_from=str(exported), total_steps=3)
    small_run(store, tmp_path / "run", init_from=str(parent), total_steps=3, stop_step=1)
    shutil.rmtree(parent)
    small_run(store, tmp_path / "run", init_from=str(parent), total_steps=3, stop_step=2)
    small_run(store, tmp_path / "run", total_steps=3)  # and it need not be told its parent again
    assert state_bytes(tmp_path / "run") == state_bytes(tmp_path / "whole")
    assert read_parent(tmp_path / "run").digest == read_parent(tmp_path / "whole").digest


def test_start_that_left_no_step_is_not_begun_at_random(store, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "train", lambda *_: 1 / 0)  # killed before the first checkpoint
    with pytest.raises(ZeroDivisionError):
        small_run(store, tmp_path / "run", init_from=str(exported))
    with pytest.raises(UserError, match=r"was to start from .* and has no checkpoint yet; give --init_from="):
        small_run(store, tmp_path / "run")


@pytest.mark.slow
def test_branch_killed_at_any_write_begins_again(store, finished_run, tmp_path, monkeypatch):
    onward = {"init_from": str(finished_run), "init_step": 10, "init_optimizer": True}
    for name in ("_copy_records", "run_record.write_record"):
        with monkeypatch.context() as patch:
            patch.setattr(f"apertus_jax.training.starting.first_state.{name}", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                small_run(store, tmp_path / "run", **onward)
        assert not RunFolder(tmp_path / "run").committed_steps()
    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "restore_or_initialize", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small_run(store, tmp_path / "run", **onward)
    assert RunFolder(tmp_path / "run").committed_steps() == [10]
    small_run(store, tmp_path / "run")  # from its own first checkpoint, without being told of its parent
    assert_same_end(tmp_path / "run", finished_run)


def test_parent_stands_in_record_model_and_configuration(store, finished_run, exported, tmp_path):
    small_run(store, tmp_path / "run", init_from=str(exported), total_steps=1)
    record = record_of(tmp_path / "run")
    digest = json.loads((exported / "COMMITTED.json").read_text())["digest"]
    assert record["parent"]["path"] == str(exported) and record["parent"]["digest"] == digest
    assert digest in record["config"]["PARENT_OF_RUN"]
    manifest = json.loads((tmp_path / "run" / "model" / "COMMITTED.json").read_text())
    assert manifest["summary"]["parent"] == record["parent"]
    small_run(store, tmp_path / "child", init_from=str(tmp_path / "run" / "model"), total_steps=1)
    lineage = list(read_parent(tmp_path / "child").lineage())
    assert [each.digest for each in lineage[1:]] == [digest]
    export(tmp_path / "child", tmp_path / "published")
    written = json.loads((tmp_path / "published" / "COMMITTED.json").read_text())["summary"]["parent"]
    assert written == record_of(tmp_path / "child")["parent"]
    card = (tmp_path / "published" / "README.md").read_text()
    assert f"| weights of | run, step 1 (model folder, digest {lineage[0].digest[:12]}) |" in card
    assert f"| weights of | huggingface (Hugging Face folder, digest {digest[:12]}) |" in card
    import_huggingface(tmp_path / "published", tmp_path / "imported")
    assert recorded_parent(tmp_path / "imported") == recorded_parent(tmp_path / "child")


def test_provenance_asks_the_runs_whose_weights_were_taken(store, finished_run, started, tmp_path, capsys):
    opened = TokenStore.open(store)
    asked = functools.partial(provenance, store=str(store))
    seen = set()
    for identity in opened.source("one").documents["document_id"].to_pylist()[::9]:
        own, theirs = asked(started, identity, steps=2), asked(finished_run, identity, steps=5)
        marked = [row | {"run": str(finished_run)} for row in theirs]
        fresh = [row for row in asked(finished_run, identity, steps=2)]  # the same order, by the same seed
        assert own == fresh + marked
        seen.add(bool(theirs))
    assert seen == {True, False} or seen == {True}
    shutil.copytree(finished_run, tmp_path / "gone")
    small_run(store, tmp_path / "run", init_from=str(tmp_path / "gone"), init_step=5, stop_step=1)
    shutil.rmtree(tmp_path / "gone")
    capsys.readouterr()
    assert asked(tmp_path / "run", identity, steps=1) == asked(finished_run, identity, steps=1)
    said = " ".join(capsys.readouterr().out.split())
    assert "started from gone, step 5" in said and "what it read cannot be said: " in said


def test_data_summary_says_which_models_a_run_is_based_on(started, finished_run, exported):
    model = PublishedModel("mine 1", run=str(started)).with_recorded_parents()
    assert model.based_on.startswith("finished, step 5 (run, digest ") and not model.run
    assert PublishedModel("mine 1", run=str(finished_run)).with_recorded_parents().based_on.startswith("none")
    assert PublishedModel("mine 1", based_on="X", run=str(started)).with_recorded_parents().based_on == "X"
    with pytest.raises(UserError, match="says that mine 1 is based on finished, step 5"):
        PublishedModel("mine 1", based_on="none", run=str(started)).with_recorded_parents()


def test_other_positions_and_masks_are_allowed_and_written_down(exported, finished_run):
    changed = dataclasses.replace(MODEL, rope_theta=1e6, doc_attention="causal", compute_dtype="bfloat16")
    of_run = check_architecture(open_parent(StartFrom(str(finished_run))), changed)
    assert of_run == {"rope_theta": ["500000.0", "1000000.0"], "doc_attention": ["'segment'", "'causal'"]}
    assert list(check_architecture(open_parent(StartFrom(str(exported))), changed)) == ["rope_theta"]


def damaged(folder, tmp_path, change):
    copy = Path(shutil.copytree(folder, tmp_path / "damaged"))
    change(copy)
    return copy


def cut_file(folder):
    path = next(folder.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])


def flip_byte(folder):
    path = next(folder.rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def without_marker_and_shard(folder):
    (folder / "COMMITTED.json").unlink()
    next(folder.rglob("*.safetensors")).unlink()


def of_llama(folder):
    (folder / "COMMITTED.json").unlink()
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"apertus"', '"llama"'))


def renamed_token(folder):
    (folder / "COMMITTED.json").unlink()
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    values["model"]["merges"] = []
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_file, "is truncated or damaged"),
        (flip_byte, "digest"),
        (without_marker_and_shard, "safetensors"),
        (of_llama, "model_type 'llama'; only 'apertus'"),
        (renamed_token, "another vocabulary: id 38"),
    ],
    ids=["cut", "flipped", "shard missing", "llama", "vocabulary"],
)
def test_folder_that_cannot_be_started_from_is_one_line(store, exported, tmp_path, change, words):
    folder = damaged(exported, tmp_path, change)
    with pytest.raises(UserError, match=words) as caught:
        small_run(store, tmp_path / "run", init_from=str(folder))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"TrainingConfig.init_from = '{folder}'")
    assert not (tmp_path / "run").exists()


def test_wrong_parents_are_refused_before_anything_is_written(store, finished_run, started, exported, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "run.json").write_text((Path(finished_run) / "run.json").read_text())
    wider = dataclasses.replace(MODEL, intermediate_size=96, norm_epsilon=1e-6)
    refused = [
        ({"init_from": str(exported), "model": wider}, "intermediate_size = 64, ModelConfig has 96; norm_epsilon"),
        ({"init_from": str(empty)}, "no committed step yet"),
        ({"init_from": str(finished_run), "init_step": 7}, "no checkpoint of step 7; give one of its committed steps"),
        ({"init_from": str(store)}, "holds a token_store, not a model"),
        ({"init_from": "somebody/apertus"}, "hf download somebody/apertus"),
        ({"init_from": str(tmp_path)}, "does not exist; give the folder of a Hugging Face Apertus model"),
        ({"init_from": str(exported), "init_optimizer": True}, "init_optimizer is for the folder of a run"),
        ({"init_step": 5}, "init_step is set and TrainingConfig.init_from is not"),
        ({"init_from": str(tmp_path / "run")}, "itself, which resumes by itself"),
    ]
    for arguments, words in refused:
        with pytest.raises(UserError, match=words) as caught:
            small_run(store, tmp_path / "run", **arguments)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
    before = record_of(started)
    for arguments in ({"init_from": str(exported)}, {"init_from": str(finished_run), "init_step": 10}):
        with pytest.raises(UserError, match=r"started from weights of .* and has no other parent"):
            small_run(store, started, **arguments)
    assert record_of(started) == before
    with pytest.raises(UserError, match="was started from random weights and cannot start from"):
        small_run(store, finished_run, init_from=str(exported))


def test_other_optimizer_or_store_cannot_go_on_with_its_state(store, finished_run, tmp_path):
    from apertus_jax.data import tokenize
    from apertus_jax.optimization import adamw
    from tests.tiny_experiment import write_documents

    onward = {"init_from": str(finished_run), "init_step": 5, "init_optimizer": True}
    with pytest.raises(UserError, match=r"step_0000000005 does not fit: .*opt_state"):
        small_run(store, tmp_path / "run", optimizer=adamw, **onward)
    write_documents(tmp_path / "one.jsonl", 60, seed=9)
    tokenizer = str(Path(store) / "tokenizer")
    write_documents(tmp_path / "two.jsonl", 60, seed=8)
    sources = {name: str(tmp_path / f"{name}.jsonl") for name in ("one", "two")}
    tokenize(sources, tmp_path / "s", tokenizer=tokenizer)
    with pytest.raises(UserError, match="which read the token store .* give its own store"):
        small_run(tmp_path / "s", tmp_path / "run", **onward)
    assert not (tmp_path / "run").exists()


def test_a_phase_refuses_sources_that_runs_before_it_read(store, tmp_path, caplog):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    one, two = (Mixture([MixtureStage(rates={name: 1.0})]) for name in ("one", "two"))
    unread = {"init_unread_sources": True}
    small_run(store, first, unread, mixture=one, total_steps=1)  # random weights have read nothing
    for again in (one, MIXTURE):
        with pytest.raises(UserError, match=rf"source 'one' .* was read by {first} already"):
            small_run(store, second, unread, init_from=str(first), mixture=again, total_steps=1)
    assert not second.exists(), "nothing is written"
    small_run(store, second, unread, init_from=str(first), mixture=two, total_steps=1)
    small_run(store, second, unread, init_from=str(first), mixture=two, total_steps=1)  # it resumes
    for source, run in (("one", first), ("two", second)):  # of the run before, and of the one before that
        with pytest.raises(UserError, match=f"source '{source}' .* {run} already"):
            mixture = Mixture([MixtureStage(rates={source: 1.0})])
            small_run(store, third, unread, init_from=str(second / "model"), mixture=mixture, total_steps=1)
    small_run(store, third, init_from=str(second), mixture=one, total_steps=1)  # nobody asked
    shutil.rmtree(first)
    small_run(store, tmp_path / "fourth", unread, init_from=str(second), mixture=one, total_steps=1)
    assert "nothing here says which sources trained first, step 1" in caplog.text


def test_a_stage_goes_on_in_another_packing_and_loss(store, tmp_path):
    # As the third stage of Apertus 1.5: optimizer, step count and schedule stay, the sampler begins anew.
    stages = [MegatronStage(0, 41, ["one"]), MegatronStage(16, 41, ["two"])]
    shared = {"learning_rate": wsd_schedule(1e-2, 8, 48, 16, lr_init_frac=0.0), "batch_schedule": BatchSchedule(8)}
    before = {"mixture": MegatronMixture(stages), "objective": Objective(OBJECTIVE.loss_masks, "microbatch", 1)}
    small_run(store, tmp_path / "stages", {"log_every": 1}, total_steps=4, **before, **shared)
    packed = Mixture([MixtureStage(sources=["one"])], sample_index="best_fit")
    onward = {"init_from": str(tmp_path / "stages"), "init_optimizer": True, "mixture": packed, "total_steps": 6}
    small_run(store, tmp_path / "packed", {"log_every": 1}, objective=OBJECTIVE, **onward, **shared)
    rows = [json.loads(line) for line in (tmp_path / "packed" / "metrics.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in rows] == [8, 16, 24, 32, 40, 48]
    assert [row["learning_rate"] for row in rows] == [float(shared["learning_rate"](8 * step)) for step in range(6)]
    record = json.loads((tmp_path / "packed" / "mixture.json").read_text())
    assert (record["from_step"], record["from_sample"], len(record["earlier"])) == (4, 32, 1)
    assert {entry["sample_index"] for entry in record["sources"]} == {"BestFitIndex"}

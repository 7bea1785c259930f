"""`pretrain` with removal requests: refuse, or train as if what they name gave no loss."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest

from apertus_jax.corpus.removal import remove
from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore, stream_of_store
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.provenance.tombstoned_documents import find_tombstoned, open_tombstones
from apertus_jax.errors import UserError
from apertus_jax.model.model_folder import load_model
from apertus_jax.training.run import Caller
from apertus_jax.training.tombstones import day_of_run
from apertus_jax.training.train_step import batch_loss
from tests.training.small_run import MODEL, small_run
from tests.training.test_resume import assert_same_end, logged


def tombstones_of(folder, *identities, day="2026-02-01"):
    """Writes tombstones for documents by id and returns their folder."""
    rows = [
        {
            "id": f"R-{number}",
            "received": "2026-01-01",
            "basis": "GDPR Art. 17",
            "scope": "document_id",
            "value": identity,
            "decision": "granted",
            "effective_date": day,
        }
        for number, identity in enumerate(identities)
    ]
    folder.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    remove(folder.with_suffix(".jsonl"), folder)
    return str(folder)


def long_documents(store, name, count):
    """Returns the ids of the longest documents of a source."""
    table = TokenStore.open(store).source(name).documents
    order = np.argsort(-table["tokens"].to_numpy(), kind="stable")[:count]
    return [table["document_id"][int(number)].as_py() for number in order]


@pytest.fixture
def named(store, tmp_path):
    """Folder of tombstones that name six documents that are trained on and one that is held out."""
    identities = [*long_documents(store, "one", 4), *long_documents(store, "two", 2)]
    return tombstones_of(tmp_path / "named", *identities, *long_documents(store, "held_out", 1))


def test_store_with_removed_documents_is_refused_before_writing(store, named, tmp_path):
    with pytest.raises(
        UserError, match=r"holds 7 documents that removal requests in .* request R-0;.*'mask'"
    ) as raised:
        small_run(store, tmp_path / "run", tombstones=named)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_tombstones_that_name_nothing_change_no_bit(store, finished_run, tmp_path):
    nothing = tombstones_of(tmp_path / "nothing", "0" * 32)
    small_run(store, tmp_path / "run", training={"keep_last": 9}, tombstones=nothing, on_tombstoned="mask")
    assert_same_end(finished_run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())["tombstones"]
    assert (record["masked_documents"], record["masked_tokens"], record["requests_in_effect"]) == (0, 0, 1)


def test_masking_is_recorded_and_takes_labels_out_of_the_loss(store, finished_run, named, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        small_run(store, tmp_path / "run", tombstones=named, on_tombstoned="mask")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["tombstones"]["masked_documents"] == 6 and record["tombstones"]["named_held_out_documents"] == 1
    opened = TokenStore.open(store)
    sizes = {
        identity: tokens
        for name in opened.training_sources
        for identity, tokens in zip(
            *(opened.source(name).documents[column].to_pylist() for column in ("document_id", "tokens")), strict=True
        )
    }
    named_ids = [*long_documents(store, "one", 4), *long_documents(store, "two", 2)]
    tokens = sum(sizes[identity] for identity in named_ids)
    assert record["tombstones"]["masked_tokens"] == tokens
    assert f"6 documents with {tokens} tokens masked" in caplog.text and "1 held-out documents" in caplog.text
    kept = [[row["kept_fraction"] for row in logged(folder)] for folder in (finished_run, tmp_path / "run")]
    assert all(masked < plain for plain, masked in zip(*kept, strict=True))


def test_no_gradient_depends_on_a_masked_document(store, named, finished_run):
    """Loss and gradients of a batch stay, bit for bit, when the tokens of masked documents become others."""
    opened = TokenStore.open(store)
    stream = stream_of_store(
        opened, Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})]), BatchSchedule(8), 32, 28, 12
    )
    masked = find_tombstoned(opened, open_tombstones(named), day_of_run("")).numbers
    plain = BatchLoader(stream, 512, opened.eod_id)
    masking = BatchLoader(stream, 512, opened.eod_id, masked_documents=masked)
    _, params = load_model(finished_run)
    gradient = jax.jit(jax.value_and_grad(lambda params, batch, weights: batch_loss(params, MODEL, batch, weights, 2)))
    changed = seams = 0
    for step in range(12):
        batch, everything = masking.batch(step), plain.batch(step)["loss_weights"]
        # Tokens that are in no loss, neither as label nor as input: those inside masked documents.
        silent = np.ones(batch["tokens"].shape, bool)
        silent[:, 1:] &= (batch["loss_weights"] == 0) & (everything == 1)
        silent[:, :-1] &= (batch["loss_weights"] == 0) & (everything == 1)
        silent &= batch["tokens"] != opened.eod_id
        seams += int(
            ((batch["tokens"][:, :-1] == opened.eod_id) & (batch["loss_weights"] == 0) & (everything == 1)).sum()
        )
        changed += int(silent.sum())
        tokens = np.where(silent, 3 + (batch["tokens"] + 100) % 300, batch["tokens"])
        inputs = {name: batch[name] for name in ("positions", "segment_ids")}
        one, other = inputs | {"tokens": batch["tokens"]}, inputs | {"tokens": tokens}
        results = [gradient(params, each, batch["loss_weights"]) for each in (one, other)]
        for left, right in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_array_equal(left, right)
        if silent.sum() > 10:
            assert gradient(params, one, everything)[0] != gradient(params, other, everything)[0]
    assert changed > 100 and seams > 2, "labels right after a masked document are among the silent ones"


def test_other_tombstones_on_resume_are_shown_as_a_difference(store, named, tmp_path):
    nothing = tombstones_of(tmp_path / "nothing", "0" * 32)
    later = tombstones_of(tmp_path / "later", "0" * 32, "1" * 32, day="2026-05-01")
    settings = {"on_tombstoned": "mask", "date": "2026-04-01"}

    def run(name, **arguments):
        names = ("tombstones", "on_tombstoned", "date")
        bindings = {f"RemovalOptions.{each}": repr(arguments.get(each)) for each in names}
        return small_run(store, tmp_path / name, **arguments, caller=Caller(lambda: bindings))

    run("run", total_steps=5, tombstones=nothing, **settings)
    for changes in (
        {"tombstones": named},
        {"tombstones": None},
        {"tombstones": later},
    ):
        with pytest.raises(UserError, match="another configuration .*TOMBSTONES: '[0-9a-f]{32}, 1 in effect'"):
            run("run", **settings | changes)
    # The same requests from another place, looked up on another day, are no difference.
    moved = tombstones_of(tmp_path / "moved", "0" * 32)
    run("run", total_steps=6, tombstones=moved, date="2026-04-02")
    run("run", total_steps=7, tombstones=named, allow_config_change=True, on_tombstoned="mask")
    run("dated", total_steps=5, tombstones=later, **settings)
    with pytest.raises(UserError, match="0 in effect' -> '[0-9a-f]{32}, 2 in effect'"):
        run("dated", tombstones=later, date="2026-05-01")


def test_what_cannot_be_obeyed_is_refused(store, named, tmp_path):
    causal = dataclasses.replace(MODEL, doc_attention="causal")
    for reason, settings in (
        ("would still read", {"model": causal, "on_tombstoned": "mask"}),
        ("must be one of 'refuse', 'mask'", {"on_tombstoned": "drop"}),
        ("is not a day", {"date": "tomorrow"}),
        ("holds a token_store, not a tombstones", {"tombstones": str(store)}),
    ):
        with pytest.raises(UserError, match=reason):
            small_run(store, tmp_path / "run", **{"tombstones": named} | settings)
        assert not (tmp_path / "run").exists()
    assert small_run(store, tmp_path / "run", tombstones=named, date="2026-01-31", total_steps=1)["finished"]

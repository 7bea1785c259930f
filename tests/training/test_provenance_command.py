"""`provenance` on a real run: every step's documents against the batches that were trained on, and back."""

import functools
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest

from apertus_jax import cli
from apertus_jax.corpus.removal import remove
from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore, stream_of_store
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.provenance.provenance_command import provenance as provenance_of
from apertus_jax.errors import UserError
from tests.training.small_run import small_run

STEPS = 12


@pytest.fixture
def provenance(store):
    """The command, told where the store lies: a run started from Python does not record it."""
    return functools.partial(provenance_of, store=str(store))


def batches(store, mixture):
    """Returns the batches of the steps of `small_run`, made from its arguments and not from its record."""
    opened = TokenStore.open(store)
    stream = stream_of_store(opened, mixture, BatchSchedule(8, 16, 64), 32, 28, STEPS)
    loader = BatchLoader(stream, vocab_size=512, eod_id=opened.eod_id)
    return [loader.batch(step) for step in range(STEPS)]


def check_step(store, rows, batch):
    """Checks that the uses of a step spell its batch."""
    opened = TokenStore.open(store)
    rebuilt = np.zeros_like(batch["tokens"])
    for row in rows:
        source = opened.source(row["source"])
        assert source.documents["document_id"][row["document"]].as_py() == row["document_id"]
        begin = int(source.document_starts[row["document"]]) + row["start"]
        rebuilt[row["row"], row["offset"] : row["offset"] + row["length"]] = source.tokens(begin, row["length"])
    np.testing.assert_array_equal(rebuilt, batch["tokens"])


def test_each_step_is_explained_by_the_run_folder_alone(provenance, store, finished_run):
    expected = batches(store, Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})]))
    for step, batch in enumerate(expected):
        check_step(store, provenance(finished_run, str(step)), batch)


def test_steps_of_a_document_are_the_steps_that_name_it(provenance, store, finished_run):
    by_step = [row for step in range(STEPS) for row in provenance(finished_run, str(step))]
    for source in ("one", "two"):
        for identity in TokenStore.open(store).source(source).documents["document_id"].to_pylist()[::17]:
            expected = [row for row in by_step if row["document_id"] == identity]
            assert provenance(finished_run, identity) == expected


class CountedBlend:
    """The sources that `later` gives to samples from `change` on, each drawn on from where `earlier` had left it."""

    def __init__(self, earlier, later, change, num_samples):
        self.names = later.names
        before, after = earlier.locate(np.arange(change))[0], later.locate(np.arange(change, num_samples))[0]
        drawn = {name: int((before == number).sum()) for number, name in enumerate(earlier.names)}
        self.table = {}
        for sample, source in enumerate(after.tolist(), change):
            self.table[sample] = source, drawn[later.names[source]]
            drawn[later.names[source]] += 1

    def locate(self, samples):
        sources, draws = zip(*(self.table[sample] for sample in samples.tolist()), strict=True)
        return np.array(sources), np.array(draws)


def batches_after_change(store, earlier, later, first_step):
    """Returns the batches from a step on at which the mixture was changed, by step."""
    opened, schedule = TokenStore.open(store), BatchSchedule(8, 16, 64)
    old, new = (stream_of_store(opened, each, schedule, 32, 28, STEPS) for each in (earlier, later))
    blend = CountedBlend(old.blend, new.blend, schedule.first_sample(first_step), schedule.first_sample(STEPS))
    loader = BatchLoader(new.going_on(schedule, blend), vocab_size=512, eod_id=opened.eod_id)
    return {step: loader.batch(step) for step in range(first_step, STEPS)}


def test_steps_before_a_change_of_the_mixture_stay_explained(provenance, store, tmp_path):
    other = Mixture([MixtureStage(rates={"one": 0.1, "two": 0.9})])
    small_run(store, tmp_path / "run", total_steps=5)
    small_run(store, tmp_path / "run", mixture=other, allow_config_change=True)
    before = Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})])
    first, second = batches(store, before), batches_after_change(store, before, other, 5)
    by_step = []
    for step in range(STEPS):
        rows = provenance(tmp_path / "run", str(step))
        check_step(store, rows, (first if step < 5 else second)[step])
        by_step += rows
    identity = by_step[0]["document_id"]
    assert provenance(tmp_path / "run", identity) == [row for row in by_step if row["document_id"] == identity]


def test_texts_and_a_file_of_all_uses_on_request(provenance, store, finished_run, tmp_path, capsys):
    rows = provenance(finished_run, "3", output=str(tmp_path / "out"), show_text=True)
    written = [json.loads(line) for line in (tmp_path / "out" / "uses.jsonl").read_text().splitlines()]
    assert written == rows
    longest = max(rows, key=lambda row: row["length"])
    assert any(word in longest["text"] for word in ("sun", "moon", "river", "stone", "bread"))
    shown = capsys.readouterr().out
    assert "step 3" in shown and f"{len(rows)} stretches" in shown
    with pytest.raises(UserError, match="out"):
        provenance(finished_run, "4", output=str(tmp_path / "out"), show_text=True)


def test_held_out_documents_were_unread_and_strangers_are_named(provenance, store, finished_run, capsys):
    held_out = TokenStore.open(store).source("held_out").documents["document_id"][0].as_py()
    assert provenance(finished_run, held_out) == []
    shown = " ".join(capsys.readouterr().out.split())
    assert "not read in 12 steps; 1 of 1 documents held out" in shown
    for question in ("0" * 32, "https://example.org/nowhere", "request-1"):
        with pytest.raises(UserError, match="apertus why"):
            provenance(finished_run, question)


def test_removal_request_is_answered_with_its_documents_steps(provenance, store, finished_run, tmp_path):
    table = TokenStore.open(store).source("one").documents
    identities = table["document_id"].to_pylist()[:3]
    requests = [
        {"id": f"case-{number}", "scope": "document_id", "value": identity, "received": "2026-01-01"}
        | {"basis": "asked", "decision": "granted", "effective_date": "2026-01-02"}
        for number, identity in enumerate(identities)
    ]
    (tmp_path / "requests.jsonl").write_text("".join(json.dumps(each) + "\n" for each in requests))
    remove(tmp_path / "requests.jsonl", tmp_path / "tombstones")
    for number, identity in enumerate(identities):
        found = provenance(finished_run, f"case-{number}", tombstones=str(tmp_path / "tombstones"))
        assert found == provenance(finished_run, identity)
    with pytest.raises(UserError, match="case-9"):
        provenance(finished_run, "case-9", tombstones=str(tmp_path / "tombstones"))


def test_questions_beyond_the_run_are_refused_unless_asked_for(provenance, finished_run):
    with pytest.raises(UserError, match="has done 12 steps"):
        provenance(finished_run, "12")
    assert provenance(finished_run, "12", steps=13)


def test_the_command_line_answers_and_refuses_in_one_line(store, finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    arguments = ["provenance", "2", f"--input={run}"]
    assert cli.main(arguments) == 2  # started from Python, so the place of the store is not known
    record = json.loads((run / "run.json").read_text())
    record["config"]["pretrain.store"] = repr(str(store))
    (run / "run.json").write_text(json.dumps(record))
    assert cli.main(arguments) == 0
    assert "step 2" in capsys.readouterr().out
    assert cli.main([*arguments, f"--gin.provenance.store='{tmp_path}'"]) == 2
    assert cli.main(["provenance", "2", f"--input={tmp_path}"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_addresses_name_documents(tmp_path):
    from apertus_jax.data import tokenize

    documents = [
        {"id": str(number), "text": "sun moon river stone " * 30, "url": f"https://h{number}.example/page"}
        for number in range(12)
    ]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    tokenize({"one": str(tmp_path / "one.jsonl")}, tmp_path / "store", vocab_size=384)
    small_run(tmp_path / "store", tmp_path / "run", mixture=Mixture(), total_steps=3)
    rows = provenance_of(tmp_path / "run", "https://h3.example/page", store=str(tmp_path / "store"))
    assert rows and {row["url"] for row in rows} == {"https://h3.example/page"}
    table = pyarrow.parquet.read_table(tmp_path / "store" / "sources" / "one" / "documents.parquet")
    assert {table["url"][row["document"]].as_py() for row in rows} == {"https://h3.example/page"}

"""Removal requests against a token store: what is found, what a batch leaves out, and which steps saw it."""

import datetime
import json

import numpy as np
import pytest

from apertus_jax.corpus.removal import Tombstones, remove, text_digest
from apertus_jax.data import BatchLoader, BatchSchedule, Mixture, TokenStore, stream_of_store, tokenize
from apertus_jax.data.provenance.tombstoned_documents import find_tombstoned, store_is_older_than
from apertus_jax.data.provenance.uses import uses_of_document, uses_of_step
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

DAY = datetime.date(2026, 6, 1)
LENGTH = 24
STEPS = 20


def row(number, **fields):
    words = " ".join(f"word{number * 7 + place}" for place in range(4 + number % 9))
    return {
        "id": f"d-{number}",
        "text": f"Text {number}: {words}.",
        "url": f"https://h{number % 6}.example/{number}",
    } | fields


def write_rows(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)


def write_tombstones(folder, *requests, **settings):
    fields = {"received": "2026-01-01", "basis": "GDPR Art. 17", "decision": "granted", "effective_date": "2026-02-01"}
    write_rows(folder.with_suffix(".jsonl"), [fields | request for request in requests])
    remove(folder.with_suffix(".jsonl"), folder, **settings)
    return Tombstones.open(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tombstones")
    one = write_rows(folder / "one.jsonl", [row(number) for number in range(40)])
    two = write_rows(folder / "two.jsonl", [row(number, cluster="c" * 32) for number in range(40, 60)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("apertus_jax.data.store.tokenize_command.ROWS_PER_GROUP", 7)  # tables of several batches
        tokenize({"one": one, "two": two}, folder / "store", vocab_size=400, held_out_fraction=0.1, progress=False)
    return TokenStore.open(folder / "store")


def documents_named(store, predicate):
    found = set()
    for name in store.source_names:
        for number, document in enumerate(store.source(name).documents.to_pylist()):
            if predicate(document):
                found.add((name, number))
    return found


def test_store_records_text_digest_and_cluster_of_each_document(store):
    texts = {f"https://h{number % 6}.example/{number}": row(number)["text"] for number in range(60)}
    for name in store.source_names:
        for document in store.source(name).documents.to_pylist():
            assert document["text_digest"] == text_digest(texts[document["url"]])
            assert document["cluster"] == ("c" * 32 if int(document["url"].rpartition("/")[2]) >= 40 else "")


def test_documents_are_found_in_every_source_by_every_scope(store, tmp_path):
    identity = store.source("one").documents["document_id"][3].as_py()
    text = row(45)["text"].upper()
    tombstones = write_tombstones(
        tmp_path / "tombstones",
        {"id": "host", "scope": "host", "value": "h2.example"},
        {"id": "prefix", "scope": "url_prefix", "value": "https://h3.example/5"},
        {"id": "page", "scope": "url", "value": "HTTP://H4.example:80/%34"},
        {"id": "id", "scope": "document_id", "value": identity},
        {"id": "text", "scope": "text_digest", "value": text_digest(text)},
        {"id": "later", "scope": "host", "value": "h1.example", "effective_date": "2026-06-02"},
    )
    found = find_tombstoned(store, tombstones, DAY)
    host = documents_named(store, lambda document: "//h2." in document["url"])
    assert set(found.documents_of("host")) >= host - set(found.documents_of("id")) and len(host) == 10
    assert {name for name, _ in host} == {"held_out", "one", "two"}
    assert set(found.documents_of("prefix")) == documents_named(
        store, lambda d: d["url"].startswith("https://h3.example/5")
    )
    assert set(found.documents_of("text")) == documents_named(store, lambda d: d["url"].endswith("/45"))
    page = documents_named(store, lambda d: d["url"] == "https://h4.example/4")
    assert found.documents_of("later") == [] and set(found.documents_of("page")) == page and len(page) == 1
    everything = page | host | set(found.documents_of("prefix")) | set(found.documents_of("text")) | {("one", 3)}
    assert {(n, i) for n, numbers in found.numbers.items() for i in numbers.tolist()} == everything
    assert found.num_documents == len(everything)
    training = {(name, number) for name, number in everything if name != "held_out"}
    assert found.num_training_documents == len(training) < len(everything)
    sizes = [store.source(name).documents["tokens"][number].as_py() for name, number in training]
    assert found.num_training_tokens == sum(sizes)


@pytest.fixture(params=["windows", "best_fit"])
def stream(request, store):
    return stream_of_store(store, Mixture(sample_index=request.param), BatchSchedule(4), LENGTH, 3, STEPS)


def test_masked_documents_give_no_loss_and_others_are_unchanged(store, stream, tmp_path):
    tombstones = write_tombstones(tmp_path / "t", {"id": "host", "scope": "host", "value": "h2.example"})
    masked = find_tombstoned(store, tombstones, DAY).numbers
    plain = BatchLoader(stream, store.vocab_size, store.eod_id)
    masking = BatchLoader(stream, store.vocab_size, store.eod_id, masked_documents=masked)
    lost = 0
    for step in range(STEPS):
        before, after = plain.batch(step), masking.batch(step)
        owner = np.zeros((4, LENGTH + 1), dtype=bool)
        for use in uses_of_step(stream, step):
            owner[use.row, use.offset : use.offset + use.length] = use.document in masked.get(use.source, ())
        expected = before["loss_weights"] * ~(owner[:, :-1] | owner[:, 1:])
        np.testing.assert_array_equal(after.pop("loss_weights"), expected)
        lost += before.pop("loss_weights").sum() - expected.sum()
        for name, array in before.items():
            np.testing.assert_array_equal(array, after[name])
    assert lost > 50


def test_steps_of_a_request_are_those_that_read_its_documents(store, stream, tmp_path):
    tombstones = write_tombstones(
        tmp_path / "t",
        {"id": "host", "scope": "host", "value": "h2.example"},
        {"id": "none", "scope": "host", "value": "h9.example"},
    )
    found = find_tombstoned(store, tombstones, DAY)
    urls = {name: store.source(name).documents["url"].to_pylist() for name in store.source_names}
    expected = [
        use for step in range(STEPS) for use in uses_of_step(stream, step) if "//h2." in urls[use.source][use.document]
    ]
    trained = {entry.source for entry in stream.sources}
    uses = [
        use
        for source, document in found.documents_of("host")
        if source in trained
        for use in uses_of_document(stream, source, document, STEPS)
    ]
    assert sorted(uses, key=lambda use: (use.sample_id, use.offset)) == expected and len(expected) > 10
    assert found.documents_of("none") == []


def prepared(folder, rows, applied):
    """Writes what `prepare` writes, as far as tombstones go."""
    with artifacts.build(folder, "corpus", {}) as build:
        write_rows(build.path / "documents.jsonl", rows)
        build.summary["tombstones"] = applied
    return str(folder)


def test_store_of_a_corpus_under_the_tombstones_is_taken_unread(tmp_path, monkeypatch):
    first = write_tombstones(tmp_path / "v1", {"id": "A", "scope": "host", "value": "h2.example"})
    requests = (
        {"id": "A", "scope": "host", "value": "h2.example"},
        {"id": "B", "scope": "host", "value": "h3.example", "effective_date": "2026-09-01"},
    )
    second = write_tombstones(tmp_path / "v2", *requests, supersedes=tmp_path / "v1")
    rows = [each for each in map(row, range(30)) if "//h2." not in each["url"]]

    def store_of(name, *applied):
        inputs = [
            prepared(tmp_path / f"{name}-{number}", rows[number::2], record) for number, record in enumerate(applied)
        ]
        tokenize(inputs, tmp_path / name, vocab_size=400, held_out_fraction=0, progress=False)
        return TokenStore.open(tmp_path / name)

    old, new = first.applied(DAY).as_json(), second.applied(DAY).as_json()
    built = store_of("built", new, new)
    assert built.summary["tombstones"] == [new, new]
    assert not store_is_older_than(built, second, DAY) and not store_is_older_than(built, first, DAY)
    with monkeypatch.context() as patched:
        patched.setattr("apertus_jax.data.provenance.tombstoned_documents._find_in_source", None)
        assert find_tombstoned(built, second, DAY).num_documents == 0
    assert store_is_older_than(built, second, datetime.date(2026, 9, 1))
    assert find_tombstoned(built, second, datetime.date(2026, 9, 1)).num_documents == 5
    assert store_is_older_than(store_of("partly", new, old), second, DAY)
    assert store_is_older_than(store_of("without", new, None), second, DAY)


def test_an_older_format_is_refused_with_what_to_do(store, tmp_path, monkeypatch):
    tombstones = write_tombstones(tmp_path / "t", {"id": "A", "scope": "host", "value": "h2.example"})
    source = store.source("one")
    monkeypatch.setitem(vars(source), "documents", source.documents.drop_columns(["text_digest"]))
    with pytest.raises(UserError, match="has no text_digest of its documents.*tokenize its documents again"):
        find_tombstoned(store, tombstones, DAY)

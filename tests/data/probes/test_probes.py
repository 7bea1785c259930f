"""Planted probes: exact copies in an ordinary source of the store, and a ledger of what the run really saw."""

import collections
import csv
import json

import numpy as np
import pytest

from apertus_jax.corpus.documents import read_documents
from apertus_jax.data import BatchSchedule, Mixture, MixtureStage, TokenStore, stream_of_store, tokenize
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.probes.probes import (
    PlantedProbe,
    ProbeText,
    deal_into_buckets,
    exposure_ledger,
    exposure_of_bucket,
    gram_overlap,
    plant_probes,
    read_probes,
    write_exposure_ledger,
)
from apertus_jax.data.provenance.uses import Phase
from apertus_jax.data.sample_order.sample_stream import build_stream
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

LENGTH, STEPS = 24, 40
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "knoll", "lagoon", "meadow"]


def make_text(seed, words=30):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words)) + "."


TEXTS = {
    "0a": [make_text(0), make_text(1)],
    "1": [make_text(2)],
    "3": [make_text(3), make_text(4)],
    "12": [make_text(5)],
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes")
    background = [{"text": make_text(1000 + number), "source": "web"} for number in range(40)]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in background))
    plant_probes(folder / "probes", TEXTS, documents=str(folder / "web.jsonl"))
    documents = {"web": str(folder / "web.jsonl"), "probes": str(folder / "probes")}
    tokenize(documents, folder / "store", vocab_size=640, held_out_fraction=0.0, progress=False)
    return folder


@pytest.fixture(scope="module")
def store(planted):
    return TokenStore.open(planted / "store")


def make_stream(store, sample_index):
    mixture = Mixture((MixtureStage(rates={"web": 3, "probes": 1}),), 16, sample_index)
    return stream_of_store(store, mixture, BatchSchedule(4), LENGTH, 7, STEPS)


def test_copies_are_documents_of_the_cluster_of_their_probe(planted):
    documents = list(read_documents(planted / "probes"))
    assert len(documents) == 1 + 2 * 3 + 12
    assert len({document.document_id for document in documents}) == len(documents)
    found = collections.Counter((document.cluster, document.text) for document in documents)
    probes = read_probes(planted / "probes")
    assert found == {(probe.probe, probe.text): probe.copies for probe in probes if probe.copies}
    assert [(probe.bucket, probe.index) for probe in probes] == [
        ("0a", 0), ("0a", 1), ("1", 0), ("3", 0), ("3", 1), ("12", 0),
    ]  # fmt: skip
    by_id = {document.document_id: document.text for document in documents}
    assert all(by_id[probe.probe] == probe.text for probe in probes if probe.copies)


def test_planted_folder_is_an_ordinary_source_of_the_store(store, planted):
    source = store.source("probes")
    assert source.num_documents == 19
    texts = collections.Counter(
        store.tokenizer.decode(source.document(number)[1:-1]) for number in range(source.num_documents)
    )
    assert texts == {probe.text: probe.copies for probe in read_probes(planted / "probes") if probe.copies}


@pytest.mark.parametrize("sample_index", ["windows", "best_fit"])
def test_ledger_counts_what_reading_every_batch_finds(store, planted, sample_index):
    stream = make_stream(store, sample_index)
    loader = BatchLoader(stream, store.vocab_size, store.eod_id)
    batches = [loader.batch(step) for step in range(STEPS)]
    probes = read_probes(planted / "probes")
    ledger = exposure_ledger([Phase(0, None, stream)], probes, STEPS)
    assert [each.probe for each in ledger] == [probe.probe for probe in probes]
    endings = collections.Counter()
    for batch in batches:
        for row in batch["tokens"].tolist():
            endings.update(tuple(row[max(0, end - 8) : end]) for end in range(9, len(row)) if row[end] == store.eod_id)
    for probe, each in zip(probes, ledger, strict=True):
        ids = store.tokenizer.encode(probe.text)
        document = np.array([store.bod_id, *ids, store.eod_id])
        for use in each.uses:
            row = batches[use.step]["tokens"][use.row]
            assert batches[use.step]["sample_ids"][use.row] == use.sample_id
            np.testing.assert_array_equal(
                row[use.offset : use.offset + use.length], document[use.start : use.start + use.length]
            )
        assert each.planned == probe.copies and each.missing == 0
        # Where a text's last eight tokens stand together, its last token was a label; windows may cut some.
        assert endings[tuple(ids[-8:].tolist())] <= each.exposures + each.partial
        if not probe.copies:
            assert each.uses == () and each.exposures == 0
    by_bucket = {each.bucket: each.exposures for each in ledger}
    assert by_bucket["12"] > by_bucket["3"] > by_bucket["0a"] == 0


def test_exposures_of_whole_documents_are_occurrences_of_text(make_source):
    """Documents as long as a window, so that each is cut in two: a copy counts when both pieces were labels."""
    documents = [[1, *range(10 * number + 3, 10 * number + 13), 2] for number in range(9)]
    source = make_source(documents, "probes")
    probe = PlantedProbe("probes-4", "1", 0, 1, "", "text")
    stream = build_stream({"probes": source}, Mixture(), BatchSchedule(1), 5, seed=0)
    loader = BatchLoader(stream, 500, 2)
    whole = []
    for steps in range(60):
        labels = collections.Counter()
        for step in range(steps):
            labels.update(loader.batch(step)["tokens"][0, 1:].tolist())
        (found,) = exposure_ledger([Phase(0, None, stream)], [probe], steps)
        counts = [labels[token] for token in documents[4][1:-1]]
        assert (found.exposures, found.partial) == (min(counts), max(counts) - min(counts))
        whole.append(found.exposures)
    assert whole[0] == 0 and whole[-1] >= 2 and (np.diff(whole) >= 0).all()


def test_copies_outside_the_run_are_counted_as_missing(store, planted):
    sources = {"web": store.source("web")}
    stream = build_stream(sources, Mixture(), BatchSchedule(4), LENGTH, 7)
    probes = read_probes(planted / "probes")
    for probe, each in zip(probes, exposure_ledger([Phase(0, None, stream)], probes, STEPS), strict=True):
        assert each.missing == probe.copies and each.exposures == 0


def test_ledger_file_holds_step_row_and_place_of_every_use(store, planted, tmp_path):
    stream = make_stream(store, "windows")
    ledger = exposure_ledger([Phase(0, None, stream)], read_probes(planted / "probes"), STEPS)
    write_exposure_ledger(tmp_path / "exposures.jsonl", ledger)
    rows = [json.loads(line) for line in (tmp_path / "exposures.jsonl").read_text().splitlines()]
    for row, each in zip(rows, ledger, strict=True):
        assert (row["probe"], row["exposures"]) == (each.probe, each.exposures)
        assert row["uses"] == [[u.step, u.row, u.sample_id, u.offset, u.start, u.length] for u in each.uses]


def test_overlap_is_the_share_of_13_grams_in_other_training_text(tmp_path):
    words = [f"w{number}" for number in range(100)]
    own, half = " ".join(words[:40]), " ".join([*words[:26], *(f"x{number}" for number in range(14))])
    grams = {tuple(words[i : i + 13]) for i in range(28)}
    other = {tuple(half.split()[i : i + 13]) for i in range(28)}
    expected = len(grams & other) / len(grams)
    assert expected == 0.5
    assert gram_overlap([own, "short text"], ["nothing", half]).tolist() == [expected, 0.0]
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": half}) + "\n")
    control, planted = " ".join(words[50:90]), " ".join([*words[50:76], *(f"y{number}" for number in range(14))])
    plant_probes(tmp_path / "probes", {0: [control], 1: [own], 2: [planted]}, documents=str(tmp_path / "web.jsonl"))
    # A control is spoilt by a planted probe that shares its passages, but not the other way round.
    assert [probe.overlap for probe in read_probes(tmp_path / "probes")] == [0.5, 0.5, 0.0]


def test_near_duplicates_take_turns_among_the_copies(tmp_path):
    probe = ProbeText("first spelling of it", ("first  spelling of it", "first spelling\nof it"))
    plant_probes(tmp_path / "probes", {"0a": ["unseen"], "7": [probe]})
    documents = list(read_documents(tmp_path / "probes"))
    assert collections.Counter(document.text for document in documents) == {
        probe.text: 3, probe.variants[0]: 2, probe.variants[1]: 2,
    }  # fmt: skip
    assert len({document.cluster for document in documents}) == 1


def test_probe_bytes_are_fixed_and_commitments_hide_their_texts(tmp_path):
    for name, secret in (("one", ""), ("two", ""), ("hidden", "salt")):
        plant_probes(tmp_path / name, TEXTS, secret=secret)
    files = ("documents.jsonl", "probes.json", "commitments.csv", artifacts.COMMIT_MARKER)
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    tables = [list(csv.DictReader((tmp_path / name / "commitments.csv").open())) for name in ("one", "hidden")]
    assert not {row["commitment"] for row in tables[0]} & {row["commitment"] for row in tables[1]}
    assert [row["copies"] for row in tables[0]] == ["0", "0", "1", "3", "3", "12"]


def test_token_ids_are_planted_only_if_their_text_restores_them(store, tmp_path):
    ids = store.tokenizer.encode(make_text(77))
    plant_probes(tmp_path / "probes", {"0a": ["unseen"], "2": [ids]}, tokenizer=store.tokenizer)
    assert read_probes(tmp_path / "probes")[-1].text == make_text(77)
    split = [*store.tokenizer.encode("am"), *store.tokenizer.encode("ber")]
    assert len(split) != len(store.tokenizer.encode("amber"))
    with pytest.raises(UserError, match="probe 0 of bucket 2: its token ids"):
        plant_probes(tmp_path / "again", {"2": [split]}, tokenizer=store.tokenizer)


def test_texts_are_dealt_once_each_at_random():
    texts = [str(number) for number in range(50)]
    dealt = deal_into_buckets(texts, ["0a", 1, 128], 12, seed=3)
    everything = [text for bucket in dealt.values() for text in bucket]
    assert list(dealt) == ["0a", "1", "128"] and len(set(everything)) == 36
    assert dealt != deal_into_buckets(texts, ["0a", 1, 128], 12, seed=4)
    assert [exposure_of_bucket(name) for name in dealt] == [0, 1, 128]


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ({}, "no probes were given"),
        ({"0a": []}, "no probes were given"),
        ({"0a": ["text"]}, "all probes are controls"),
        ({"often": ["text"]}, "probe bucket 'often' must be a number"),
        ({"1": ["  "]}, "probe 0 of bucket 1 is empty"),
        ({"1": ["text"], "2": ["other", "text"]}, "probe 1 of bucket 2 has the text of probe 0 of bucket 1"),
        ({"1": [[5, 6]]}, "probe 0 of bucket 1 is given as token ids"),
    ],
)
def test_bad_probes_are_one_line_and_leave_nothing(tmp_path, buckets, message):
    with pytest.raises(UserError, match=message) as error:
        plant_probes(tmp_path / "probes", buckets)
    assert "\n" not in str(error.value) and not (tmp_path / "probes").exists()


def test_too_few_texts_for_the_buckets_are_refused():
    with pytest.raises(UserError, match="2 buckets of 3 probes need 6 texts, there are 5"):
        deal_into_buckets(["a"] * 5, [0, 1], 3, seed=0)

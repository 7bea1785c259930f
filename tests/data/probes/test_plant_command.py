"""Planting by command: which passages become probes, and that none of their copies is kept from training."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apertus_jax.cli import main
from apertus_jax.corpus.documents import Document, document_id, read_documents
from apertus_jax.data import TokenStore, check_store
from apertus_jax.data.probes.plant_probes_command import choose_passages, passages, plant
from apertus_jax.data.probes.probes import read_probes
from apertus_jax.errors import UserError

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "knoll", "lagoon", "meadow"]


def make_text(seed, words=60):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words)) + "."


def make_documents(seeds, source="web"):
    return [
        Document(document_id=document_id("test", source, str(seed)), text=make_text(seed), source=source)
        for seed in seeds
    ]


def write_jsonl(path, seeds, source="web"):
    rows = [{"text": make_text(seed), "source": source, "language": "eng_Latn"} for seed in seeds]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@given(st.text(alphabet="ab \n字", max_size=300), st.integers(1, 50))
def test_passages_are_consecutive_and_of_the_length_asked_for(text, characters):
    found = list(passages(text, characters))
    place = 0
    for passage in found:
        at = text.index(passage, place)
        assert not text[place:at].strip()
        place = at + len(passage)
        assert len(passage) <= characters + characters // 10
        assert len(passage) == len(passage.strip())
        following = text[place : place + 1]
        assert not following or following.isspace() or len(passage) == characters
    assert len(text[place:].strip()) < characters


@given(st.lists(st.integers(0, 8), max_size=12), st.integers(0, 12), st.integers(0, 3), st.randoms())
def test_choice_is_the_keyed_hash_s_in_any_order_of_documents(seeds, count, seed, random):
    documents = [Document(document_id=f"{n:032x}", text=make_text(s), source="web") for n, s in enumerate(seeds)]
    key = f"apertus_jax probes {seed}".encode()
    everything = {passage for document in documents for passage in passages(document.text, 60)}
    expected = sorted(everything, key=lambda text: hashlib.blake2b(text.encode(), digest_size=8, key=key).digest())
    random.shuffle(documents)
    assert choose_passages(documents, 60, count, seed) == expected[:count]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    web = write_jsonl(folder / "web.jsonl", range(200))
    unseen = write_jsonl(folder / "unseen.jsonl", range(1000, 1030), source="unseen")
    assert main(
        [
            "plant-probes",
            f"--input={unseen}",
            f"--output={folder / 'probes'}",
            "--gin.plant.buckets=['0a', 1, 5]",
            "--gin.plant.per_bucket=4",
            "--gin.plant.characters=300",
            f"--gin.plant.documents='{web}'",
        ]
    ) == 0  # fmt: skip
    (folder / "secret").write_text("a secret of the tests alone\n")
    assert main(
        [
            "plant-canaries",
            f"--output={folder / 'canaries'}",
            f"--gin.plant_canaries.secret_file='{folder / 'secret'}'",
            "--gin.plant_canaries.plan=@CanaryPlan()",
            "--gin.CanaryPlan.kinds=['characters']",
            "--gin.CanaryPlan.references=31",
        ]
    ) == 0  # fmt: skip
    assert main(
        [
            "tokenize",
            f"--input={web}",
            f"--output={folder / 'store'}",
            f"--gin.tokenize.planted=['{folder / 'probes'}', '{folder / 'canaries'}']",
            "--gin.tokenize.vocab_size=400",
            "--gin.tokenize.held_out_fraction=0.3",
        ]
    ) == 0  # fmt: skip
    return folder


def ids_of(store, source):
    return store.source(source).documents.column("document_id").to_pylist()


@pytest.mark.parametrize("kind", ["probes", "canaries"])
def test_every_copy_is_in_training_although_much_is_held_out(folder, kind):
    store = TokenStore.open(folder / "store")
    planted = {document.document_id for document in read_documents(folder / kind / "documents.jsonl")}
    assert store.has_held_out and len(ids_of(store, "held_out")) > 20
    assert set(ids_of(store, kind)) == planted
    assert check_store(store).is_clean


def test_probes_have_the_exposures_asked_for_and_counted_overlap(folder):
    probes = read_probes(folder / "probes")
    assert sorted(probe.copies for probe in probes) == [0] * 4 + [1] * 4 + [5] * 4
    assert {len(probe.text) // 10 for probe in probes} <= set(range(29, 34))
    assert all(probe.overlap == 0.0 for probe in probes)


def test_document_that_shares_text_with_a_probe_is_not_held_out(tmp_path):
    web = write_jsonl(tmp_path / "web.jsonl", range(40))
    plant(web, tmp_path / "probes", buckets=(0, 1), per_bucket=10, characters=300)
    shared = {probe.text for probe in read_probes(tmp_path / "probes") if probe.copies}
    assert main(
        [
            "tokenize",
            f"--input={web}",
            f"--output={tmp_path / 'store'}",
            f"--gin.tokenize.planted='{tmp_path / 'probes'}'",
            "--gin.tokenize.vocab_size=400",
            "--gin.tokenize.held_out_fraction=0.4",
        ]
    ) == 0  # fmt: skip
    store = TokenStore.open(tmp_path / "store")
    held = store.source("held_out")
    texts = [store.tokenizer.decode(held.document(number)[1:-1]) for number in range(held.num_documents)]
    assert len(texts) >= 8
    assert not [text for text in texts if any(text.startswith(probe) for probe in shared)]
    assert check_store(store).is_clean


def test_only_documents_of_the_sources_asked_for_are_planted(tmp_path):
    both = [write_jsonl(tmp_path / "a.jsonl", range(10), "a"), write_jsonl(tmp_path / "b.jsonl", range(10, 20), "b")]
    plant(both, tmp_path / "probes", buckets=(0, 2), per_bucket=4, characters=200, sources=("b",))
    from_b = {make_text(seed) for seed in range(10, 20)}
    for probe in read_probes(tmp_path / "probes"):
        assert any(probe.text in text for text in from_b)


def test_planting_from_little_text_or_wrong_folders_is_one_line(tmp_path, capsys):
    few = write_jsonl(tmp_path / "few.jsonl", range(3))
    with pytest.raises(UserError, match=r"gives 3 passages of 300 characters, 2 buckets of 4 probes need 8"):
        plant(few, tmp_path / "probes", buckets=(0, 1), per_bucket=4, characters=300)
    assert not (tmp_path / "probes").exists()
    (tmp_path / "other").mkdir()
    write_jsonl(tmp_path / "other" / "few.jsonl", range(3))
    arguments = [f"--input={few}", f"--output={tmp_path / 'store'}", f"--gin.tokenize.planted='{tmp_path / 'other'}'"]
    assert main(["tokenize", *arguments]) == 2
    assert "not planted texts; give what plant-probes or plant-canaries wrote" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_passages_are_as_long_as_texts_allow_by_default(tmp_path):
    texts = tmp_path / "texts.jsonl"
    rows = [{"text": make_text(seed, words=150)} for seed in range(20)]  # about 900 characters each
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plant(str(texts), tmp_path / "probes", per_bucket=2)
    lengths = [len(probe.text) for probe in read_probes(tmp_path / "probes")]
    assert len(lengths) == 20 and min(lengths) >= 700 and max(lengths) <= 770
    with pytest.raises(UserError, match="0 passages of 4000 characters"):
        plant(str(texts), tmp_path / "other", per_bucket=2, characters=4000)
    with pytest.raises(UserError, match="passages of 300 characters"):
        plant(str(texts), tmp_path / "other", per_bucket=100)

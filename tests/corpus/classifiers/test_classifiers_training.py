"""Classifier folders: training from labelled texts, scoring with them, and inputs that must be refused."""

import dataclasses
import gzip
import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from apertus_jax.corpus.classifiers import (
    ClassifierScoring,
    HashedNgramEmbedding,
    HeadRecipe,
    load_classifier,
    train_classifier,
)
from apertus_jax.corpus.classifiers.keyed_hash import document_key
from apertus_jax.corpus.classifiers.labelled_texts import passage_detector
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.errors import UserError

GOOD_ENGLISH = "river mountain harvest letter garden winter teacher bread window evening story music"
GOOD_GERMAN = "Fluss Berg Ernte Brief Garten Winter Lehrer Brot Fenster Abend Märchen Musik"
BAD_ENGLISH = "cheap casino jackpot click winner bonus pills loan crypto free deal urgent"
BAD_GERMAN = "billig Kasino Hauptgewinn klicken Sieger Prämie Kredit gratis Angebot dringend sofort Wette"
GOOD = {"eng_Latn": GOOD_ENGLISH.split(), "deu_Latn": GOOD_GERMAN.split()}
BAD = {"eng_Latn": BAD_ENGLISH.split(), "deu_Latn": BAD_GERMAN.split()}
SMALL = HashedNgramEmbedding(dimensions=512)
QUICK = HeadRecipe(0, 1, 0.0, learning_rate=0.05, batch_size=32, epochs=6)


def sentence(words, generator, length=25):
    return " ".join(generator.choice(words, length))


def examples(count=120, seed=0):
    generator = np.random.default_rng(seed)
    return [
        {"text": sentence(words[language], generator), "label": label, "language": language}
        for label, words in ((1, GOOD), (0, BAD))
        for language in words
        for _ in range(count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def raw(text, number=0):
    return RawDocument(document_id=f"{number:032x}", text=text, source="test", file="f", row=number + 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    source = write(folder / "labelled.jsonl", examples())
    flipped = write(folder / "flipped.jsonl", [{**row, "label": 1 - row["label"]} for row in examples()])
    quality = train_classifier(source, str(folder / "quality"), "quality", SMALL, QUICK, progress=False)
    recipe = dataclasses.replace(QUICK, hidden_size=8, outputs=2, dropout=0.2)
    toxicity = train_classifier(flipped, str(folder / "toxicity"), "toxicity", SMALL, recipe, progress=False)
    return folder, {"quality": quality, "toxicity": toxicity}


@pytest.fixture(scope="module")
def scoring(trained):
    folder, _ = trained
    return ClassifierScoring(str(folder / "quality"), str(folder / "toxicity"), embedder=SMALL)


def test_training_reports_figures_for_every_language(trained):
    folder, summaries = trained
    for task, summary in summaries.items():
        assert summary["auc"] > 0.99 and summary["auc_low"] <= summary["auc"] <= summary["auc_high"]
        assert sorted(summary["by_language"]) == ["deu_Latn", "eng_Latn"]
        assert sum(figures["validated"] for figures in summary["by_language"].values()) == summary["validated"]
        assert summary["validated"] + summary["documents_trained"] == summary["documents_used"] == 480
        assert 0 <= summary["calibration_error"] <= 1
        description = json.loads((folder / task / "classifier.json").read_text())
        assert description["seed"] == 42 and description["embedder"]["dimensions"] == 512
        assert description["input"] and description["languages"] == ["deu_Latn", "eng_Latn"]


def test_training_again_gives_the_same_bytes_and_keeps_work(trained, tmp_path):
    folder, summaries = trained
    source = str(folder / "labelled.jsonl")
    again = train_classifier(source, str(tmp_path / "again"), "quality", SMALL, QUICK, progress=False)
    assert again == summaries["quality"]
    for name in ("COMMITTED.json", "head.safetensors", "classifier.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "quality" / name).read_bytes()
    stamp = (folder / "quality" / "COMMITTED.json").stat().st_mtime_ns
    assert train_classifier(source, str(folder / "quality"), "quality", SMALL, QUICK, progress=False) == again
    assert (folder / "quality" / "COMMITTED.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="made with other seed"):
        train_classifier(source, str(folder / "quality"), "quality", SMALL, QUICK, seed=1, progress=False)


def test_order_of_rows_does_not_change_the_head(trained, tmp_path):
    folder, _ = trained
    shuffled = examples()
    np.random.default_rng(1).shuffle(shuffled)
    source = write(tmp_path / "shuffled.jsonl", shuffled)
    train_classifier(source, str(tmp_path / "head"), "quality", SMALL, QUICK, progress=False)
    expected = (folder / "quality" / "head.safetensors").read_bytes()
    assert (tmp_path / "head" / "head.safetensors").read_bytes() == expected


def test_parquet_and_gzip_give_the_same_head_as_jsonl(trained, tmp_path):
    folder, _ = trained
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(examples()), tmp_path / "labelled.parquet")
    with gzip.open(tmp_path / "labelled.jsonl.gz", "wb") as file:
        file.write((folder / "labelled.jsonl").read_bytes())
    for name in ("labelled.parquet", "labelled.jsonl.gz"):
        output = tmp_path / f"head-{name}"
        train_classifier(str(tmp_path / name), str(output), "quality", SMALL, QUICK, progress=False)
        expected = (folder / "quality" / "head.safetensors").read_bytes()
        assert (output / "head.safetensors").read_bytes() == expected


def test_scores_do_not_depend_on_batching(scoring):
    generator = np.random.default_rng(3)
    words = GOOD["eng_Latn"] + BAD["deu_Latn"]
    documents = [raw(sentence(words, generator, 10 + 60 * (n % 17)), n) for n in range(60)]
    scorer = scoring.build()
    alone = [scorer.score([document])[0] for document in documents]
    assert scorer.score(documents) == alone
    assert scorer.score(documents[::-1]) == alone[::-1]
    table = pyarrow.Table.from_pylist(alone, schema=pyarrow.schema(scorer.schema()))
    assert table.to_pylist() == alone
    assert all(row["quality_score"] == round(row["quality_score"], 6) for row in alone)
    assert [row["sample_key"] for row in alone] == [document_key(d.document_id, 0) for d in documents]


def test_toxicity_is_the_worst_chunk_and_quality_the_first(scoring):
    generator = np.random.default_rng(4)
    good, bad = sentence(GOOD["eng_Latn"], generator, 700), sentence(BAD["eng_Latn"], generator, 300)
    scorer = scoring.build()
    clean, hidden, open_ = scorer.score([raw(good), raw(good + " " + bad), raw(bad + " " + good)])
    assert hidden["quality_score"] == clean["quality_score"] > 0.9 > 0.1 > open_["quality_score"]
    assert hidden["toxicity_score"] > 0.9 > 0.1 > clean["toxicity_score"]
    assert open_["toxicity_score"] > 0.9


def test_document_is_embedded_once_for_all_heads(scoring, monkeypatch):
    scorer = scoring.build()
    calls = []
    embed = scorer._embedder.embed
    monkeypatch.setattr(scorer._embedder, "embed", lambda chunks: calls.append(len(chunks)) or embed(chunks))
    scorer.score([raw("word " * 1000)])
    assert calls == [3]


def test_kept_embeddings_give_the_same_scores_again(trained, scoring):
    folder, _ = trained
    scorer = dataclasses.replace(scoring, keep_embeddings=True).build()
    rows = scorer.score([raw("river garden casino " * 300)])
    stored = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(scorer.schema())).to_pylist()[0]
    vectors = np.array(stored["classifier_embeddings"], np.float16)
    toxicity = load_classifier(folder / "toxicity", "toxicity")
    assert len(vectors) > 1
    assert round(max(toxicity.score(vector) for vector in vectors), 6) == rows[0]["toxicity_score"]


def test_without_heads_only_the_sample_key_is_written():
    scorer = ClassifierScoring(seed=7).build()
    row = scorer.score([raw("text")])[0]
    assert row == {"quality_score": None, "toxicity_score": None, "sample_key": document_key("0" * 32, 7)}
    assert json.dumps(scorer.identity())


def test_benchmark_passages_are_excluded(tmp_path):
    rows = examples()
    planted = "which harvest comes before the second winter evening of the story"
    rows[3] = {**rows[3], "text": f"{rows[3]['text']} {planted.upper()}! {rows[3]['text']}"}
    source = write(tmp_path / "labelled.jsonl", rows)
    benchmark = write(tmp_path / "benchmark.jsonl", [{"text": f"Question: {planted}?"}])
    summary = train_classifier(
        source, str(tmp_path / "head"), "quality", SMALL, QUICK, exclude=benchmark, progress=False
    )
    assert summary["excluded"] == 1
    contains = passage_detector(benchmark)
    assert not contains("harvest comes before the second winter evening")  # seven words
    assert contains("harvest comes before the second winter evening of")
    short = write(tmp_path / "short.jsonl", [{"text": "人人生而自由,在尊严和权利上"}])
    assert passage_detector(short)("前言:人人生而自由,在尊严")


def test_copies_groups_balance_and_one_sided_languages(tmp_path):
    rows = examples(60)
    one_sided = [{"text": f"mot numéro {n}", "label": 1, "language": "fra_Latn"} for n in range(30)]
    generator = np.random.default_rng(9)
    more = [{"text": sentence(GOOD["eng_Latn"], generator), "label": 1, "language": "eng_Latn"} for _ in range(50)]
    contradiction = {**rows[5], "label": 0}
    source = write(tmp_path / "labelled.jsonl", [*rows, *rows[:10], *one_sided, *more, contradiction])
    summary = train_classifier(source, str(tmp_path / "head"), "quality", SMALL, QUICK, progress=False)
    assert (summary["copies"], summary["contradictions"]) == (10, 1)
    assert summary["languages_with_one_label"] == ["fra_Latn"]
    assert summary["documents_used"] == 240
    few = train_classifier(source, str(tmp_path / "few"), "quality", SMALL, QUICK, max_documents=100, progress=False)
    assert few["documents_used"] == 100


def test_groups_stay_on_one_side(tmp_path):
    """Each group has words of its own, so a group on both sides would be recognised; apart, labels are chance."""
    generator = np.random.default_rng(0)
    rows = []
    for group in range(120):
        words = ["".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), 9)) for _ in range(20)]
        label = int(generator.integers(2))
        rows += [{"text": sentence(words, generator), "label": label, "group": f"g{group}"} for _ in range(6)]
    grouped = write(tmp_path / "grouped.jsonl", rows)
    loose = write(tmp_path / "loose.jsonl", [{**row, "group": ""} for row in rows])
    options = {"validation_share": 0.3, "progress": False}
    apart = train_classifier(grouped, str(tmp_path / "a"), "quality", HashedNgramEmbedding(), QUICK, **options)
    leaked = train_classifier(loose, str(tmp_path / "b"), "quality", HashedNgramEmbedding(), QUICK, **options)
    assert leaked["auc"] > 0.95 and apart["auc"] < 0.75


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": f"text {n}", "label": 1} for n in range(200)], "only one label in every language"),
        ([{"text": f"text {n}", "label": n % 2} for n in range(12)], "gives 6 texts of label 0 .* at least 20"),
        ([{"text": "text", "label": 2}], "row 1: field label must be 0 or 1, found 2"),
        ([{"text": "text"}], "row 1: field label must be 0 or 1, found None"),
        ([{"text": "fine", "label": 1}, {"text": " ", "label": 0}], "row 2: field text"),
        ([{"text": "fine", "label": 1, "language": 3}], "row 1: field language"),
        ([[1, 2]], "row 1: a JSON object"),
    ],
)
def test_unusable_input_is_one_clear_line_and_nothing_is_written(tmp_path, rows, message):
    source = write(tmp_path / "labelled.jsonl", rows)
    with pytest.raises(UserError, match=message) as caught:
        train_classifier(source, str(tmp_path / "head"), "quality", SMALL, QUICK, progress=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "head").exists()


def test_damaged_files_are_one_clear_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x", "label": 1}\n{"text": \xff}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x", "label": 1}\n' * 999)[:-20])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 not really")
    for name, message in (("a.jsonl", "row 2: not a line"), ("b.jsonl.gz", "damaged gzip"), ("c.parquet", "readable")):
        with pytest.raises(UserError, match=message) as caught:
            train_classifier(str(tmp_path / name), str(tmp_path / "head"), embedder=SMALL, progress=False)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="task 'taste' is unknown"):
        train_classifier(str(tmp_path / "a.jsonl"), str(tmp_path / "head"), "taste")


def copied(trained, tmp_path):
    return shutil.copytree(trained[0] / "quality", tmp_path / "quality")


def test_broken_classifier_folders_are_one_clear_line(trained, tmp_path):
    folder = copied(trained, tmp_path)

    def refused(match):
        with pytest.raises(UserError, match=match) as caught:
            ClassifierScoring(quality=str(folder), embedder=SMALL).build()
        assert "\n" not in str(caught.value)

    weights = folder / "head.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8] + b"\0" * 7 + b"\1")
    refused("digest differs")
    weights.write_bytes(content[:-1])
    refused("bytes where")
    weights.unlink()
    refused("missing")
    (folder / "COMMITTED.json").unlink()
    refused("not a complete classifier")
    folder = tmp_path / "nowhere"
    refused("does not exist")


def test_classifier_of_another_task_or_embedder_is_refused(trained):
    folder, _ = trained
    with pytest.raises(UserError, match="trained for toxicity, not quality"):
        ClassifierScoring(quality=str(folder / "toxicity"), embedder=SMALL).build()
    with pytest.raises(UserError, match="embedder with dimensions 512, here it is 4096"):
        ClassifierScoring(quality=str(folder / "quality")).build()
    with pytest.raises(UserError, match="is no embedder"):
        ClassifierScoring(embedder="xlmr")

"""The overlay through `prepare`: every row ends as its truth says, and no planted value is in any output."""

import datetime
import json

import pyarrow.parquet
import pytest

from apertus_jax.corpus.classifiers import ClassifierScoring, ToxicityRule, train_classifier
from apertus_jax.corpus.contamination import ContaminationRule, ContaminationScoring
from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.duplicates import DuplicateRule, DuplicateScoring
from apertus_jax.corpus.language import LanguageRule, LanguageScoring
from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.overlay import write_overlay
from apertus_jax.corpus.overlay.phrases import INSULTS
from apertus_jax.corpus.prepare import Policy, prepare
from apertus_jax.corpus.quality import EnglishQualityRule, QualityRule, QualityScoring
from apertus_jax.corpus.removal import RemovalRule, RemovalScoring, Tombstones, remove
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring, build_robots_snapshot
from apertus_jax.corpus.signals import SignalRule, SignalScoring
from apertus_jax.corpus.sources import Source

AS_OF = "2026-11-24"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folder with the overlay below `overlay`, what was made of it, and the result of `prepare` below `out`."""
    root = tmp_path_factory.mktemp("prepared")
    overlay = root / "overlay"
    write_overlay(overlay)
    build_robots_snapshot(str(overlay / "robots"), str(root / "robots"), as_of="2025-01-31", progress=False)
    remove(overlay / "removal_requests.jsonl", root / "tombstones")
    train_classifier(str(overlay / "labelled_toxicity.jsonl"), str(root / "toxicity"), task="toxicity", progress=False)
    policy = Policy(
        name="overlay",
        consent_scoring=(
            RemovalScoring(str(root / "tombstones")),
            RobotsScoring(str(root / "robots")),
            SignalScoring(snapshot=str(root / "robots"), tdmrep=str(overlay / "tdmrep")),
            LicenceScoring(),
        ),
        consent_rules=(RemovalRule(), RobotsRule(), SignalRule(), LicenceRule(required_sources=("overlay",))),
        content_scoring=(
            LanguageScoring(),
            QualityScoring(),
            ClassifierScoring(toxicity=str(root / "toxicity")),
            ContaminationScoring(benchmarks=(str(overlay / "benchmark.jsonl"),)),
            DuplicateScoring(),
        ),
        content_rules=(
            LanguageRule(),
            QualityRule(),
            EnglishQualityRule(),
            ToxicityRule(thresholds=dict.fromkeys(INSULTS, 0.8), languages=tuple(INSULTS)),
            ContaminationRule(),
            DuplicateRule(),
        ),
    )
    source = Source(name="overlay", path=str(overlay / "documents"))
    prepare(root / "out", policy, sources=[source], launcher="inline", progress=False, as_of=AS_OF)
    return root


def test_every_row_ends_as_its_truth_says(prepared):
    truth = json.loads((prepared / "overlay" / "truth.json").read_text())
    expected = {(row["file"], row["row"]): row["reason"] for row in truth["rows"]}
    found = {}
    for path in sorted((prepared / "out").rglob("ledger*.parquet")):
        for row in pyarrow.parquet.read_table(path, columns=["file", "row", "reason"]).to_pylist():
            found[row["file"], row["row"]] = row["reason"] or ""
    assert found == expected
    kept = {document.document_id for document in read_documents(prepared / "out")}
    assert kept == {row["document_id"] for row in truth["rows"] if not row["reason"]}


def test_no_planted_value_is_in_any_output(prepared):
    values = json.loads((prepared / "overlay" / "planted_values.json").read_text())["values"]
    looked_at = 0
    for folder in (prepared / "out", prepared / "out.work"):
        for path in folder.rglob("*"):
            if not path.is_file():
                continue
            looked_at += 1
            content = path.read_bytes().decode("utf-8", "replace")
            if path.suffix == ".parquet":
                content = json.dumps(pyarrow.parquet.read_table(path).to_pylist(), default=str, ensure_ascii=False)
            for each in values:
                assert each["value"] not in content, f"{each['kind']} in {path.name}"
    assert looked_at > 10 and len(values) > 80


def test_a_store_of_the_next_build_obeys_and_says_so_while_the_old_one_is_found_out(prepared, tmp_path):
    from apertus_jax.data import TokenStore, find_tombstoned, store_is_older_than, tokenize

    tombstones = Tombstones.open(prepared / "tombstones")
    day = datetime.date.fromisoformat(AS_OF)
    removed = [
        row["document_id"]
        for row in json.loads((prepared / "overlay" / "truth.json").read_text())["rows"]
        if row["reason"] == "removed_on_request"
    ]
    tokenize(str(prepared / "out"), tmp_path / "new", vocab_size=500, progress=False)
    new = TokenStore.open(tmp_path / "new")
    assert not store_is_older_than(new, tombstones, day) and find_tombstoned(new, tombstones, day).num_documents == 0
    part = prepared / "overlay" / "documents" / "part-0.jsonl"
    lines = []
    for line in part.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("document_id", "") in removed:
            lines.append(json.dumps(row))
    assert lines
    (tmp_path / "old.jsonl").write_text("\n".join(lines) + "\n")
    tokenize(str(tmp_path / "old.jsonl"), tmp_path / "old", vocab_size=400, held_out_fraction=0, progress=False)
    old = TokenStore.open(tmp_path / "old")
    assert store_is_older_than(old, tombstones, day)
    assert find_tombstoned(old, tombstones, day).num_documents == old.num_documents == len(lines)

"""The whole way of a crawl-like corpus in which everything planted is known: funnel, ledger, what never shows."""

import collections
import datetime
import json
import re
from pathlib import Path

import gin
import pyarrow.parquet
import pytest

from apertus_jax import artifacts
from apertus_jax.cli import main
from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.removal import Tombstones
from apertus_jax.data import TokenStore, find_tombstoned, store_is_older_than, tokenize

STAGES = ["overlay", "robots-snapshot", "remove", "train-classifier", "prepare"]
POLICY = """
include 'policies/quickstart.gin'
run.stages = {stages}
prepare.sources = [@overlay/Source()]
prepare.as_of = '2026-11-01'
prepare.launcher = 'inline'
prepare.unit_bytes = 200_000
overlay/Source.name = 'overlay'
build_robots_snapshot.as_of = '2026-11-01'
train_classifier.task = 'toxicity'
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("overlay")
    (root / "policy.gin").write_text(POLICY.format(stages=STAGES))
    assert main(["run", f"--gin_file={root / 'policy.gin'}", f"--output={root / 'chain'}"]) == 0
    gin.clear_config()
    return root / "chain"


def rows_of(chain: Path, name: str) -> list[dict]:
    return [
        row for part in parts_of(chain / "prepared") for row in pyarrow.parquet.read_table(str(part / name)).to_pylist()
    ]


@pytest.fixture(scope="module")
def truth(chain):
    return json.loads((chain / "overlay" / "truth.json").read_text())


def test_every_decision_is_the_one_that_was_planted(chain, truth):
    decided = {(row["file"], row["row"]): row["reason"] for row in rows_of(chain, "ledger.parquet")}
    assert decided == {(row["file"], row["row"]): row["reason"] for row in truth["rows"]}


def test_every_broken_row_is_in_quarantine_under_its_reason(chain, truth):
    found = {(row["file"], row["row"]): row["reason"] for row in rows_of(chain, "quarantine.parquet")}
    assert found == {(row["file"], row["row"]): row["reason"] for row in truth["quarantine"]}


def test_the_funnel_of_the_report_agrees_with_the_truth(chain, truth):
    funnel = json.loads((chain / "prepared" / "funnel.json").read_text())
    counted = collections.Counter()
    for _, _, decision, documents, *_ in funnel["counts"]:
        counted[decision] += documents
    assert counted.pop("kept") == truth["summary"]["kept"]
    assert dict(counted) == truth["summary"]["dropped"]
    assert funnel["personal_data"] == truth["summary"]["personal_data"]
    page = (chain / "prepared" / "report.html").read_text()
    for reason, documents in truth["summary"]["dropped"].items():
        assert re.search(rf"<td>{reason}</td><td class=\"number\">{documents}</td>", page), reason


def test_what_consent_forbids_is_not_evaluated_and_all_its_verdicts_stay(chain):
    refused = [row for row in rows_of(chain, "ledger.parquet") if row["reason"] in ("robots", "opt_out_signal")]
    assert refused
    for row in refused:
        assert row["content_evaluated"] is False and row["language_label"] is None and row["toxicity_score"] is None
        assert row["robots_verdict"] and row["signals_verdict"] and row["licence_class"]
    lines = [row["robots_line"] for row in refused if row["reason"] == "robots"]
    assert all(line > 0 for line in lines)


def every_text(folder: Path):
    """Yields (file, text) of everything that was written, compressed columns unpacked."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix == ".parquet":
            yield path, json.dumps(pyarrow.parquet.read_table(str(path)).to_pylist(), ensure_ascii=False, default=str)
        yield path, path.read_bytes().decode("utf-8", "replace")


def test_no_planted_personal_value_is_in_any_output(chain):
    planted = json.loads((chain / "overlay" / "planted_values.json").read_text())["values"]
    assert len(planted) > 100
    values = {entry["value"] for entry in planted}
    kept = "".join(document.text for document in read_documents(chain / "prepared"))
    for kind in {entry["kind"] for entry in planted}:
        assert f"<{kind}-pii>" in kept
    folders = [chain / "prepared", chain / "prepared.work", chain / "robots", chain / "tombstones", chain / "toxicity"]
    for folder in folders:
        for path, text in every_text(folder):
            for value in values:
                assert value not in text, path


def test_removed_documents_are_listed_with_the_tombstones_that_were_applied(chain, truth):
    summary = artifacts.read_manifest(chain / "prepared", "prepared_corpus")["summary"]
    assert summary["tombstones"]
    removed = [row for row in rows_of(chain, "ledger.parquet") if row["reason"] == "removed_on_request"]
    assert len(removed) == truth["summary"]["dropped"]["removed_on_request"]
    assert all(row["removal_request"] in row["detail"] for row in removed)


def test_why_tells_the_story_by_address_identity_and_place(chain, capsys):
    row = next(row for row in rows_of(chain, "ledger.parquet") if row["reason"] == "robots")
    for question in (row["url"], row["document_id"], f"{row['file']}:{row['row']}"):
        assert main(["why", question, f"--input={chain / 'prepared'}"]) == 0
        told = capsys.readouterr().out
        assert "dropped: robots" in told and row["document_id"] in told and row["robots_group"] in told
    broken = rows_of(chain, "quarantine.parquet")[0]
    assert main(["why", f"{broken['file']}:{broken['row']}", f"--input={chain / 'prepared'}"]) == 0
    assert f"quarantined: {broken['reason']}" in capsys.readouterr().out


def test_why_of_an_unknown_document_is_one_line(chain, capsys):
    assert main(["why", "https://nowhere.example/", f"--input={chain / 'prepared'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hosts_are_masked_in_the_report(chain):
    page = (chain / "prepared" / "report.html").read_text()
    domains = {row["registrable_domain"] for row in rows_of(chain, "ledger.parquet")} - {""}
    assert domains and not any(domain in page for domain in domains)


def test_tokens_of_the_funnel_are_those_of_the_tokenizer_that_trains(chain):
    from apertus_jax.data.tekken import apertus_tokenizer

    tokenizer = apertus_tokenizer()
    texts = {document.document_id: document.text for document in read_documents(chain / "prepared")}
    rows = [row for row in rows_of(chain, "ledger.parquet") if row["decision"] == "keep" and not row["personal_data"]]
    for row in rows[:50]:
        assert row["tokens"] == len(tokenizer.encode(texts[row["document_id"]]))


def test_a_store_of_the_next_build_obeys_and_says_so_while_the_old_one_is_found_out(chain, tmp_path):
    tombstones = Tombstones.open(chain / "tombstones")
    day = datetime.date(2026, 11, 1)
    removed = [
        row["document_id"]
        for row in json.loads((chain / "overlay" / "truth.json").read_text())["rows"]
        if row["reason"] == "removed_on_request"
    ]
    tokenize(str(chain / "prepared"), tmp_path / "new", vocab_size=500, progress=False)
    new = TokenStore.open(tmp_path / "new")
    assert not store_is_older_than(new, tombstones, day) and find_tombstoned(new, tombstones, day).num_documents == 0
    part = chain / "overlay" / "documents" / "part-0.jsonl"
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

"""The whole way of a crawl-like corpus in which everything planted is known: funnel, ledger, what never shows."""

import collections
import datetime
import json
import re
from pathlib import Path

import gin
import pyarrow.parquet
import pytest

from apertus_jax.cli import main
from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.removal import Tombstones
from apertus_jax.data import TokenStore, find_tombstoned, store_is_older_than, tokenize
from apertus_jax.storage import artifacts
from tests.corpus.prepare.prepare_inputs import OVERLAY_CHAIN


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("overlay")
    (root / "policy.gin").write_text(OVERLAY_CHAIN)
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
        assert re.search(rf"<td[^>]*>{reason}</td><td class=\"number\">{documents}</td>", page), reason
    assert "LicenceRule.permitted names the classes" in page


def test_document_without_consent_is_unread_with_its_verdicts(chain):
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


def test_removed_documents_are_listed_with_applied_tombstones(chain, truth):
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


def test_why_says_first_what_decided_of_every_reason(chain, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    first = {row["reason"]: row for row in reversed(rows_of(chain, "ledger.parquet"))}
    assert len(first) > 12
    for reason, row in first.items():
        assert main(["why", f"{row['file']}:{row['row']}", f"--input={chain / 'prepared'}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        told = " ".join(" ".join(lines).split())
        assert lines[0] == (f"dropped: {reason}" if reason else "kept")
        assert (row["url"] or "kept") in told and "None" not in told, told  # an address is never broken
        assert max(map(len, lines)) <= 80 or any(len(line.split()[-1]) > 60 for line in lines)
        expected = {
            "robots": f"robots.txt of {row['authority']}, line {row['robots_line']}, `{row['robots_rule']}`, refuses ",
            "removed_on_request": f"a removal request names it: {row['detail']} address",
            "near_duplicate": f"nearly the same as document {row['kept_id']}, the copy that is kept address",
            "robots_unreachable": f"robots.txt of {row['authority']} could not be read (",
            "opt_out_signal": "refuses address",
            "duplicate_id": f"an earlier document of the corpus has its identity {row['document_id']} address",
        }.get(reason, row["detail"] if reason else "no rule of the policy")
        assert expected in told, told


def test_why_in_json_holds_the_ledger_and_the_sentence(chain, capsys):
    row = next(row for row in rows_of(chain, "ledger.parquet") if row["reason"] == "robots")
    assert main(["why", row["document_id"], f"--input={chain / 'prepared'}", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert list(given) == ["prepared", "plan", "as_of", "not_asked", "documents"]
    (document,) = given["documents"]
    assert list(document) == ["decision", "reason", "decided_by", "refused_by", "ledger"]
    assert document["decision"] == "drop" and document["decided_by"] in document["refused_by"]
    assert document["ledger"].keys() == row.keys() and document["ledger"]["url"] == row["url"]
    broken = rows_of(chain, "quarantine.parquet")[0]
    assert main(["why", f"{broken['file']}:{broken['row']}", f"--input={chain / 'prepared'}", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["documents"]
    assert document["decision"] == "quarantined" and document["ledger"] == broken


def test_why_of_an_unknown_document_is_one_line(chain, capsys):
    assert main(["why", "https://nowhere.example/", f"--input={chain / 'prepared'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hosts_are_masked_in_the_report(chain):
    page = (chain / "prepared" / "report.html").read_text()
    domains = {row["registrable_domain"] for row in rows_of(chain, "ledger.parquet")} - {""}
    assert domains and not any(domain in page for domain in domains)


def test_tokens_of_the_funnel_are_those_of_the_trained_tokenizer(chain):
    from apertus_jax.data.tokenizer.tekken import apertus_tokenizer

    tokenizer = apertus_tokenizer()
    texts = {document.document_id: document.text for document in read_documents(chain / "prepared")}
    rows = [row for row in rows_of(chain, "ledger.parquet") if row["decision"] == "keep" and not row["personal_data"]]
    for row in rows[:50]:
        assert row["tokens"] == len(tokenizer.encode(texts[row["document_id"]]))


def test_prepare_applies_new_tombstones_and_old_store_is_flagged(chain, tmp_path):
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

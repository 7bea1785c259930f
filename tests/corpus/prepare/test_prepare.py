"""`prepare`: every document accounted for, the same bytes however the work is done, nothing done twice."""

import collections
import dataclasses
import json
import random
import shutil
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.duplicates import SMALLEST_MEMORY
from apertus_jax.corpus.language import LanguageRule
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.prepare import prepare
from apertus_jax.corpus.prepare.prepare_command import ORDER
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.removal import RemovalScoring, remove
from apertus_jax.corpus.sources import Source
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from tests.corpus.prepare.prepare_inputs import AS_OF, sentence, small_policy, write_corpus

UNIT_BYTES = 6_000


def run(output: Path, documents: Path, policy=None, **options):
    """Prepares with small units, in this process unless said otherwise."""
    defaults = {"launcher": "inline", "unit_bytes": UNIT_BYTES, "as_of": AS_OF, "progress": False}
    return prepare(str(output), policy or small_policy(), str(documents), **(defaults | options))


def contents(folder: Path) -> dict[str, bytes]:
    """Returns relative name → bytes of all files of a result."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_leases(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if "LEASE" not in name}


def ledger_rows(prepared: Path) -> list[dict]:
    return [
        row
        for part in parts_of(prepared)
        for row in pyarrow.parquet.read_table(str(part / "ledger.parquet")).to_pylist()
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "docs")


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "out"
    run(folder, corpus)
    return folder


def test_every_input_document_is_in_the_ledger_once(corpus, prepared):
    rows = ledger_rows(prepared)
    given = [json.loads(line) for name in ("one.jsonl", "two.jsonl") for line in (corpus / name).open()]
    assert [row["url"] for row in rows] == [row["url"] for row in given]
    summary = artifacts.read_manifest(prepared, "prepared_corpus")["summary"]
    decisions = collections.Counter(row["decision"] for row in rows)
    assert (summary["documents"], summary["kept"], summary["dropped"]) == (120, decisions["keep"], decisions["drop"])
    funnel = json.loads((prepared / "funnel.json").read_text())
    counted = collections.Counter()
    for _, _, decision, documents, *_ in funnel["counts"]:
        counted[decision] += documents
    assert counted == collections.Counter(row["reason"] or "kept" for row in rows)


def test_permitted_documents_are_the_kept_rows_alone(prepared):
    kept = [row for row in ledger_rows(prepared) if row["decision"] == "keep"]
    documents = list(read_documents(prepared))
    assert [document.document_id for document in documents] == [row["document_id"] for row in kept]
    assert all(document.language == "eng_Latn" for document in documents)


def test_of_copies_the_first_that_passes_stays(prepared):
    rows = ledger_rows(prepared)
    dropped = [row for row in rows if row["reason"] == Reason.EXACT_DUPLICATE]
    assert len(dropped) == 29  # thirty copies, of which one goes for its repeated identity
    by_id = {row["document_id"]: row for row in rows if row["reason"] != Reason.DUPLICATE_ID}
    for row in dropped:
        assert by_id[row["kept_id"]]["decision"] == "keep"
        assert by_id[row["kept_id"]]["text_sha256_in"] == row["text_sha256_in"]
        assert row["cluster"] == row["kept_id"] and row["cluster_size"] == 2


def test_a_repeated_identity_keeps_the_first_document(prepared):
    repeated = [row for row in ledger_rows(prepared) if row["reason"] == Reason.DUPLICATE_ID]
    assert [(row["file"], row["row"]) for row in repeated] == [("two.jsonl", 59)]


@dataclasses.dataclass(frozen=True)
class Unwanted:
    """A rule that drops the documents of one host."""

    host: str

    def verdict(self, row, statistics):
        return Verdict(Reason.LENGTH, "unwanted") if row["authority"] == self.host else None


def test_copy_that_another_rule_drops_stands_for_no_other(corpus, tmp_path):
    policy = small_policy()
    policy = dataclasses.replace(policy, content_rules=(Unwanted("h3.example"), *policy.content_rules))
    run(tmp_path / "out", corpus, policy)
    rows = ledger_rows(tmp_path / "out")
    copies = collections.defaultdict(list)
    for row in rows:
        if row["cluster"] and row["reason"] != Reason.DUPLICATE_ID:
            copies[row["cluster"]].append(row)
    mixed = [group for group in copies.values() if {row["authority"] for row in group} > {"h3.example"}]
    assert mixed
    for group in mixed:
        assert [row["decision"] for row in group if row["authority"] != "h3.example"] == ["keep"]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_worker_processes_gives_the_same_bytes(corpus, prepared, tmp_path, workers):
    run(tmp_path / "out", corpus, launcher="processes", workers=workers)
    assert without_leases(contents(tmp_path / "out")) == without_leases(contents(prepared))


def test_unit_reads_its_own_part_of_the_tables_of_copies(tmp_path, monkeypatch):
    generator = random.Random(4)
    originals = [{"id": f"a{number}", "text": sentence(generator)} for number in range(120)]
    copies = [{"id": f"b{row['id']}", "text": row["text"]} for row in originals]
    generator.shuffle(copies)  # so that the copies of a unit have their originals all over the corpus
    (tmp_path / "docs").mkdir()
    for name, rows in (("one", originals), ("two", copies)):
        (tmp_path / "docs" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("apertus_jax.corpus.duplicates.ordinal_tables.ROWS_PER_GROUP", 4)
    counts = []
    read = pyarrow.parquet.ParquetFile.read_row_groups

    def counted(self, groups, *args, **kwargs):
        counts.append((len(groups), self.num_row_groups))
        return read(self, groups, *args, **kwargs)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_groups", counted)
    run(tmp_path / "out", tmp_path / "docs", unit_bytes=1500)
    dropped = [row for row in ledger_rows(tmp_path / "out") if row["reason"] == Reason.EXACT_DUPLICATE]
    assert len(dropped) == 120
    assert max(total for _, total in counts) >= 30
    assert max(groups for groups, _ in counts) <= 6


def test_policy_is_known_by_content_and_not_by_places(corpus, tmp_path):
    hosts = {"early": ["h1.example"], "late": ["h1.example", "h2.example"]}
    for name, removed in hosts.items():
        rows = [
            {"id": f"r{number}", "received": "2026-01-01", "basis": "asked", "scope": "host", "value": host}
            | {"decision": "granted", "effective_date": "2026-01-02"}
            for number, host in enumerate(removed)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        remove(tmp_path / f"{name}.jsonl", tmp_path / "here" / name)
    shutil.copytree(tmp_path / "here" / "early", tmp_path / "there" / "moved")
    results = {}
    for name, place in (("a", "here/early"), ("b", "there/moved"), ("c", "here/late")):
        scoring = (RemovalScoring(tombstones=str(tmp_path / place)),)
        run(tmp_path / name, corpus, small_policy(consent_scoring=scoring))
        results[name] = without_leases(contents(tmp_path / name))
        assert str(tmp_path).encode() not in results[name]["policy.json"]
    assert results["a"] == results["b"]
    digests = {name: {row["policy_digest"] for row in ledger_rows(tmp_path / name)} for name in results}
    assert digests["a"] == digests["b"] and len(digests["a"] | digests["c"]) == 2


def test_memory_for_sorting_shows_in_no_byte(corpus, prepared, tmp_path):
    run(tmp_path / "out", corpus, sort_bytes=SMALLEST_MEMORY)
    assert without_leases(contents(tmp_path / "out")) == without_leases(contents(prepared))


def test_beam_gives_the_same_bytes(corpus, tmp_path):
    run(tmp_path / "inline", corpus, unit_bytes=30_000)
    run(tmp_path / "beam", corpus, launcher="beam", beam_options=("--runner=DirectRunner",), unit_bytes=30_000)
    assert len(list((tmp_path / "beam" / "parts").glob("0*"))) == 2
    assert without_leases(contents(tmp_path / "beam")) == without_leases(contents(tmp_path / "inline"))


def test_tasks_by_hand_in_any_order_give_the_same_bytes(corpus, prepared, tmp_path):
    generator = random.Random(5)
    for stage in ORDER:
        shares = [f"{index}/3" for index in range(3)] if stage in ("score", "decide", "apply") else ["0/3"]
        generator.shuffle(shares)
        for share in shares:
            run(tmp_path / "out", corpus, stage=stage, task=share)
    assert without_leases(contents(tmp_path / "out")) == without_leases(contents(prepared))


def test_tasks_without_stage_end_when_all_have_run_often_enough(corpus, prepared, tmp_path):
    for _ in range(3):
        for share in ("1/2", "0/2"):
            run(tmp_path / "out", corpus, task=share)
    assert without_leases(contents(tmp_path / "out")) == without_leases(contents(prepared))


def test_a_changed_threshold_never_scores_again(corpus, prepared, tmp_path):
    policy = small_policy()
    run(tmp_path / "a", corpus, policy, work=str(tmp_path / "work"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("scores.parquet")}
    stricter = LanguageRule(threshold=0.99, per_language_thresholds=False)
    other = dataclasses.replace(policy, content_rules=(stricter, *policy.content_rules[1:]))
    summary = run(tmp_path / "b", corpus, other, work=str(tmp_path / "work"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("scores.parquet")} == before
    assert summary["kept"] < artifacts.read_manifest(tmp_path / "a", "prepared_corpus")["summary"]["kept"]


def test_finished_corpus_is_recognised_and_other_policy_refused(corpus, prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    run(prepared, corpus)
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before
    with pytest.raises(UserError, match="made with other decisions, policy"):
        run(prepared, corpus, small_policy(content_rules=(LanguageRule(threshold=0.2),)))


@dataclasses.dataclass(frozen=True)
class Slow:
    """A scorer that never ends on one document."""

    def build(self):
        return self

    def schema(self):
        return [pyarrow.field("slow_looked", pyarrow.bool_())]

    def identity(self):
        return {"slow": 1}

    def score(self, documents):
        for document in documents:
            while document.url.endswith("/p7"):
                time.sleep(0.01)
        return [{"slow_looked": True}] * len(documents)


def test_slow_document_is_quarantined_and_no_other(corpus, tmp_path):
    policy = small_policy()
    policy = dataclasses.replace(policy, content_scoring=(*policy.content_scoring, Slow()))
    summary = run(tmp_path / "out", corpus, policy, seconds_per_document=0.5)
    assert (summary["documents"], summary["quarantined"]) == (119, 1)
    found = [
        row
        for part in parts_of(tmp_path / "out")
        for row in pyarrow.parquet.read_table(str(part / "quarantine.parquet")).to_pylist()
    ]
    assert [(row["file"], row["row"], row["reason"]) for row in found] == [("one.jsonl", 8, "time_limit")]


def test_input_changed_after_planning_stops_before_its_part(tmp_path):
    corpus = write_corpus(tmp_path / "docs")
    run(tmp_path / "out", corpus, stage="plan")
    for stage in ("score", "aggregate", "decide", "select"):
        run(tmp_path / "out", corpus, stage=stage)
    text = (corpus / "two.jsonl").read_text()
    (corpus / "two.jsonl").write_text(text.replace("river", "rover"))
    with pytest.raises(UserError):
        run(tmp_path / "out", corpus, stage="apply")
    assert not artifacts.is_complete(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "3/3"}, "tasks of 3 go from 0"),
        ({"task": "x"}, "must be INDEX/COUNT"),
        ({"stage": "scores"}, "stages are plan, score"),
        ({"launcher": "slurm"}, "is not one of processes, inline, beam"),
        ({"as_of": "yesterday"}, "write YYYY-MM-DD"),
        ({"stage": "apply"}, "needs the stages before it"),
        ({"sources": (Source(name="gone", path="/nowhere"),)}, "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_no_result(corpus, tmp_path, options, message):
    with pytest.raises(UserError, match=message) as caught:
        run(tmp_path / "out", corpus, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_touched(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="thesis.tex"):
        run(tmp_path / "out", corpus)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_damaged_scores_are_noticed(corpus, tmp_path):
    for stage in ("plan", "score"):
        run(tmp_path / "out", corpus, stage=stage)
    scores = sorted((tmp_path / "out.work").rglob("scores.parquet"))[1]
    content = bytearray(scores.read_bytes())
    content[len(content) // 2] ^= 1
    scores.write_bytes(bytes(content))
    with pytest.raises(UserError, match="digest differs"):
        run(tmp_path / "out", corpus)

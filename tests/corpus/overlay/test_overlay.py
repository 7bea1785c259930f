"""The overlay: everything planted is there, its truth adds up, and each part of `prepare` finds what it should."""

import collections
import gzip
import ipaddress
import json
from pathlib import Path

import pytest

from apertus_jax.corpus.overlay import write_overlay
from apertus_jax.corpus.overlay.phrases import INSULTS, LANGUAGES
from apertus_jax.corpus.overlay.planted import labelled_texts
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.corpus.web_addresses import parse_web_address
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

RESERVED = (".example", ".test", ".invalid")
CONTENT_REASONS = {Reason.LENGTH, Reason.WORDS, Reason.SYMBOLS, Reason.LINES, Reason.REPETITION}


@pytest.fixture(scope="module")
def overlay(tmp_path_factory):
    folder = Path(tmp_path_factory.mktemp("overlay")) / "overlay"
    write_overlay(folder)
    return folder


@pytest.fixture(scope="module")
def truth(overlay):
    return json.loads((overlay / "truth.json").read_text())


@pytest.fixture(scope="module")
def documents(overlay, truth):
    """(document, its truth) in reading order."""
    lines = {}
    for file in sorted((overlay / "documents").iterdir()):
        content = file.read_bytes()
        lines[file.name] = (gzip.decompress(content) if file.suffix == ".gz" else content).split(b"\n")
    found = []
    for row in truth["rows"]:
        fields = json.loads(lines[row["file"]][row["row"] - 1])
        names = ("document_id", "text", "url", "crawl_date", "licence", "language", "headers", "meta_tags")
        document = RawDocument(source="overlay", file=row["file"], row=row["row"], **{n: fields[n] for n in names})
        assert document.document_id == row["document_id"]
        found.append((document, row))
    return found


def verdicts(scoring, rule, documents, statistics=None):
    """Scores documents and returns the reason that a rule gives each, "" where it has none."""
    rows = scoring.build().score([document for document, _ in documents])
    found = [rule.verdict(row, statistics or {}) for row in rows]
    return ["" if verdict is None else verdict.reason for verdict in found]


def expected(documents, reasons):
    return [row["reason"] if row["reason"] in reasons else "" for _, row in documents]


def allowed(documents):
    """Documents that no consent rule keeps out: the only ones that content rules see."""
    before = list(Reason)[: list(Reason).index(Reason.LANGUAGE_UNKNOWN)]
    return [(document, row) for document, row in documents if row["reason"] not in before]


def test_truth_adds_up_and_every_reason_is_planted(overlay, truth, documents):
    summary = truth["summary"]
    assert summary == artifacts.read_manifest(overlay, "overlay")["summary"]
    assert summary["documents"] == len(documents) == summary["kept"] + sum(summary["dropped"].values())
    assert summary["documents"] + summary["quarantined"]["duplicate_id"] == 600
    learned = {"language_unknown", "language_uncertain", "language_not_wanted", "quality"}
    of_spellings = {"licence_not_understood"}  # tests/corpus/licences/licence_spellings.py
    assert set(summary["dropped"]) == set(Reason) - learned - of_spellings
    assert summary["quarantined"].keys() >= {"invalid_encoding", "empty_text", "future_date", "url_without_host"}
    assert set(summary["languages"]) == set(LANGUAGES) and min(summary["languages"].values()) > 30
    personal = collections.Counter()
    for _, row in documents:
        personal.update(row["personal_data"] if not row["reason"] else {})
    assert summary["personal_data"] == personal and set(personal) == {"email", "ip", "iban", "ahv", "card"}
    assert 0.5 < summary["kept"] / summary["documents"] < 0.8
    rows = sum(len(file.split(b"\n")) - 1 for file in _contents(overlay))
    assert rows == summary["documents"] + sum(summary["quarantined"].values())


def _contents(overlay):
    for file in sorted((overlay / "documents").iterdir()):
        content = file.read_bytes()
        yield gzip.decompress(content) if file.suffix == ".gz" else content


def test_seed_alone_decides_the_bytes_of_the_overlay(overlay, tmp_path):
    write_overlay(tmp_path / "again")
    write_overlay(tmp_path / "other", seed=1)
    names = artifacts.list_files(overlay)
    assert names == artifacts.list_files(tmp_path / "again")
    for name in names:
        assert (overlay / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    for name in ("documents/part-0.jsonl", "labelled_toxicity.jsonl", "planted_values.json", "benchmark.jsonl"):
        assert (overlay / name).read_bytes() != (tmp_path / "other" / name).read_bytes(), name
    before = (overlay / artifacts.COMMIT_MARKER).read_bytes()
    write_overlay(overlay)
    assert (overlay / artifacts.COMMIT_MARKER).read_bytes() == before
    with pytest.raises(UserError, match="made with other seed"):
        write_overlay(overlay, seed=1)
    with pytest.raises(UserError, match="at least 400"):
        write_overlay(tmp_path / "small", documents=50)


def test_what_is_planted_grows_with_the_corpus(tmp_path):
    summary = write_overlay(tmp_path / "large", documents=3000)
    assert summary["documents"] > 2950
    assert summary["dropped"]["toxicity"] == 200 and summary["dropped"]["near_duplicate"] == 70


def test_hosts_are_reserved_and_values_belong_to_nobody(overlay, documents):
    hosts = {parse_web_address(document.url).host for document, _ in documents}
    assert len(hosts) > 25 and all(host.endswith(RESERVED) for host in hosts)
    for request in map(json.loads, (overlay / "removal_requests.jsonl").read_text().splitlines()):
        if request["scope"] in ("host", "domain"):
            assert request["value"].endswith(RESERVED)
    values = json.loads((overlay / "planted_values.json").read_text())["values"]
    texts = {}
    for document, _ in documents:
        texts.setdefault(document.document_id, document.text + document.url)
    for each in values:
        assert each["value"] in texts[each["document_id"]]
        if each["kind"] == "email":
            assert each["value"].endswith(RESERVED)
        if each["kind"] == "ip":
            address = ipaddress.ip_address(each["value"])
            assert address.is_global and (address.version == 6 or each["value"].startswith("11."))
        if each["kind"] == "card":
            assert each["value"].startswith("4000")
    # Nothing that `prepare` reads tells the truth.
    given = b"".join(_contents(overlay)).decode("utf-8", "replace")
    assert not any(word in given for word in ("truth", "planted", "reason", "expected"))


def test_reader_sets_aside_exactly_the_broken_rows(overlay, truth):
    from apertus_jax.corpus.sources import Source, plan_units, read_unit

    source = Source(name="overlay", path=str(overlay / "documents"))
    units = plan_units([source], target_bytes=1 << 26)
    entries = [each for unit in units for each in read_unit(source, unit, today="2026-11-24")]
    quarantined = [each for each in entries if not isinstance(each, RawDocument)]
    found = {(each.file, each.row, str(each.reason)) for each in quarantined}
    assert found == {(each["file"], each["row"], each["reason"]) for each in truth["quarantine"]}
    assert len(entries) - len(quarantined) == truth["summary"]["documents"]


def test_removal_requests_hit_exactly_what_they_should(overlay, documents, tmp_path):
    from apertus_jax.corpus.removal import RemovalRule, RemovalScoring, remove

    summary = remove(overlay / "removal_requests.jsonl", tmp_path / "tombstones")
    assert set(summary["scopes"]) == {"url_prefix", "host", "domain", "document_id", "text_digest"}
    assert set(summary["decisions"]) == {"granted", "pending", "refused"}
    scoring = RemovalScoring(str(tmp_path / "tombstones"), "2026-11-24")
    assert verdicts(scoring, RemovalRule(), documents) == expected(documents, {Reason.REMOVED_ON_REQUEST})


def test_hosts_and_pages_refuse_exactly_what_they_should(overlay, documents, tmp_path):
    from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring, build_robots_snapshot
    from apertus_jax.corpus.signals import SignalRule, SignalScoring

    snapshot = str(tmp_path / "robots")
    build_robots_snapshot(str(overlay / "robots"), snapshot, as_of="2025-01-31", progress=False)
    robots = {Reason.ROBOTS, Reason.ROBOTS_UNREACHABLE}
    assert verdicts(RobotsScoring(snapshot), RobotsRule("strict"), documents) == expected(documents, robots)
    lenient = verdicts(RobotsScoring(snapshot), RobotsRule("apertus"), documents)
    assert lenient == expected(documents, {Reason.ROBOTS})
    scoring = SignalScoring(snapshot=snapshot, tdmrep=str(overlay / "tdmrep"))
    assert verdicts(scoring, SignalRule(), documents) == expected(documents, {Reason.OPT_OUT_SIGNAL})


def test_licences_are_permitted_exactly_where_they_should(documents):
    from apertus_jax.corpus.licences import LicenceRule, LicenceScoring

    wanted = {Reason.LICENCE_UNKNOWN, Reason.LICENCE_NOT_PERMITTED}
    rows = LicenceScoring().build().score([document for document, _ in documents])
    rule = LicenceRule(required_sources=("overlay",))
    found = [rule.verdict({"source": "overlay", **row}, {}) for row in rows]
    assert ["" if verdict is None else verdict.reason for verdict in found] == expected(documents, wanted)


def test_personal_data_is_counted_exactly_as_planted(overlay, documents):
    from apertus_jax.corpus.personal_data import PersonalDataPolicy, rewrite
    from apertus_jax.corpus.personal_data.urls import rewrite_url

    policy = PersonalDataPolicy()
    outputs = []
    for document, row in documents:
        rewritten = rewrite(document.text, policy)
        found = {kind: count for kind, count in rewritten.counts.items() if count}
        assert found == row["personal_data"], (row["kind"], found)
        outputs.append(rewritten.text + rewrite_url(document.url, policy))
    everything = "\n".join(outputs)
    for each in json.loads((overlay / "planted_values.json").read_text())["values"]:
        assert each["value"] not in everything


def test_heuristics_drop_the_planted_and_keep_invented_prose(documents):
    from apertus_jax.corpus.language import LanguageRule, LanguageScoring
    from apertus_jax.corpus.quality import EnglishQualityRule, QualityRule, QualityScoring

    seen = allowed(documents)
    texts = [document for document, _ in seen]
    languages = LanguageScoring().build().score(texts)
    assert all(LanguageRule().verdict(row, {}) is None for row in languages), "every language is declared"
    for (document, truth), row in zip(seen, languages, strict=True):
        if not truth["reason"]:
            assert row["language_label"] == document.language and row["language_score"] > 0.6, document.text
    rows = [left | right for left, right in zip(languages, QualityScoring().build().score(texts), strict=True)]
    found = [QualityRule().verdict(row, {}) or EnglishQualityRule().verdict(row, {}) for row in rows]
    assert ["" if each is None else each.reason for each in found] == expected(seen, CONTENT_REASONS)


def test_benchmark_items_are_found_and_short_quotations_not(overlay, documents):
    from apertus_jax.corpus.contamination import ContaminationRule, ContaminationScoring

    scoring = ContaminationScoring(benchmarks=(str(overlay / "benchmark.jsonl"),))
    assert verdicts(scoring, ContaminationRule(), documents) == expected(documents, {Reason.CONTAMINATION})
    rows = scoring.build().score([document for document, row in documents if row["kind"] == "short quotation"])
    assert all(0 < row["contamination_ratio"] < 0.5 for row in rows) and rows


def test_copies_are_found_and_the_first_of_them_stays(documents, tmp_path):
    from apertus_jax.corpus.duplicates import DuplicateScoring, choose_survivors, find_clusters
    from apertus_jax.corpus.duplicates.keys import key_records, write_keys
    from apertus_jax.corpus.duplicates.ordinal_tables import OrdinalTable

    copies = {Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE}
    passing = [(document, row) for document, row in documents if row["reason"] in ("", *copies)]
    scoring = DuplicateScoring()
    rows = scoring.build().score([document for document, _ in passing])
    scopes = [scoring.scope_of("overlay", document.language) for document, _ in passing]
    write_keys(tmp_path / "keys", key_records(rows, range(len(rows)), scopes))
    find_clusters([tmp_path / "keys"], tmp_path / "clusters.parquet")
    choose_survivors(tmp_path / "clusters.parquet", range(len(rows)), tmp_path / "survivors.parquet")
    found = [""] * len(passing)
    for block in OrdinalTable(tmp_path / "survivors.parquet").blocks():
        for ordinal, _, survives, exact in block.tolist():
            if not survives:
                found[ordinal] = Reason.EXACT_DUPLICATE if exact else Reason.NEAR_DUPLICATE
    assert found == expected(passing, copies)


def test_repeated_identities_come_after_the_first_of_them(documents):
    seen = set()
    for document, row in documents:
        assert (document.document_id in seen) == (row["reason"] == Reason.DUPLICATE_ID)
        seen.add(document.document_id)


def test_labelled_texts_are_balanced_and_none_of_them_is_planted(overlay, documents):
    rows = [json.loads(line) for line in (overlay / "labelled_toxicity.jsonl").read_text().splitlines()]
    assert rows == labelled_texts(0, 100)
    counts = collections.Counter((row["language"], row["label"]) for row in rows)
    assert set(counts) == {(language, label) for language in INSULTS for label in (0, 1)}
    assert set(counts.values()) == {100}
    planted = {document.text for document, _ in documents}
    assert len({row["text"] for row in rows}) == len(rows) and not planted & {row["text"] for row in rows}


def test_head_of_labelled_texts_tells_planted_insults_apart(overlay, documents, tmp_path):
    from apertus_jax.corpus.classifiers import ClassifierScoring, ToxicityRule, train_classifier

    train_classifier(
        str(overlay / "labelled_toxicity.jsonl"), str(tmp_path / "toxicity"), task="toxicity", progress=False
    )
    seen = [pair for pair in allowed(documents) if pair[1]["reason"] not in CONTENT_REASONS]
    scoring = ClassifierScoring(toxicity=str(tmp_path / "toxicity"))
    rows = scoring.build().score([document for document, _ in seen])
    rule = ToxicityRule(thresholds=dict.fromkeys(INSULTS, 0.8), languages=tuple(INSULTS), language_column="language")
    found = [
        rule.verdict({"language": document.language, **row}, {}) for (document, _), row in zip(seen, rows, strict=True)
    ]
    assert ["" if each is None else each.reason for each in found] == expected(seen, {Reason.TOXICITY})

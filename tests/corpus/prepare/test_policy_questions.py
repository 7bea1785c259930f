"""A policy asks, or says that it did not: missing sources in one line, one snapshot for all that robots.txt says."""

import json
import logging
import shlex
from pathlib import Path

import gin
import pyarrow.parquet
import pytest

from apertus_jax import cli, configuration
from apertus_jax.corpus.classifiers import ClassifierScoring, QualityScoreRule, ToxicityRule
from apertus_jax.corpus.contamination import ContaminationRule, ContaminationScoring
from apertus_jax.corpus.language import LanguageRule, LanguageScoring
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.prepare import OnlySources, Policy, prepare
from apertus_jax.corpus.prepare.questions import QUESTIONS
from apertus_jax.corpus.removal import RemovalRule, RemovalScoring
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring, build_robots_snapshot
from apertus_jax.corpus.signals import SignalRule, SignalScoring
from apertus_jax.errors import UserError
from apertus_jax.pipeline import run_command
from apertus_jax.storage import artifacts
from tests.corpus.prepare.prepare_inputs import AS_OF, sentence, small_policy, write_corpus

STRICT = "--gin_file=policies/strict.gin"


def consent_policy(robots="", signals="", **changes) -> Policy:
    scorings = (RobotsScoring(snapshot=robots), SignalScoring(snapshot=signals))
    return Policy(consent_scoring=scorings, consent_rules=(RobotsRule(), SignalRule()), **changes)


def complaint(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("apertus: ")
    return error


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with two documents, one of a host whose robots.txt holds a signal and nothing else, and a snapshot."""
    import random

    generator = random.Random(3)
    rows = [
        {"id": name, "url": f"https://{name}.example/a", "text": sentence(generator, 90)} for name in ("free", "held")
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "held.example.txt").write_text("Content-Signal: ai-train=no\n")
    build_robots_snapshot(tmp_path / "robots", tmp_path / "snapshot", AS_OF)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_policy_names_everything_that_it_lacks_at_once(world, capsys):
    assert cli.main(["prepare", STRICT, "--input=my.jsonl", "--output=out"]) == 2
    said = complaint(capsys)
    for name in ("RobotsScoring.snapshot", "--tombstones", "ContaminationScoring.benchmarks"):
        assert said.count(f"{name} is empty (give ") == 1
    assert "SignalScoring" not in said
    assert sorted(path.name for path in world.iterdir()) == ["my.jsonl", "robots", "snapshot"]
    # Its own advice, followed, runs.
    advice = said[said.index("--gin.Policy.not_asked") :].strip()
    assert advice == "--gin.Policy.not_asked=\"['removal', 'robots', 'signals', 'contamination']\""
    assert cli.main(["prepare", STRICT, "--input=my.jsonl", "--output=out", *shlex.split(advice)]) == 0


def test_what_is_given_and_is_not_there_is_named_with_the_rest(world, capsys):
    flags = ["--gin.RobotsScoring.snapshot='none'", "--gin.ContaminationScoring.benchmarks=['a.jsonl', 'my.jsonl']"]
    assert cli.main(["prepare", STRICT, "--input=elsewhere.jsonl", "--output=out", *flags]) == 2
    said = complaint(capsys)
    assert "RobotsScoring.snapshot: none does not exist" in said and "--tombstones is empty" in said
    assert "benchmarks: a.jsonl does not exist" in said and "elsewhere.jsonl, which does not exist" in said


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"content_rules": (ContaminationRule(),)}, "no @ContaminationScoring() in Policy.content_scoring"),
        ({"consent_rules": (RobotsRule(),)}, "no @RobotsScoring() in Policy.consent_scoring"),
        ({"content_scoring": (ContaminationScoring(),), "content_rules": (ContaminationRule(),)}, "benchmarks is emp"),
        ({"consent_scoring": (SignalScoring(),), "consent_rules": (SignalRule(),)}, "SignalScoring.snapshot is empty"),
        ({"content_scoring": (ClassifierScoring(),), "content_rules": (ToxicityRule(),)}, "Scoring.toxicity is empty"),
        ({"content_scoring": (ClassifierScoring(),), "content_rules": (QualityScoreRule(),)}, "quality is empty"),
        (
            {"content_scoring": (ClassifierScoring(),), "content_rules": (OnlySources(ToxicityRule(), ["web"]),)},
            "ClassifierScoring.toxicity is empty",
        ),
        (
            {"content_scoring": (LanguageScoring(model="glot.bin"),), "content_rules": (LanguageRule(),)},
            "LanguageScoring.model: glot.bin does not exist",
        ),
        (
            {"consent_scoring": (SignalScoring(signals=("noai", "ai_txt"), ai_txt="none"),),
             "consent_rules": (SignalRule(),)},
            "SignalScoring.ai_txt: none does not exist",
        ),
    ],
)  # fmt: skip
def test_a_rule_without_its_source_is_one_line(tmp_path, changes, lacking):
    corpus = write_corpus(tmp_path / "docs")
    with pytest.raises(UserError, match="policy bare lacks") as error:
        prepare(str(tmp_path / "out"), Policy(name="bare", **changes), str(corpus), progress=False)
    assert lacking in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Policy(not_asked=["robot"]), "names 'robot'; did you mean 'robots'"),
        (lambda: Policy(not_asked=[3]), "names 3; known are removal, robots, signals"),
        (lambda: Policy(not_asked="robots"), "is the text 'robots'"),
        (lambda: consent_policy(robots="x", not_asked=["robots"]), "off, but RobotsScoring.snapshot = 'x' is given"),
        (lambda: consent_policy(signals="x", not_asked=["signals"]), "off, but SignalScoring.snapshot = 'x' is given"),
        (
            lambda: Policy(content_scoring=(ContaminationScoring("x"),), not_asked=["contamination"]),
            "remove one of the two",
        ),
        (lambda: consent_policy("a", "b"), "are two, a and b; bind RobotsScoring.snapshot alone, it serves both"),
    ],
)
def test_what_is_asked_and_switched_off_is_one_line(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_one_robots_snapshot_serves_rules_and_signals(world):
    for policy in (
        consent_policy("snapshot"),
        consent_policy(signals="snapshot"),
        consent_policy("snapshot", "./robots/../snapshot/"),
    ):
        robots, signals = (scoring.build().identity()["snapshot"] for scoring in policy.consent_scoring)
        assert robots == signals != ""
    wide = Policy(
        consent_scoring=(RobotsScoring(snapshot="snapshot", agents="wide"), SignalScoring()),
        consent_rules=(RobotsRule(), SignalRule()),
    )
    assert wide.consent_scoring[1].agents == "wide"
    own = Policy(consent_scoring=(RobotsScoring("snapshot", "wide"), SignalScoring(agents="apertus-2025-01")))
    assert own.consent_scoring[1].agents == "apertus-2025-01"


def test_parts_switched_off_leave_the_policy_but_shared_ones():
    scorings = (ClassifierScoring(toxicity="t"), ContaminationScoring())
    rules = (QualityScoreRule(), ToxicityRule(), OnlySources(ContaminationRule(), ["web"]))
    policy = Policy(content_scoring=scorings, content_rules=rules, not_asked=["contamination", "quality_score"])
    assert policy.content_scoring == (scorings[0],) and policy.content_rules == (rules[1],)
    # Digests of texts serve requests that come later.
    assert small_policy().consent_rules == () and small_policy().consent_scoring == (RemovalScoring(),)
    both = Policy(
        consent_scoring=(RemovalScoring(),), consent_rules=(RemovalRule(),), not_asked=[*QUESTIONS, "removal"]
    )
    assert both.not_asked == tuple(QUESTIONS) and both.rules == ()


def ledger_rows(prepared: Path) -> list[dict]:
    return [row for part in parts_of(prepared)
            for row in pyarrow.parquet.read_table(str(part / "ledger.parquet")).to_pylist()]  # fmt: skip


def test_every_record_says_what_was_not_asked(world, capsys, caplog):
    flags = ["--gin.RobotsScoring.snapshot='snapshot'", "--gin.Policy.not_asked=['removal', 'contamination']"]
    with caplog.at_level(logging.INFO):
        assert cli.main(["prepare", STRICT, "--input=my.jsonl", "--output=out", *flags]) == 0
    last = caplog.records[-1].getMessage()
    for part in ("1 of 2 documents kept", "NOT ASKED: contamination, removal (switched off", "ai.txt", "report.html"):
        assert part in last
    rows = {row["document_id"]: row for row in ledger_rows(world / "out")}
    held, free = sorted(rows.values(), key=lambda row: row["decision"])
    assert (held["reason"], held["detail"], free["reason"]) == ("opt_out_signal", "content_signal", "")
    assert all(row["not_asked"].startswith("removal, tdmrep.json, ai.txt, ") for row in rows.values())
    assert "contamination" in free["not_asked"] and "robots" not in free["not_asked"].replace("robots.txt", "")
    assert (free["robots_verdict"], free["signals_verdict"]) == ("unknown", "unknown")
    summary = artifacts.read_manifest(world / "out", "prepared_corpus")["summary"]
    assert summary["not_asked"]["contamination"] == "switched off by the owner of the policy"
    in_force = json.loads((world / "out" / "policy.json").read_text())["policy"]
    assert in_force["not_asked"] == ["removal", "contamination"] and in_force["unasked"] == summary["not_asked"]
    page = (world / "out" / "report.html").read_text()
    assert "What was not asked" in page and ">contamination</td>" in page and "LicenceRule" not in page
    capsys.readouterr()
    assert cli.main(["why", "https://held.example/a", "--input=out", "--full"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "robots.txt of held.example, line 1: content_signal, ai-train=no" in told
    assert "contamination: switched off" in told and "removal_request not asked" in told
    assert cli.main(["data-summary", "--input=out", "--output=summary"]) == 0
    public = (world / "summary" / "public_summary.md").read_text()
    assert "Not asked: " in public and "removal (switched off" in public and "contamination (switched off" in public
    assert "What did the policy not ask?" in (world / "summary" / "datasheet.md").read_text()


def test_a_summary_claims_no_protocol_that_was_not_asked(world):
    flags = ["--gin.Policy.not_asked=['removal', 'robots', 'signals', 'contamination']"]
    assert cli.main(["prepare", STRICT, "--input=my.jsonl", "--output=out", *flags]) == 0
    for row in ledger_rows(world / "out"):
        # Neither `unknown`, which is an answer, nor null, which another refusal leaves.
        assert row["robots_verdict"] == row["signals_verdict"] == "not_asked" and row["decision"] == "keep"
    assert cli.main(["data-summary", "--input=out", "--output=summary"]) == 0
    public = (world / "summary" / "public_summary.md").read_text()
    assert "robots.txt (RFC 9309)" not in public and "robots (switched off by the owner" in public
    assert "Content-Signal (ai-train)" not in public


def test_the_chain_feeds_no_question_that_is_switched_off(tmp_path):
    configuration.register(cli.locations())
    configuration.parse(["policies/quickstart.gin"], ["Policy.not_asked = ['contamination', 'robots', 'toxicity']"])
    stages = ["overlay", "robots-snapshot", "remove", "train-classifier"]
    run_command.bind(run_command.STAGES["prepare"], tmp_path, stages)
    assert gin.query_parameter("SignalScoring.snapshot") == str(tmp_path / "robots")
    assert gin.query_parameter("RemovalScoring.tombstones") == str(tmp_path / "tombstones")
    for name in ("RobotsScoring.snapshot", "ContaminationScoring.benchmarks", "ClassifierScoring.toxicity"):
        with pytest.raises(ValueError, match="bound|value"):
            gin.query_parameter(name)
    policy = gin.get_configurable("Policy")()
    links = {name for fed in run_command.STAGES["prepare"].links.values() for name in fed if "Scoring." in name}
    assert links == run_command.QUESTION_OF.keys() and set(run_command.QUESTION_OF.values()) <= QUESTIONS.keys()
    assert policy.not_asked == ("robots", "toxicity", "contamination")


def test_a_policy_that_asks_everything_says_so(world, caplog):
    policy = Policy(consent_scoring=(RobotsScoring("snapshot"),), consent_rules=(RobotsRule(),))
    assert set(policy.unasked) == set(QUESTIONS) - {"robots"}
    assert set(policy.unasked.values()) == {"no rule of the policy asks it"}
    every = consent_policy("snapshot")
    assert not {"robots", "signals"} & set(every.unasked) and every.unasked["ai.txt"] == "no files were given"
    deaf = Policy(consent_scoring=(SignalScoring("snapshot"),), consent_rules=(SignalRule(deny=("noai",)),))
    assert deaf.unasked["signal tdmrep"] == "no rule of the policy asks it"

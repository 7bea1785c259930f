"""A policy is never weaker than it looks: what is asked of some sources, twice, or in the wrong place is told."""

import json

import pytest

from apertus_jax.corpus.classifiers import QualityScoreRule, ToxicityRule
from apertus_jax.corpus.contamination import ContaminationRule
from apertus_jax.corpus.language import LanguageRule
from apertus_jax.corpus.licences import LicenceRule, LicenceScoring
from apertus_jax.corpus.prepare import OnlySources, Policy, prepare, questions
from apertus_jax.corpus.prepare.score import UnitScorer
from apertus_jax.corpus.quality import QualityRule, QualityScoring
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring
from apertus_jax.corpus.signals import SignalRule, SignalScoring
from apertus_jax.errors import UserError

ROBOTS = {"consent_scoring": [RobotsScoring(snapshot="x")]}


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: OnlySources(OnlySources(RobotsRule(), ["web"]), ["code"]),
            "OnlySources.rule is an OnlySources itself",
        ),
        (lambda: OnlySources(RobotsRule(), []), "would be asked about nothing"),
        (lambda: OnlySources(RobotsRule(), [7]), "give a list of names"),
        (lambda: OnlySources(None, ["web"]), "OnlySources.rule holds None, which has no verdict"),
        (lambda: OnlySources(RobotsRule, ["web"]), "OnlySources.rule holds the class RobotsRule"),
        (lambda: Policy(consent_rules=[RobotsRule]), "write @RobotsRule() with brackets"),
        (lambda: Policy(consent_rules="RobotsRule"), "Policy.consent_rules is 'RobotsRule'; give a list"),
        (lambda: Policy(consent_rules=[None]), "holds None, which has no verdict"),
        (lambda: Policy(not_asked=None), "Policy.not_asked is None; give a list"),
        (
            lambda: Policy(content_scoring=ROBOTS["consent_scoring"], consent_rules=[RobotsRule()]),
            "Policy.content_scoring holds RobotsScoring, which RobotsRule in Policy.consent_rules needs earlier",
        ),
    ],
)
def test_a_part_that_would_not_be_asked_is_refused(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_policy_says_which_sources_consent_is_asked_of():
    some = Policy(**ROBOTS, consent_rules=[OnlySources(RobotsRule(), ["web"]), OnlySources(RobotsRule(), ["books"])])
    assert some.unasked["robots of sources other than books, web"] == questions.OTHER_SOURCES
    assert "robots" not in some.unasked
    every = Policy(**ROBOTS, consent_rules=[OnlySources(RobotsRule(), ["web"]), RobotsRule()])
    assert not any(name.startswith("robots") for name in every.unasked)
    content = Policy(content_rules=[OnlySources(QualityRule(), ["web"])])
    assert not any(name.startswith("quality of") for name in content.unasked)


def test_a_policy_says_that_links_are_passed_over():
    def unasked(**options):
        return Policy(consent_scoring=[LicenceScoring(**options)], consent_rules=[LicenceRule()]).unasked

    assert unasked(links=False)["licence links"] == questions.LINKS_PASSED_OVER
    assert "licence links" not in unasked()


def test_of_two_rules_of_one_class_the_stricter_decides():
    rules = Policy(**ROBOTS, consent_rules=[RobotsRule("apertus"), RobotsRule("strict")]).rules
    row = {"robots_verdict": "unknown", "robots_state": "unreachable"}
    assert [rule.verdict(row, {}) is None for rule in rules] == [True, False]


def test_signals_that_one_rule_hears_are_not_called_unheard():
    rules = [SignalRule(deny=("noai",)), SignalRule(deny=("tdmrep",))]
    unasked = Policy(consent_scoring=[SignalScoring(snapshot="x")], consent_rules=rules).unasked
    assert {name for name in unasked if name.startswith("signal ")} == {
        f"signal {kind}" for kind in ("aipref", "content_signal", "ai_txt")
    }


def test_consent_asked_of_no_source_of_the_run_stops_it(tmp_path):
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": "Some text."}) + "\n")
    policy = Policy(consent_scoring=[LicenceScoring()], consent_rules=[OnlySources(LicenceRule(), ["wbe"])])
    with pytest.raises(UserError, match="LicenceRule names 'wbe', which is no source of this run \\(web\\)"):
        prepare(str(tmp_path / "out"), policy, documents=str(tmp_path / "web.jsonl"), progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "rule, scorings, missing",
    [
        (QualityRule(), [QualityScoring()], "QualityRule but no scorer of language_label, language_declared"),
        (LanguageRule(), [], "LanguageRule but no scorer of language_label, language_declared, language_score"),
        (OnlySources(ContaminationRule(), ("web",)), [], "ContaminationRule but no scorer of contamination_ratio"),
        (ToxicityRule(), [], "ToxicityRule but no scorer of toxicity_score, sample_key"),
        (QualityScoreRule(), [], "QualityScoreRule but no scorer of quality_score, sample_key"),
    ],
)
def test_rule_without_its_scorer_is_refused_before_a_document(rule, scorings, missing):
    policy = Policy(name="t", content_scoring=scorings, content_rules=[rule])
    with pytest.raises(UserError, match=missing):
        UnitScorer(policy, [], lambda row: None, 1.0)

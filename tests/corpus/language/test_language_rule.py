"""The language rule and the statistics behind its thresholds."""

import json
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.language import LanguageRule, LanguageStatistics, language_statistics
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError


def row(label="deu_Latn", score=0.8, declared="und", document_id="0" * 32):
    return {
        "language_label": label,
        "language_score": score,
        "language_declared": declared,
        "document_id": document_id,
    }


def reason(rule, scores, corpus=None):
    verdict = rule.verdict(scores, corpus or {})
    return verdict and verdict.reason


def test_reasons_come_in_order():
    rule = LanguageRule(drop=("deu",), threshold=0.5)
    assert reason(rule, row("und_Latn", 0.0)) is Reason.LANGUAGE_UNKNOWN
    assert reason(rule, row(score=0.4)) is Reason.LANGUAGE_UNCERTAIN
    assert reason(rule, row(score=0.5)) is Reason.LANGUAGE_NOT_WANTED
    assert reason(rule, row("fra_Latn", 0.5)) is None
    assert reason(LanguageRule(keep_unknown=True), row("und_Latn", 0.0)) is None


def test_details_hold_the_figures():
    assert LanguageRule(threshold=0.5).verdict(row(score=0.41), {}).detail == "deu_Latn 0.41 < 0.5"


def test_declared_language_needs_no_score_where_trusted():
    scores = row("deu_Latn", 0.1, declared="gsw_Latn")
    assert LanguageRule().language(scores) == "gsw_Latn"
    assert reason(LanguageRule(), scores) is None
    assert reason(LanguageRule(keep=("gsw",)), scores) is None
    assert LanguageRule(trust_declared=False).language(scores) == "deu_Latn"
    assert reason(LanguageRule(trust_declared=False), scores) is Reason.LANGUAGE_UNCERTAIN
    # A source that declares "undetermined" has declared nothing.
    assert LanguageRule().language(row(declared="und")) == "deu_Latn"


def test_documents_that_were_not_scored_are_not_judged():
    unscored = {"language_label": None, "language_score": None, "language_declared": None}
    assert LanguageRule(keep=("deu",)).verdict(unscored, {}) is None


@pytest.mark.parametrize("spelling", ["deu", "de", "deu_Latn", "de-DE", "de-Latn-CH"])
def test_keep_and_drop_take_every_spelling(spelling):
    keep, drop = LanguageRule(keep=(spelling,)), LanguageRule(drop=[spelling])
    assert reason(keep, row()) is None
    assert reason(keep, row("fra_Latn")) is Reason.LANGUAGE_NOT_WANTED
    assert reason(drop, row()) is Reason.LANGUAGE_NOT_WANTED
    assert reason(drop, row("fra_Latn")) is None


def test_a_label_means_its_script_and_a_language_means_all():
    assert reason(LanguageRule(keep=("srp_Cyrl",)), row("srp_Latn")) is Reason.LANGUAGE_NOT_WANTED
    assert reason(LanguageRule(keep=("srp",)), row("srp_Latn")) is None
    assert reason(LanguageRule(keep=("zho_Hant",)), row("cmn_Hani")) is None
    assert reason(LanguageRule(keep=("deu",), drop=("deu",)), row()) is Reason.LANGUAGE_NOT_WANTED


def test_thresholds_of_the_corpus_win_over_the_common_one():
    corpus = {"language": {"thresholds": {"deu_Latn": 0.85}}}
    assert reason(LanguageRule(), row(score=0.8), corpus) is Reason.LANGUAGE_UNCERTAIN
    assert reason(LanguageRule(), row(score=0.85), corpus) is None
    assert reason(LanguageRule(), row("fra_Latn", 0.31), corpus) is None
    assert reason(LanguageRule(per_language_thresholds=False), row(score=0.8), corpus) is None


@pytest.mark.parametrize(
    "options",
    [{"threshold": 1.5}, {"keep": "deu"}, {"keep": ("german",)}, {"drop": ("",)}, {"drop": ("und",)}],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(UserError):
        LanguageRule(**options)


SCORES = st.lists(
    st.tuples(st.sampled_from(["deu_Latn", "gsw_Latn", "tha_Thai"]), st.integers(0, 10_000).map(lambda n: n / 10_000)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(SCORES, st.randoms(use_true_random=False), st.integers(1, 5))
def test_statistics_equal_the_definition_in_any_order_or_split(pairs, shuffle, parts):
    rows = [row(label, score) for label, score in pairs]
    result = language_statistics(rows)
    for label in {label for label, _ in pairs}:
        scores = [score for name, score in pairs if name == label]
        median, deviation = statistics.median(scores), statistics.pstdev(scores)
        figures = result["languages"][label]
        assert figures["documents"] == len(scores)
        assert figures["median"] == pytest.approx(median, abs=1e-6)
        assert figures["deviation"] == pytest.approx(deviation, abs=1e-6)
        assert result["thresholds"][label] == pytest.approx(min(max(median - deviation, 0.3), 0.9), abs=2e-6)
    shuffle.shuffle(rows)
    whole = LanguageStatistics()
    for part in range(parts):
        counted = LanguageStatistics()
        for one in rows[part::parts]:
            counted.add(one)
        whole.merge(counted)
    assert json.dumps(whole.result()) == json.dumps(result)


def test_statistics_pass_over_unknown_and_unscored_documents():
    rows = [row("und_Latn", 0.0), row(None, None), row("deu_Latn", 0.95)]
    assert language_statistics(rows) == {
        "thresholds": {"deu_Latn": 0.9},
        "languages": {"deu_Latn": {"documents": 1, "median": 0.95, "deviation": 0.0}},
    }


def test_sample_depends_on_the_identity_and_the_seed_alone():
    generator = random.Random(1)
    rows = [row(score=generator.random(), document_id=f"{i:032x}") for i in range(4000)]
    result = language_statistics(rows, sample_share=0.25, seed=3)
    assert result == language_statistics(reversed(rows), sample_share=0.25, seed=3)
    number = result["languages"]["deu_Latn"]["documents"]
    assert 880 < number < 1120  # 1000 ± 4 standard deviations
    assert result != language_statistics(rows, sample_share=0.25, seed=4)
    with pytest.raises(UserError, match="sample_share"):
        language_statistics(rows, sample_share=0.0)

"""The limits on the measures: order, presets, languages."""

import dataclasses

import pytest

from apertus_jax.corpus.quality import EnglishQualityRule, QualityRule, QualityScoring
from apertus_jax.corpus.quality.rules import LIMITS
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError

LANGUAGE = {"language_label": "eng_Latn", "language_score": 0.9, "language_declared": "und"}
GOOD = {
    "quality_words": 200,
    "quality_mean_word_length": 5.0,
    "quality_unspaced_share": 0.0,
    "quality_alphabetic_word_share": 0.95,
    "quality_stop_words_eng": 6,
    "quality_terminal_line_share": 0.9,
}
COLUMNS = {field.name: GOOD.get(field.name, 0.0) for field in QualityScoring().build().schema()}
ALL = QualityRule(except_languages=())


def row(**changes):
    changes = {name if name.startswith("language_") else f"quality_{name}": value for name, value in changes.items()}
    return {**COLUMNS, **LANGUAGE, **changes}


def verdict(rule, **changes):
    found = rule.verdict(row(**changes), {})
    return found and (found.reason, found.detail)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"words": 49}, Reason.LENGTH, "words 49 < 50"),
        ({"words": 100_001}, Reason.LENGTH, "words 100001 > 100000"),
        ({"mean_word_length": 2.9}, Reason.WORDS, "mean_word_length 2.9 < 3"),
        ({"mean_word_length": 10.1}, Reason.WORDS, "mean_word_length 10.1 > 10"),
        ({"alphabetic_word_share": 0.79}, Reason.WORDS, "alphabetic_word_share 0.79 < 0.8"),
        ({"stop_words_eng": 1}, Reason.WORDS, "stop_words_eng 1 < 2"),
        ({"hashes_per_word": 0.11}, Reason.SYMBOLS, "hashes_per_word 0.11 > 0.1"),
        ({"ellipses_per_word": 0.11}, Reason.SYMBOLS, "ellipses_per_word 0.11 > 0.1"),
        ({"bullet_line_share": 0.91}, Reason.LINES, "bullet_line_share 0.91 > 0.9"),
        ({"ellipsis_line_share": 0.31}, Reason.LINES, "ellipsis_line_share 0.31 > 0.3"),
        ({"terminal_line_share": 0.11}, Reason.LINES, "terminal_line_share 0.11 < 0.12"),
        ({"short_line_share": 0.68}, Reason.LINES, "short_line_share 0.68 > 0.67"),
        ({"newlines_per_word": 0.31}, Reason.LINES, "newlines_per_word 0.31 > 0.3"),
        ({"duplicate_line_share": 0.31}, Reason.REPETITION, "duplicate_line_share 0.31 > 0.3"),
        ({"duplicate_line_character_share": 0.02}, Reason.REPETITION, "duplicate_line_character_share 0.02 > 0.01"),
        ({"duplicate_paragraph_share": 0.4}, Reason.REPETITION, "duplicate_paragraph_share 0.4 > 0.3"),
        (
            {"duplicate_paragraph_character_share": 0.3},
            Reason.REPETITION,
            "duplicate_paragraph_character_share 0.3 > 0.2",
        ),
        ({"top_2_gram": 0.31}, Reason.REPETITION, "top_2_gram 0.31 > 0.2"),
        ({"top_3_gram": 0.19}, Reason.REPETITION, "top_3_gram 0.19 > 0.18"),
        ({"top_4_gram": 0.17}, Reason.REPETITION, "top_4_gram 0.17 > 0.16"),
        *(
            (
                {f"duplicate_{n}_gram": bound + 0.01},
                Reason.REPETITION,
                f"duplicate_{n}_gram {bound + 0.01:g} > {bound:g}",
            )
            for n, bound in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
        ),
    ],
)
def test_every_english_limit_drops_what_passes_it(changes, reason, detail):
    assert verdict(EnglishQualityRule(), **changes) == (reason, detail)


def test_a_good_text_and_values_on_the_limits_stay():
    assert verdict(EnglishQualityRule()) is None
    bounds = {limit.column: getattr(EnglishQualityRule(), limit.field) for limit in LIMITS}
    bounds["stop_words_eng"] = bounds.pop("stop_words")
    bounds["words"], bounds["mean_word_length"] = 50, 3
    bounds.update({f"top_{n}_gram": bound for n, bound in EnglishQualityRule().top_n_grams})
    bounds.update({f"duplicate_{n}_gram": bound for n, bound in EnglishQualityRule().duplicate_n_grams})
    assert verdict(EnglishQualityRule(), **bounds) is None


def test_first_reason_of_several_decides_in_the_order_of_reasons():
    order = [limit.reason for limit in LIMITS]
    assert order == sorted(order, key=list(Reason).index)
    assert verdict(EnglishQualityRule(), words=1, top_2_gram=1.0)[0] is Reason.LENGTH
    assert verdict(EnglishQualityRule(), top_2_gram=1.0, hashes_per_word=1.0)[0] is Reason.SYMBOLS


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.field)
def test_every_single_limit_can_be_switched_off(limit):
    column = "stop_words_eng" if limit.column == "stop_words" else limit.column
    bad = {column: 0 if limit.is_minimum else 10**9}
    if column == "words":
        bad["stop_words_eng"] = 6
    assert verdict(EnglishQualityRule(), **bad)[0] is limit.reason
    assert verdict(dataclasses.replace(EnglishQualityRule(), **{limit.field: None}), **bad) is None


def test_n_gram_limits_can_be_switched_off_and_changed():
    rule = EnglishQualityRule(top_n_grams=[[2, 0.5]], duplicate_n_grams=None)
    assert verdict(rule, top_2_gram=0.4, top_3_gram=1.0, duplicate_5_gram=1.0) is None
    assert verdict(rule, top_2_gram=0.6) == (Reason.REPETITION, "top_2_gram 0.6 > 0.5")


def test_rules_are_about_their_languages():
    german = {"language_label": "deu_Latn"}
    assert verdict(EnglishQualityRule(), words=1, **german) is None
    assert verdict(QualityRule(), words=1) is None
    assert verdict(QualityRule(), words=1, **german)[0] is Reason.LENGTH
    assert verdict(QualityRule(languages=("de",)), words=1, **german)[0] is Reason.LENGTH
    assert verdict(QualityRule(languages=("fra",)), words=1, **german) is None
    declared = {"language_label": "eng_Latn", "language_declared": "gsw_Latn"}
    assert verdict(EnglishQualityRule(), words=1, **declared) is None
    assert verdict(EnglishQualityRule(trust_declared=False), words=1, **declared)[0] is Reason.LENGTH


def test_short_lines_and_punctuation_are_asked_of_english_alone():
    assert verdict(ALL, short_line_share=1.0, terminal_line_share=0.0, duplicate_paragraph_share=1.0) is None


def test_word_length_and_stop_words_need_scripts_with_spaces():
    chinese = {"language_label": "cmn_Hani", "unspaced_share": 0.98, "mean_word_length": 30.0}
    assert verdict(ALL, **chinese) is None
    assert verdict(ALL, **{**chinese, "unspaced_share": 0.2})[0] is Reason.WORDS


def test_stop_words_are_asked_only_where_the_language_has_some():
    assert verdict(ALL, stop_words_eng=0)[0] is Reason.WORDS
    assert verdict(ALL, stop_words_eng=0, language_label="deu_Latn") is None
    assert verdict(ALL, stop_words_deu=1, language_label="deu_Latn")[1] == "stop_words_deu 1 < 2"


def test_documents_that_were_not_scored_are_not_judged():
    unscored = dict.fromkeys([*COLUMNS, *LANGUAGE])
    assert EnglishQualityRule().verdict(unscored, {}) is None


def test_presets_judge_real_text():
    good = (
        "The council met on Tuesday to discuss the plan that had been put forward in the spring. Most of the members "
        "spoke in favour of it, and the mayor said that the work could begin before the end of the year. A smaller "
        "group asked for more time, with a second report to be written by people who have no interest in the result.\n"
    )
    scorer = QualityScoring().build()
    bad = "Click here to read more of the news\n" * 30
    texts = {good: None, bad: Reason.LINES, good * 3: Reason.REPETITION, "The end.": Reason.LENGTH}
    for text, reason in texts.items():
        scores = scorer.score([RawDocument("0" * 32, text, "test", "f", 1)])[0]
        found = EnglishQualityRule().verdict({**scores, **LANGUAGE}, {})
        assert (found and found.reason) is reason, text


@pytest.mark.parametrize(
    "options",
    [
        {"minimum_words": -1},
        {"maximum_short_line_share": 1.5},
        {"top_n_grams": ((5, 0.1),)},
        {"duplicate_n_grams": ((5, 1.5),)},
        {"languages": "deu"},
        {"except_languages": ("german",)},
    ],
)
def test_limits_that_mean_nothing_are_refused(options):
    with pytest.raises(UserError):
        QualityRule(**options)

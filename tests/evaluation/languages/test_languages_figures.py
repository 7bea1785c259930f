"""Formulas of the report by language against brute force."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data import train_bpe
from apertus_jax.errors import UserError
from apertus_jax.evaluation.languages import gini, lorenz_curve
from apertus_jax.evaluation.languages.counting import (
    BYTES,
    CHARACTERS,
    NATS,
    TOKENS,
    WORDS,
    Passage,
    count_tokens,
    resampling_units,
    whole_characters,
    with_losses,
)
from apertus_jax.evaluation.languages.figures import group_figures, inequality, language_figures, ratio_estimate
from apertus_jax.evaluation.languages.inequality import rank_correlation, resource_class, worst_decile
from apertus_jax.evaluation.languages.parallel_texts import SAMPLE, read_texts
from apertus_jax.evaluation.languages.parity import compare, fairness, line_sums
from apertus_jax.evaluation.languages.training_share import RunRecord, read_run_record, training_shares

TEXTS = ["The sun is shining.", "Ο ήλιος λάμπει.", "今天阳光明媚。", "วันนี้แดดออก", "🌞 x\u3000y\u00a0z\n\tend "]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS * 3, 400)


costs = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=30)


def test_golden_gini_of_one_one_two_is_a_sixth():
    assert gini([1, 1, 2]) == pytest.approx(1 / 6, abs=1e-15)
    assert gini([3.0, 3.0, 3.0]) == 0 and gini([0, 0]) == 0


@settings(deadline=None)
@given(costs)
def test_gini_is_the_double_sum_in_any_order_and_scale(values):
    array = np.array(values)
    if array.mean() > 0:
        double_sum = sum(abs(a - b) for a in values for b in values)
        assert gini(values) == pytest.approx(double_sum / (2 * len(values) ** 2 * array.mean()), abs=1e-9)
        assert gini(values[::-1]) == pytest.approx(gini(values), abs=1e-9)
        assert gini(3 * array) == pytest.approx(gini(array), abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=30))
def test_gini_is_twice_the_area_from_lorenz_curve_to_equality(values):
    share, cost = lorenz_curve(values)
    assert share[0] == cost[0] == 0 and share[-1] == 1 and cost[-1] == pytest.approx(1)
    assert 1 - 2 * np.trapezoid(cost, share) == pytest.approx(gini(values), abs=1e-9)


@pytest.mark.parametrize("values", [[], [1, -1], [1, math.nan], [math.inf]])
def test_gini_of_nonsense_is_one_clear_line(values):
    with pytest.raises(UserError, match="Gini"):
        gini(values)


def test_classes_by_share_and_worst_decile():
    shares = [None, 0.0, 1e-9, 9.9e-5, 1e-4, 1e-3, 0.0099, 0.01, 1.0]
    expected = ["unknown", "unseen", "very low", "very low", "low", "medium", "medium", "high", "high"]
    assert [resource_class(share) for share in shares] == expected
    values = np.random.default_rng(0).permutation(21)
    assert values[worst_decile(values)].tolist() == [20, 19, 18]
    assert worst_decile([5.0]).tolist() == [0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20))
def test_rank_correlation_is_spearmans(pairs):
    first, second = zip(*pairs, strict=True)
    found = rank_correlation(first, second)
    if len(set(first)) > 1 and len(set(second)) > 1:
        assert found == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-12)
    else:
        assert found is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(0, 40))
def test_counts_of_any_cut_add_up_to_those_of_the_text(tokenizer, text, cut):
    ids = tokenizer.encode(text)
    counts = count_tokens(tokenizer, ids)
    expected = [len(ids), len(text.split()), len(text), len(text.encode())]
    assert counts.shape == (len(ids), 4) and counts.sum(axis=0).tolist() == expected
    parts = counts[:cut].sum(axis=0) + counts[cut:].sum(axis=0)
    assert parts.tolist() == expected
    beginning = whole_characters(tokenizer, ids[:cut])
    spelled = tokenizer.decode_bytes(beginning).decode()
    assert text.startswith(spelled)
    assert len(tokenizer.decode_bytes(ids[:cut])) - len(spelled.encode()) < 4
    begun = [len(beginning), len(spelled.split()), len(spelled), len(spelled.encode())]
    assert counts[: len(beginning)].sum(axis=0).tolist() == begun


def synthetic(languages, passages, seed=0):
    """Passages with random counts and nats."""
    generator = np.random.default_rng(seed)
    texts, counted = [], []
    for language in languages:
        for number in range(passages):
            size = int(generator.integers(20, 90))
            rows = generator.integers(1, 6, (size, 5)).astype(float)
            rows[:, TOKENS] = 1
            rows[:, NATS] = generator.gamma(2, 1, size) * (1 + len(language) / 10)
            origin = "held out" if number % 3 == 0 else "training"
            texts.append(Passage(language, np.zeros(size, np.int32), origin, str(number)))
            counted.append(rows)
    return texts, counted


@pytest.mark.parametrize("passages", [4, 30])
def test_figures_are_corpus_ratios_of_the_right_text(passages):
    names = ["eng_Latn", "deu_Latn", "ell_Grek"]
    texts, counted = synthetic(names, passages)
    rows = language_figures(texts, counted, {"eng_Latn": 0.99, "deu_Latn": 0.01}, seed=0)
    assert [row.language for row in rows] == sorted(names)
    assert {row.language: row.resource_class for row in rows}["ell_Grek"] == "unseen"
    for row in rows:
        of_language = [(t, c) for t, c in zip(texts, counted, strict=True) if t.language == row.language]
        everything = sum(c.sum(axis=0) for _, c in of_language)
        held_out = sum(c.sum(axis=0) for t, c in of_language if t.origin == "held out")
        assert row.value("fertility") == pytest.approx(everything[TOKENS] / everything[WORDS])
        assert row.value("tokens_per_character") == pytest.approx(everything[TOKENS] / everything[CHARACTERS])
        assert row.value("bytes_per_token") == pytest.approx(everything[BYTES] / everything[TOKENS])
        assert row.text == "held out"
        assert row.value("bits_per_byte") == pytest.approx(held_out[NATS] / math.log(2) / held_out[BYTES])
        assert row.bits_per_byte_by_text["held out"] == pytest.approx(row.value("bits_per_byte"))
        for estimate in row.ratios.values():
            assert estimate.lower < estimate.value < estimate.upper
    assert (rows[0].interval_unit == "passages") == (passages == 30)


def test_groups_hold_means_over_languages_and_gini_within():
    texts, counted = synthetic(["aaa_Latn", "bbb_Latn", "ccc_Latn", "ddd_Grek"], 9)
    rows = language_figures(texts, counted, dict.fromkeys(["aaa_Latn", "bbb_Latn"], 0.5), seed=0)
    scripts = group_figures(rows, "script", seed=0)
    assert [(entry["name"], entry["languages"], entry["share"]) for entry in scripts] == [
        ("Latn", 3, 1.0),
        ("Grek", 1, 0.0),
    ]
    values = [row.value("bits_per_byte") for row in rows if row.script == "Latn"]
    latin = scripts[0]["bits_per_byte"]
    assert latin["value"] == pytest.approx(np.mean(values)) and latin["gini"] == pytest.approx(gini(values))
    assert min(values) <= latin["lower"] <= latin["value"] <= latin["upper"] <= max(values)
    found = inequality(rows, {"script": scripts}, seed=0)["bits_per_byte"]
    assert found["language"]["value"] == pytest.approx(gini([row.value("bits_per_byte") for row in rows]))
    assert found["script"] == pytest.approx(gini([latin["value"], scripts[1]["bits_per_byte"]["value"]]))


def test_ratio_over_nothing_is_undefined_and_has_no_interval():
    assert ratio_estimate(np.ones(3), np.zeros(3), 0) is None
    assert ratio_estimate(np.array([math.nan, 1]), np.ones(2), 0) is None
    estimate = ratio_estimate(np.ones(3), np.array([2.0, 0, 0]), 0)
    assert estimate.value == 1.5 and math.isnan(estimate.lower)


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        sizes = generator.integers(5, 50, 60).astype(float)
        estimate = ratio_estimate(sizes * generator.gamma(4, 0.5, 60), sizes, trial)
        covered += estimate.lower <= 2.0 <= estimate.upper
    assert 0.88 <= covered / 200 <= 0.99


def test_parity_and_fairness_are_sums_over_the_same_lines():
    texts, counted = synthetic(["eng_Latn", "deu_Latn", "ell_Grek"], 12)
    order = np.random.default_rng(0).permutation(len(texts))
    sums = line_sums([texts[i] for i in order], [counted[i] for i in order])
    totals = {
        name: sum(c.sum(axis=0) for t, c in zip(texts, counted, strict=True) if t.language == name) for name in sums
    }
    rows = {row.language: row for row in compare(sums, "eng_Latn", "line", seed=0)}
    for name, row in rows.items():
        assert row.premium.value == pytest.approx(totals[name][TOKENS] / totals["eng_Latn"][TOKENS])
        assert row.information_parity.value == pytest.approx(totals["eng_Latn"][NATS] / totals[name][NATS])
        assert row.cost == pytest.approx(totals[name][TOKENS] / 12)
        assert row.bits_per_byte.value == pytest.approx(totals[name][NATS] / math.log(2) / totals[name][BYTES])
    english = rows["eng_Latn"]
    assert english.premium.lower == english.premium.upper == english.information_parity.lower == 1
    for units, column in (("line", None), ("byte", BYTES), ("character", CHARACTERS), ("word", WORDS)):
        expected = [total[TOKENS] / (12 if column is None else total[column]) for total in totals.values()]
        found = fairness(sums, units, seed=0)
        assert found["gini"]["value"] == pytest.approx(gini(expected))
        assert found["gini"]["lower"] <= found["gini"]["upper"]
        assert found["greatest_over_least"] == pytest.approx(max(expected) / min(expected))
    with pytest.raises(UserError, match=r"no fra_Latn.*deu_Latn"):
        compare(sums, "fra_Latn", "line", seed=0)


def test_blocks_and_passages_hold_the_same_sums():
    _, counted = synthetic(["eng_Latn"], 5)
    blocks, unit = resampling_units(counted)
    assert unit == "blocks of 32 tokens" and len(blocks) > 5 and blocks[:, TOKENS].max() == 32
    np.testing.assert_allclose(blocks.sum(axis=0), sum(each.sum(axis=0) for each in counted))
    assert np.isnan(with_losses(np.ones((2, 4)), None)[:, NATS]).all()


class StoreOf:
    """What `training_shares` reads of a token store."""

    training_sources = ("books", "web")

    def __init__(self, sources):
        self.summary = {
            "sources": {
                name: {"tokens": sum(t.values()), "languages": {k: {"tokens": v} for k, v in t.items()}}
                for name, t in sources.items()
            }
        }


def test_share_of_training_tokens_follows_the_mixture_of_the_run(tmp_path):
    store = StoreOf({"web": {"eng_Latn": 300, "deu_Latn": 100}, "books": {"eng_Latn": 600}})
    assert training_shares(store, None) == pytest.approx({"eng_Latn": 0.9, "deu_Latn": 0.1})
    stages = [
        {"start": 0, "length": 100, "realised_rates": {"a": 1.0, "b": 0.0}},
        {"start": 100, "length": None, "realised_rates": {"a": 0.25, "b": 0.75}},
    ]
    mixture = {
        "blend": {"kind": "quotas", "stages": stages},
        "sources": [
            {"name": "a", "source": "web", "store_digest": "x"},
            {"name": "b", "source": "books", "store_digest": "x"},
        ],
    }
    (tmp_path / "mixture.json").write_text(json.dumps(mixture))
    (tmp_path / "finished.json").write_text('{"samples": 140}')
    record = read_run_record(tmp_path)
    assert record == RunRecord(mixture, 140) and record.store_digests == {"x"}
    assert record.source_weights() == pytest.approx({"web": 110, "books": 30})
    german = 110 / 140 / 4
    assert training_shares(store, record) == pytest.approx({"eng_Latn": 1 - german, "deu_Latn": german})
    (tmp_path / "finished.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        read_run_record(tmp_path)
    assert read_run_record(tmp_path / "elsewhere") is None


def test_the_bundled_sentences_are_parallel_and_of_many_scripts():
    sample = read_texts(SAMPLE)
    assert sample.aligned and len(sample.texts) >= 30 and "eng_Latn" in sample.texts
    assert len({language[-4:] for language in sample.texts}) >= 10
    assert {len(set(lines.values())) for lines in sample.texts.values()} == {8}

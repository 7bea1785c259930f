"""Thresholds: the promised share on documents never sampled, whatever the order, and rules that say why."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.classifiers import (
    PercentileOptions,
    PercentileSketch,
    QualityScoreRule,
    ToxicityRule,
    percentile_statistics,
)
from apertus_jax.corpus.classifiers.keyed_hash import chosen, derived_keys, document_key
from apertus_jax.corpus.classifiers.percentiles import (
    BottomSample,
    Record,
    quality_threshold,
    toxicity_threshold,
)
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError

COUNT = 500_000
SCORES_OF = {"deu_Latn": (0.5, 3.0), "eng_Latn": (2.0, 1.0)}


def columns(language, count=COUNT):
    generator = np.random.default_rng(abs(hash_of(language)))
    keys = generator.integers(0, 1 << 64, count, dtype=np.uint64)
    first, second = SCORES_OF[language]
    quality = np.round(generator.beta(first, second, count), 6)
    return keys, quality, np.round(generator.beta(second, first, count), 6)


def hash_of(language):
    return int.from_bytes(language.encode()[:4], "big")


def sketch_of(parts, options):
    sketch = PercentileSketch(options)
    for language, keys, quality, toxicity in parts:
        sketch.add_columns(language, keys, quality, toxicity)
    return sketch


@pytest.fixture(scope="module")
def halves():
    """Language → first half (measured), second half (held out)."""
    result = {}
    for language in SCORES_OF:
        whole = columns(language)
        result[language] = [[c[: COUNT // 2] for c in whole], [c[COUNT // 2 :] for c in whole]]
    return result


def test_thresholds_reproduce_the_share_on_held_out_documents(halves):
    options = PercentileOptions()
    measured = sketch_of([(name, *parts[0]) for name, parts in halves.items()], options).result()
    for language, (_, held_out) in halves.items():
        found = measured["languages"][language]
        assert found["sampled"] == COUNT // 2
        for share in options.quality_keep:
            kept = (held_out[1] > found["quality"][f"{share:g}"]["threshold"]).mean()
            assert kept == pytest.approx(share, abs=0.002)
        dropped = (held_out[2] >= found["toxicity"]["0.05"]["threshold"]).mean()
        assert dropped == pytest.approx(0.05, abs=0.002)


def test_sample_smaller_than_the_corpus_is_uniform(halves):
    keys, quality, toxicity = halves["deu_Latn"][0]
    # Sorted by score: a sample of the first rows, as published, would be badly biased here.
    order = np.argsort(quality)
    options = PercentileOptions(sample_size=50_000)
    found = sketch_of([("deu_Latn", keys[order], quality[order], toxicity[order])], options).result()
    language = found["languages"]["deu_Latn"]
    assert (language["seen"], language["sampled"]) == (len(keys), 50_000)
    deviation = np.sqrt(0.33 * 0.67 / 50_000)
    assert (quality > language["quality"]["0.33"]["threshold"]).mean() == pytest.approx(0.33, abs=4 * deviation)


def test_bottom_sample_takes_every_position_equally_often():
    counts = np.zeros(40)
    for seed in range(2000):
        sample = BottomSample(10)
        records = np.zeros(40, Record)
        records["key"] = derived_keys(np.arange(40, dtype=np.uint64), "test", seed)
        records["quality"] = np.arange(40)
        sample.add(records)
        counts[sample.records()["quality"].astype(int)] += 1
    expected = 2000 * 10 / 40
    chi_square = ((counts - expected) ** 2 / expected).sum() / (1 - 10 / 40)
    assert chi_square < 73  # 99.9 % of χ² with 39 degrees of freedom


def test_thresholds_do_not_depend_on_order_of_files_or_merging(halves):
    options = PercentileOptions(sample_size=20_000, seed=5)
    parts = [(name, *(column[:100_000] for column in halves[name][0])) for name in halves]
    whole = sketch_of(parts, options).result()
    generator = np.random.default_rng(0)
    shuffled = []
    for language, *values in parts:
        order = generator.permutation(len(values[0]))
        pieces = np.array_split(order, [10, 3000, 61_000])
        shuffled += [(language, *(column[piece] for column in values)) for piece in pieces]
    generator.shuffle(shuffled)
    assert sketch_of(shuffled, options).result() == whole
    left, right = sketch_of(shuffled[:3], options), sketch_of(shuffled[3:], options)
    right.merge(left)
    assert right.result() == whole
    assert sketch_of(parts, PercentileOptions(sample_size=20_000, seed=6)).result() != whole


def test_memory_of_a_sample_is_bounded():
    sample = BottomSample(1000)
    generator = np.random.default_rng(0)
    for _ in range(200):
        records = np.zeros(500, Record)
        records["key"] = generator.integers(0, 1 << 64, 500, dtype=np.uint64)
        sample.add(records)
        assert sum(len(part) for part in sample._parts) <= 2500
    assert sample.seen == 100_000


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.sampled_from([0.05, 0.1, 0.33, 0.5, 0.67]))
@settings(max_examples=150, deadline=None)
def test_quantiles_equal_their_definition(values, share):
    scores, count = np.array(values) / 10, len(values)
    wanted = round(share * 100)
    threshold = quality_threshold(scores, share)
    # The smallest score that at least 1 − p of the scores do not exceed, in whole numbers.
    assert threshold == min(x for x in scores if (scores <= x).sum() * 100 >= (100 - wanted) * count)
    limit = toxicity_threshold(scores, share)
    dropped = wanted * count // 100
    assert limit == (sorted(scores, reverse=True)[dropped - 1] if dropped else np.inf)


def test_distinct_scores_keep_and_drop_whole_counts():
    scores = np.arange(100) / 100
    assert (scores > quality_threshold(scores, 0.33)).sum() == 33
    assert (scores >= toxicity_threshold(scores, 0.05)).sum() == 5
    # Shares whose product with the count is not whole in binary.
    assert (scores[:50] > quality_threshold(scores[:50], 0.42)).sum() == 21
    assert (scores >= toxicity_threshold(scores, 0.29)).sum() == 29


def rows(count, language="deu_Latn"):
    return [
        {
            "sample_key": document_key(f"{language}{number}", 0),
            "quality_score": number / count,
            "toxicity_score": number / count,
            "language": language,
        }
        for number in range(count)
    ]


def test_rows_unscored_by_consent_are_not_counted_nor_judged():
    unscored = {"sample_key": None, "quality_score": None, "toxicity_score": None, "language": None}
    measured = percentile_statistics([*rows(200), *[unscored] * 50])
    assert measured["percentiles"]["languages"]["deu_Latn"]["seen"] == 200
    assert QualityScoreRule().verdict(unscored, measured) is None
    assert ToxicityRule().verdict(unscored, measured) is None


def test_rules_keep_and_drop_their_shares_and_say_why():
    scored = rows(1000)
    measured = percentile_statistics(scored)
    quality = [QualityScoreRule().verdict(row, measured) for row in scored]
    assert sum(verdict is None for verdict in quality) == 330
    assert quality[0].reason is Reason.QUALITY
    assert quality[0].detail == "score 0.000000 not above 0.669000 (deu_Latn)"
    toxicity = [ToxicityRule().verdict(row, measured) for row in scored]
    assert [number for number, verdict in enumerate(toxicity) if verdict] == list(range(950, 1000))
    assert toxicity[-1].reason is Reason.TOXICITY
    assert toxicity[-1].detail == "score 0.999000 not below 0.950000 (deu_Latn)"


def test_explicit_thresholds_win_over_percentiles():
    row = rows(1000)[500]
    measured = percentile_statistics(rows(1000))
    assert QualityScoreRule(thresholds={"deu_Latn": 0.4}).verdict(row, measured) is None
    assert QualityScoreRule(thresholds={"deu_Latn": 0.5}).verdict(row, {}) is not None
    assert ToxicityRule(thresholds={"deu_Latn": 0.5}).verdict(row, {}) is not None
    assert ToxicityRule(thresholds={"deu_Latn": 0.501}).verdict(row, {}) is None


def test_share_may_differ_by_language():
    scored = rows(1000)
    rule = QualityScoreRule(keep_shares={"deu_Latn": 0.1})
    measured = percentile_statistics(scored)
    assert sum(rule.verdict(row, measured) is None for row in scored) == 100


def test_languages_without_a_classifier_are_sampled_by_hash():
    scored = rows(20_000, "gsw_Latn")
    verdicts = [QualityScoreRule().verdict(row, {}) for row in scored]
    kept = np.array([verdict is None for verdict in verdicts])
    assert kept.mean() == pytest.approx(0.3135, abs=4 * np.sqrt(0.3135 * 0.6865 / 20_000))
    assert "sampled" in next(verdict for verdict in verdicts if verdict).detail
    other = np.array([QualityScoreRule(seed=1).verdict(row, {}) is None for row in scored])
    assert (kept & other).mean() == pytest.approx(0.3135**2, abs=0.01)
    fewer = np.array([QualityScoreRule(fallback_share=0.1).verdict(row, {}) is None for row in scored])
    assert not (fewer & ~kept).any()
    assert all(QualityScoreRule(fallback_share=1.0).verdict(row, {}) is None for row in scored[:100])


def test_toxicity_judges_its_languages_and_samples_where_asked():
    scored = rows(10_000, "ces_Latn")
    assert all(ToxicityRule().verdict(row, {}) is None for row in scored[::100])
    rule = ToxicityRule(random_languages=("ces_Latn",))
    assert np.mean([rule.verdict(row, {}) is not None for row in scored]) == pytest.approx(0.05, abs=0.01)


def test_too_few_scores_make_no_percentile():
    scored = rows(50)
    measured = percentile_statistics(scored)
    assert all(ToxicityRule().verdict(row, measured) is None for row in scored)
    verdicts = [QualityScoreRule().verdict(row, measured) for row in scored]
    assert all("sampled" in verdict.detail for verdict in verdicts if verdict)


def test_unmeasured_share_is_one_clear_line():
    measured = percentile_statistics(rows(200))
    with pytest.raises(UserError, match=r"share 0\.25 of deu_Latn .*there are 0\.1, 0\.33.*aggregate"):
        QualityScoreRule(keep_share=0.25).verdict(rows(200)[0], measured)


@pytest.mark.parametrize(
    "make",
    [
        lambda: QualityScoreRule(keep_share=0),
        lambda: QualityScoreRule(fallback_share=1.5),
        lambda: QualityScoreRule(languages="deu_Latn"),
        lambda: ToxicityRule(drop_share=1.0),
        lambda: ToxicityRule(random_languages=("deu_Latn",)),
        lambda: PercentileOptions(sample_size=0),
        lambda: PercentileOptions(quality_keep=(1.2,)),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_keys_are_fixed_for_ever():
    assert document_key("00" * 16, 0) == document_key("00" * 16, 0) != document_key("00" * 16, 1)
    assert [chosen(number << 40, 0.5, "p", 7) for number in range(8)] == [
        bool(int(derived_keys(np.array([number << 40], np.uint64), "p", 7)[0]) < 1 << 63) for number in range(8)
    ]

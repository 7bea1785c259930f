"""Membership scores and the figures of an attack against brute force, scipy, and worlds whose answer is known."""

import math
import zlib

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.membership import attack_quality as quality
from apertus_jax.evaluation.memorization.membership import attacks as membership
from apertus_jax.evaluation.memorization.membership import blind_baseline as blind
from apertus_jax.evaluation.memorization.membership.attacks import DocumentStatistics


def area_by_pairs(scores, is_member):
    pairs = [(m > o) + (m == o) / 2 for m in scores[is_member] for o in scores[~is_member]]
    return sum(pairs) / len(pairs)


def rates_at_thresholds(scores, is_member):
    """(true positives, false positives) of every threshold, the one above all scores included."""
    for threshold in [math.inf, *set(scores.tolist())]:
        accepted = scores >= threshold if threshold != math.inf else np.zeros(len(scores), bool)
        yield (accepted & is_member).sum(), (accepted & ~is_member).sum()


def random_scores(generator):
    """Scores with many ties, or none, or of one value, and both classes."""
    size = int(generator.integers(2, 30))
    is_member = generator.random(size) < generator.uniform(0.1, 0.9)
    is_member[:2] = [True, False]
    scores = generator.integers(0, generator.choice([1, 3, 10, 10**6]), size).astype(float)
    if generator.random() < 0.1:
        scores[generator.integers(size)] = -math.inf
    order = generator.permutation(size)
    return scores[order] / 8, is_member[order]


def test_figures_of_an_attack_equal_brute_force_in_thousands():
    generator = np.random.default_rng(0)
    allowed = (0.001, 0.05, 0.29, 0.5)
    for _ in range(2500):
        scores, is_member = random_scores(generator)
        found = quality.attack_quality(scores, is_member, 0, allowed, resamples=2)
        members, others = int(is_member.sum()), int((~is_member).sum())
        points = list(rates_at_thresholds(scores, is_member))
        assert (found.members, found.non_members) == (members, others)
        assert found.area.value == pytest.approx(area_by_pairs(scores, is_member), abs=1e-13)
        assert found.area.value == quality.area_under_curve(scores, is_member)
        expected = max(1 - (fp / others + 1 - tp / members) / 2 for tp, fp in points)
        assert found.balanced_accuracy.value == pytest.approx(expected, abs=1e-13)
        for rate in allowed:
            best = max(tp for tp, fp in points if fp * 1000 <= round(rate * 1000) * others)
            assert found.true_positive_rates[rate].value == pytest.approx(best / members, abs=1e-13)


def test_allowed_false_positives_are_counted_in_whole_documents():
    """0.29 × 100 is 28.999999999999996 in floats, and 29 non-members are meant."""
    scores = np.concatenate([np.arange(100), np.arange(100) + 0.5])
    found = quality.attack_quality(scores, np.arange(200) >= 100, 0, (0.29,), resamples=2)
    assert found.true_positive_rates[0.29].value == 0.30


def test_area_equals_the_rank_sum_statistic():
    generator = np.random.default_rng(1)
    scores, is_member = generator.normal(size=3000).round(1), generator.random(3000) < 0.3
    expected = scipy.stats.mannwhitneyu(scores[is_member], scores[~is_member]).statistic
    expected /= is_member.sum() * (~is_member).sum()
    assert quality.area_under_curve(scores, is_member) == pytest.approx(expected, abs=1e-12)


def test_intervals_are_quantiles_over_documents_drawn_again():
    """Each row of counts, written out as a list of documents, has the figures that brute force finds."""
    generator = np.random.default_rng(2)
    scores = generator.integers(0, 12, 40) / 4
    is_member = np.arange(40) % 3 == 0
    drawn = []
    for counts in quality.resampled_counts(is_member, 7, 150):
        assert (counts[:, is_member].sum(axis=1) == is_member.sum()).all()
        for row in counts.astype(int):
            copies = np.repeat(np.arange(40), row)
            drawn.append(area_by_pairs(scores[copies], is_member[copies]))
    found = quality.attack_quality(scores, is_member, 7, resamples=150)
    expected = np.quantile(drawn, [0.025, 0.975])
    assert len(drawn) == 150
    np.testing.assert_allclose([found.area.lower, found.area.upper], expected, atol=1e-12)
    assert 0 < found.area.upper - found.area.lower < 0.5
    again = quality.area_difference(scores, -scores, is_member, 7, resamples=150)
    np.testing.assert_allclose([again.lower, again.upper], 2 * expected - 1, atol=1e-12)


def test_area_interval_covers_the_truth_as_promised():
    generator = np.random.default_rng(3)
    truth = scipy.stats.norm.cdf(1 / math.sqrt(2))
    is_member = np.arange(80) < 40
    covered = 0
    for seed in range(200):
        found = quality.attack_quality(generator.normal(size=80) + is_member, is_member, seed, resamples=200)
        covered += found.area.lower <= truth <= found.area.upper
    assert 0.87 <= covered / 200 <= 0.99


def test_scores_are_those_of_their_papers_in_thousands():
    generator = np.random.default_rng(4)
    for _ in range(2000):
        size = int(generator.integers(1, 40))
        log_p = -generator.exponential(3, size)
        means, deviations = -generator.exponential(3, size), generator.uniform(0.1, 3, size)
        reference = -generator.exponential(3, size)
        text = "".join(generator.choice(list("abcé 日"), size))
        fraction = float(generator.choice([0.1, 0.2, 0.5, 1.0]))
        document = DocumentStatistics(log_p, means, deviations, reference, text)
        found = membership.document_scores(document, fraction)
        nll = -sum(log_p.tolist()) / size
        number = max(1, size * round(fraction * 10) // 10)
        lowest = sorted(log_p.tolist())[:number]
        normalized = sorted((p - m) / d for p, m, d in zip(log_p, means, deviations, strict=True))[:number]
        assert found["loss"] == pytest.approx(-nll)
        assert found["zlib"] == pytest.approx(-nll / len(zlib.compress(bytes(text, "utf-8"))))
        assert found["reference"] == pytest.approx(-sum(reference.tolist()) / size - nll)
        assert found["min_k"] == pytest.approx(sum(lowest) / number)
        assert found["min_k_plus_plus"] == pytest.approx(sum(normalized) / number)


def world(seed, documents=160, tokens=120, recall=1.0, recall_masked=0.0, masked_share=0.25):
    """Documents whose tokens have their own difficulty; a member's unmasked tokens are up to `recall` nats easier."""
    generator = np.random.default_rng(seed)
    is_member = np.arange(documents) % 2 == 0
    result = []
    for member in is_member:
        difficulty = generator.gamma(2.0, 1.5, tokens) * generator.lognormal(0, 0.15)
        in_loss = generator.random(tokens) >= masked_share
        easier = np.where(in_loss, recall, recall_masked) * member
        log_p = -np.maximum(difficulty - easier * generator.random(tokens), 0.01)
        noise = generator.normal(0, 0.8, (2, tokens))
        result.append(
            DocumentStatistics(
                log_p,
                -difficulty - 1 + noise[0],
                np.full(tokens, 1.5),
                -difficulty + noise[1],
                f"document {len(result)}",
                in_loss,
            )
        )
    return result, is_member


def test_model_that_remembers_gives_all_scores_area_above_half():
    """The sign trap: raw loss as a member's score would put the area below one half."""
    documents, is_member = world(0)
    found = membership.membership_inference(documents, is_member, seed=0, resamples=200)
    assert set(found) == {"loss", "zlib", "reference", "min_k", "min_k_plus_plus"}
    for name, each in found.items():
        assert each.area.lower > 0.5, name
    assert found["reference"].area.value > 0.99
    raw_losses = np.array([-document.log_probabilities.mean() for document in documents])
    assert quality.area_under_curve(raw_losses, is_member) < 0.5


def test_a_model_that_does_not_remember_is_not_accused():
    documents, is_member = world(1, recall=0.0)
    for each in membership.membership_inference(documents, is_member, seed=0, resamples=200).values():
        assert each.area.lower < 0.5 < each.area.upper


def test_tokens_out_of_the_loss_give_less_away_by_a_gap():
    documents, is_member = world(2)
    found = membership.membership_by_mask(documents, is_member, seed=0, resamples=200)
    for name in ("reference", "min_k_plus_plus"):
        assert found[name].gap.upper < 0
        assert found[name].masked.area.lower < 0.5 < found[name].masked.area.upper
        assert found[name].gap.value == pytest.approx(
            found[name].masked.area.value - found[name].unmasked_as_many.area.value
        )


def test_fewer_tokens_alone_make_no_gap():
    """Both kinds are remembered alike: all unmasked tokens do better than the few masked ones, as many do not."""
    documents, is_member = world(3, documents=600, recall=0.5, recall_masked=0.5, masked_share=0.06)
    found = membership.membership_by_mask(documents, is_member, seed=0, resamples=200)["reference"]
    assert found.gap.lower < 0 < found.gap.upper
    assert found.unmasked.area.value - found.masked.area.value > 0.05


def test_documents_without_tokens_of_one_kind_are_left_out():
    documents, is_member = world(4, documents=20)
    everything = DocumentStatistics(documents[0].log_probabilities, in_loss=np.ones(120, bool))
    found = membership.membership_by_mask([*documents, everything], [*is_member, True], seed=0, resamples=20)
    assert found["loss"].masked.members == 10
    with pytest.raises(UserError, match="no document has both masked and unmasked"):
        membership.membership_by_mask([everything], [True], seed=0)


def texts(seed, shift):
    """Token ids; members are longer and use other words where there is a shift."""
    generator = np.random.default_rng(seed)
    is_member = np.arange(200) % 2 == 0
    frequency = generator.dirichlet(np.full(300, 0.3))
    other = generator.permutation(frequency)
    documents = []
    for member in is_member:
        length = int(generator.normal(100 + 40 * shift * member, 15))
        mixed = (1 - 0.2 * shift * member) * frequency + 0.2 * shift * member * other
        documents.append(generator.choice(300, max(5, length), p=mixed / mixed.sum()))
    return documents, is_member


def test_blind_baseline_exposes_a_shift_and_only_a_shift():
    shifted = blind.blind_baseline(*texts(5, 1.0), seed=0, words=128, resamples=100)
    assert all(each.area.lower > 0.8 for each in shifted.values())
    areas = [blind.blind_baseline(*texts(seed, 0.0), seed=0, words=64, resamples=10) for seed in range(6, 10)]
    for name in (blind.LENGTH, blind.BAG_OF_WORDS):
        assert abs(np.mean([each[name].area.value for each in areas]) - 0.5) < 0.05


def test_logistic_regression_finds_the_minimum_that_scipy_finds():
    generator = np.random.default_rng(12)
    for case in range(60):
        size, width = int(generator.integers(6, 60)), int(generator.integers(1, 16))
        features = generator.normal(size=(size, width)) * generator.choice([0.1, 1, 5])
        labels = generator.random(size) < 0.5 if case % 3 else features[:, 0] > 0
        labels[:2] = [True, False]
        penalty = float(generator.choice([0.1, 1.0, 10.0]))

        def objective(parameters, features=features, labels=labels, penalty=penalty):
            logits = features @ parameters[:-1] + parameters[-1]
            losses = np.logaddexp(0, np.where(labels, -logits, logits))
            return losses.sum() + penalty / 2 * (parameters[:-1] ** 2).sum()

        weights, intercept = blind.fit_logistic_regression(features, labels, penalty)
        best = scipy.optimize.minimize(objective, np.zeros(width + 1), method="BFGS", options={"gtol": 1e-7})
        assert objective(np.append(weights, intercept)) <= best.fun + 1e-8
        np.testing.assert_allclose(np.append(weights, intercept), best.x, atol=2e-3)


def test_a_document_never_helps_to_score_itself():
    """Labels drawn at random cannot be predicted, however many features there are to remember them by."""
    generator = np.random.default_rng(13)
    features = generator.normal(size=(60, 100))
    areas = []
    for seed in range(10):
        is_member = generator.permutation(np.arange(60) < 30)
        scores = blind.cross_validated_scores(features, is_member, seed)
        areas.append(quality.area_under_curve(scores, is_member))
    assert abs(np.mean(areas) - 0.5) < 0.08


def test_bag_of_words_counts_the_most_frequent_ids():
    matrix = blind.bag_of_words([[5, 5, 9], [5, 1], [9, 5, 2]], words=2)
    np.testing.assert_allclose(matrix, np.log([[3, 2], [2, 1], [2, 2]]))
    ranks = blind._mean_ranks(np.array([3.0, 1.0, 3.0, 2.0]))
    np.testing.assert_allclose(ranks, (scipy.stats.rankdata([3, 1, 3, 2]) - 1) / 3)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (DocumentStatistics(np.zeros(0)), "has no token"),
        (DocumentStatistics(np.array([0.0, np.nan])), "log_probabilities holds NaN"),
        (DocumentStatistics(np.zeros(2), np.zeros(3), np.ones(2)), "means has 3 values for 2 tokens"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(document, message):
    with pytest.raises(UserError, match=message):
        membership.document_scores(document)


def test_a_flat_distribution_is_neither_likely_nor_unlikely():
    noise = np.array([3e-8, -3e-8])
    assert membership.min_k_plus_plus_score(-5 + noise, np.full(2, -5.0), np.abs(noise)) == 0


def test_input_without_two_classes_or_bad_options_is_refused():
    with pytest.raises(UserError, match="needs members and non-members"):
        quality.area_under_curve(np.zeros(3), np.ones(3, bool))
    with pytest.raises(UserError, match="scores are NaN"):
        quality.area_under_curve(np.array([np.nan, 0]), np.array([True, False]))
    with pytest.raises(UserError, match="fraction=0 must be above 0"):
        membership.min_k_score(np.zeros(3), 0)
    with pytest.raises(UserError, match="5 folds need at least 2 and at most 1"):
        blind.cross_validated_scores(np.zeros((4, 1)), [True, False, False, False], seed=0)
    with pytest.raises(UserError, match="document 0 has no in_loss"):
        membership.membership_by_mask([DocumentStatistics(np.zeros(3))], [True], seed=0)

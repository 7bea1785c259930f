"""Text metrics on token ids equal brute force on thousands of cases."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization import text_metrics

ODD_PAIRS = [([], []), ([], [1]), ([1], []), ([1], [1]), ([1], [2]), ([7] * 9, [7] * 4), ([1, 2] * 5, [2, 1] * 5)]
SEQUENCES = st.lists(st.integers(0, 3), max_size=12)


def random_pairs(count, seed):
    """Pairs with repeated tokens, shared passages, and lengths across the 64-bit word."""
    source = random.Random(seed)
    for case in range(count):
        alphabet = source.choice([1, 2, 3, 8, 50])
        longest = 90 if case % 20 == 0 else 16
        reference = [source.randrange(alphabet) for _ in range(source.randrange(longest))]
        generated = [source.randrange(alphabet) for _ in range(source.randrange(longest))]
        if case % 3 == 0 and reference:
            start = source.randrange(len(reference))
            place = source.randrange(len(generated) + 1)
            generated[place:place] = reference[start : start + source.randrange(longest)]
        yield reference, generated
    yield from ODD_PAIRS


def subsequence_by_table(reference, generated):
    table = np.zeros((len(reference) + 1, len(generated) + 1), int)
    for i, ours in enumerate(reference):
        for j, theirs in enumerate(generated):
            table[i + 1, j + 1] = table[i, j] + 1 if ours == theirs else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


def distance_by_table(reference, generated):
    row = list(range(len(generated) + 1))
    for i, ours in enumerate(reference):
        following = [i + 1]
        for j, theirs in enumerate(generated):
            following.append(min(row[j] + (ours != theirs), row[j + 1] + 1, following[j] + 1))
        row = following
    return row[-1]


def run_by_table(reference, generated):
    best = 0
    row = [0] * (len(generated) + 1)
    for ours in reference:
        row = [0] + [row[j] + 1 if ours == theirs else 0 for j, theirs in enumerate(generated)]
        best = max(best, *row)
    return best


def coverage_by_grams(reference, generated, k):
    grams = {tuple(generated[j : j + k]) for j in range(len(generated) - k + 1)}
    covered = set()
    for i in range(len(reference) - k + 1):
        if tuple(reference[i : i + k]) in grams:
            covered.update(range(i, i + k))
    return len(covered) / len(reference) if reference else 0.0


def rouge_by_definition(reference, generated):
    common = subsequence_by_table(reference, generated)
    if not reference and not generated:
        return 1.0
    if not common:
        return 0.0
    precision, recall = common / len(generated), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def check_pair(reference, generated):
    """All metrics of one pair against their definitions."""
    found = text_metrics.compare(reference, generated, spans=(1, 2, 3, 5, 13))
    n, m = len(reference), len(generated)
    run = run_by_table(reference, generated)
    assert text_metrics.common_subsequence_length(reference, generated) == subsequence_by_table(reference, generated)
    assert text_metrics.edit_distance(reference, generated) == distance_by_table(reference, generated)
    assert text_metrics.longest_common_run_length(reference, generated) == run
    assert found["rouge_l"] == pytest.approx(rouge_by_definition(reference, generated), abs=1e-12)
    assert found["longest_common_run"] == (run / n if n else float(m == 0))
    assert found["edit_similarity"] == (1 - distance_by_table(reference, generated) / max(n, m) if n or m else 1.0)
    assert found["exact_match"] == (reference == generated)
    same = [i for i in range(min(n, m) + 1) if reference[:i] == generated[:i]]
    assert found["prefix_match_length"] == max(same)
    assert found["type_token_ratio_reference"] == (len(set(reference)) / n if n else 0.0)
    for k in (1, 2, 3, 5, 13):
        assert found[f"span_coverage_{k}"] == coverage_by_grams(reference, generated, k)
        assert text_metrics.span_coverage(reference, generated, k) == found[f"span_coverage_{k}"]
    assert text_metrics.longest_common_run(reference, generated) == found["longest_common_run"]


@pytest.mark.parametrize("seed", range(4))
def test_every_metric_equals_brute_force_on_random_pairs(seed):
    for reference, generated in random_pairs(700, seed):
        check_pair(reference, generated)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SEQUENCES, SEQUENCES)
def test_every_metric_equals_brute_force_on_found_pairs(reference, generated):
    check_pair(reference, generated)


def test_equal_gives_one_and_disjoint_gives_zero():
    reference = list(range(100))
    equal = text_metrics.compare(reference, list(reference))
    disjoint = text_metrics.compare(reference, list(range(1000, 1100)))
    similarities = ("rouge_l", "longest_common_run", "edit_similarity", "span_coverage_13", "span_coverage_50")
    assert [equal[name] for name in similarities] == [1.0] * 5
    assert [disjoint[name] for name in similarities] == [0.0] * 5
    assert equal["prefix_match_length"] == 100 and disjoint["prefix_match_length"] == 0


def test_long_sequences_equal_brute_force_and_arrays_equal_lists():
    generator = np.random.default_rng(5)
    reference = generator.integers(0, 40, 400)
    generated = np.concatenate([generator.integers(0, 40, 90), reference[100:170], generator.integers(0, 40, 240)])
    check_pair(reference.tolist(), generated.tolist())
    assert text_metrics.compare(reference, generated.astype(np.int32)) == text_metrics.compare(
        reference.tolist(), tuple(generated.tolist())
    )


def test_metrics_do_not_depend_on_what_tokens_are_called():
    """Ids beyond 32 bits and negative ones are names like any other."""
    names = {0: -1, 1: 2**40, 2: 0, 3: 131071}
    for reference, generated in random_pairs(200, seed=9):
        reference, generated = ([t % 4 for t in tokens] for tokens in (reference, generated))
        renamed = [[names[t] for t in tokens] for tokens in (reference, generated)]
        assert text_metrics.compare(*renamed) == text_metrics.compare(reference, generated)


def test_span_of_no_tokens_is_refused():
    with pytest.raises(UserError, match="k=0 must be at least 1"):
        text_metrics.span_coverage([1], [1], 0)

"""Samples to spans of documents and back, for every sample index."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data.sample_order.best_fit_index import BestFitIndex
from apertus_jax.data.sample_order.megatron_index import MegatronSampleIndex
from apertus_jax.data.sample_order.sample_index import WindowIndex
from apertus_jax.errors import UserError


def tokens_of(source, spans):
    return np.concatenate(
        [
            source.tokens(int(source.document_starts[document]) + start, length)
            for document, start, length in zip(*(part.tolist() for part in spans), strict=True)
        ]
    )


def samples_by_scanning(index, num_documents):
    """document → samples, from the spans of every sample."""
    found = [set() for _ in range(num_documents)]
    for sample in range(index.num_samples):
        for document in index.spans(sample).document.tolist():
            found[document].add(sample)
    return [sorted(samples) for samples in found]


def assert_inverse_agrees(index, num_documents):
    expected = samples_by_scanning(index, num_documents)
    assert [index.samples_of_document(document).tolist() for document in range(num_documents)] == expected


LENGTHS = st.lists(st.integers(0, 23), min_size=1, max_size=30).filter(lambda lengths: sum(lengths) >= 9)


@pytest.mark.parametrize("kind", ["windows", "megatron", "best_fit"])
def test_inverse_agrees_with_spans_for_every_index(make_source, kind):
    @settings(max_examples=40, deadline=None)
    @given(LENGTHS, st.integers(1, 8), st.integers(1, 40))
    def check(lengths, sequence_length, requested):
        source = make_source(lengths)
        if kind == "windows":
            index = WindowIndex(source, sequence_length)
        elif kind == "megatron":
            index = MegatronSampleIndex(source, sequence_length, seed=3, requested_samples=requested)
        else:
            index = BestFitIndex(source, sequence_length)
        assert_inverse_agrees(index, source.num_documents)

    check()


def test_windows_are_the_stored_stream_with_one_token_shared(make_source):
    @settings(max_examples=40, deadline=None)
    @given(LENGTHS, st.integers(1, 8))
    def check(lengths, sequence_length):
        source = make_source(lengths)
        index = WindowIndex(source, sequence_length)
        assert index.num_samples == (source.num_tokens - 1) // sequence_length
        for sample in range(index.num_samples):
            spans = index.spans(sample)
            expected = source.stream[sample * sequence_length : sample * sequence_length + sequence_length + 1]
            np.testing.assert_array_equal(tokens_of(source, spans), expected)
            assert (spans.length > 0).all()

    check()


def test_windows_need_no_table_at_fifteen_trillion_tokens():
    class Huge:
        num_documents = 3
        document_starts = np.array([0, 5, 15_000_000_000_000, 15_000_000_000_007])
        num_tokens = 15_000_000_000_007

    index = WindowIndex(Huge(), 4096)
    assert index.num_samples == 3_662_109_375
    assert index.spans(3_662_109_374).start.tolist() == [3_662_109_374 * 4096 - 5, 0]
    assert index.spans(3_662_109_374).length.tolist() == [4096, 1]
    assert index.samples_of_document(2).tolist() == [3_662_109_374]


def test_source_shorter_than_a_sample_is_refused_by_name(make_source):
    with pytest.raises(UserError, match="'tiny' has 4 tokens, too few for one sample of 9"):
        WindowIndex(make_source([4]), 8, "tiny")


# Megatron


def megatron_documents():
    """Token of document D at offset p is 100·D + p.

    Source: docs/reference/model_and_training.md §16.4.
    """
    return [[100 * document + offset for offset in range(length)] for document, length in enumerate([5, 3, 7, 4, 6])]


def test_megatron_order_is_the_published_vector(make_source):
    source = make_source(megatron_documents())
    index = MegatronSampleIndex(source, 4, seed=28)
    assert index.document_order.tolist() == [2, 0, 3, 4, 1]
    assert index.num_samples == 6
    assert index.order.tolist() == [1, 2, 5, 3, 0, 4]
    assert tokens_of(source, index.spans(index.order[0])).tolist() == [204, 205, 206, 0, 1]
    assert tokens_of(source, index.spans(index.order[2])).tolist() == [404, 405, 100, 101, 102]


def test_megatron_samples_start_where_the_published_vector_says(make_source):
    source = make_source([5, 3, 7])
    index = next(
        candidate
        for candidate in (MegatronSampleIndex(source, 4, seed=seed) for seed in range(100))
        if candidate.document_order.tolist() == [0, 1, 2]
    )
    starts = [(int(spans.document[0]), int(spans.start[0])) for spans in map(index.spans, range(3))]
    assert starts == [(0, 0), (0, 4), (2, 0)]
    assert index.spans(2).document[-1] == 2 and index.spans(2).start[-1] + index.spans(2).length[-1] - 1 == 4


@pytest.mark.parametrize(
    ("requested", "epochs", "separate"),
    [(6, 1, None), (7, 2, 6), (9, 2, 6), (10, 2, None), (11, 2, None), (13, 3, 12), (17, 3, None)],
)
def test_megatron_shuffles_a_short_last_epoch_apart(make_source, requested, epochs, separate):
    lengths = [5, 3, 7, 4, 6]  # 25 tokens, 6 samples of 4 in an epoch; 80 % of an epoch is 4 samples
    index = MegatronSampleIndex(make_source(lengths), 4, seed=28, requested_samples=requested)
    assert index.num_epochs == epochs
    assert index.num_samples == (25 * epochs - 1) // 4 >= requested
    generator = np.random.RandomState(28)
    if separate is None:
        documents = np.tile(np.arange(5, dtype=np.int32), epochs)
        generator.shuffle(documents)
        order = np.arange(index.num_samples, dtype=np.uint32)
        generator.shuffle(order)
    else:
        first, last = np.tile(np.arange(5, dtype=np.int32), epochs - 1), np.arange(5, dtype=np.int32)
        generator.shuffle(first)
        generator.shuffle(last)
        documents = np.concatenate([first, last])
        early, late = np.arange(separate), np.arange(separate, index.num_samples)
        generator.shuffle(early)
        generator.shuffle(late)
        order = np.concatenate([early, late])
    np.testing.assert_array_equal(index.document_order, documents)
    np.testing.assert_array_equal(index.order, order)
    assert sorted(index.order.tolist()) == list(range(index.num_samples))


# best fit


def best_fit_one_at_a_time(lengths, must_open, capacity):
    """Best fit decreasing with a plain list of open samples, one document at a time."""
    free, placed = [], {}
    for piece in np.flatnonzero(must_open):
        placed[piece] = len(free)
        free.append(capacity - lengths[piece])
    for piece in sorted(np.flatnonzero(~must_open), key=lambda piece: (-lengths[piece], piece)):
        fitting = [sample for sample in range(len(free)) if free[sample] >= lengths[piece]]
        if not fitting:
            free.append(capacity)
            fitting = [len(free) - 1]
        chosen = min(fitting, key=lambda sample: free[sample])
        placed[piece] = chosen
        free[chosen] -= lengths[piece]
    return free


def test_best_fit_is_as_full_as_placing_one_document_at_a_time(make_source):
    generator = np.random.default_rng(0)
    for _ in range(20):
        lengths = generator.integers(1, 60, 80)
        index = BestFitIndex(make_source(lengths.tolist()), 32)
        pieces = [index.spans(sample) for sample in range(index.num_samples)]
        flat = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        free = best_fit_one_at_a_time(flat[2], flat[1] > 0, 33)
        assert sorted(33 - spans.length.sum() for spans in pieces) == sorted(free)


def test_best_fit_cuts_no_document_that_fits_and_trains_all_once(make_source):
    @settings(max_examples=40, deadline=None)
    @given(LENGTHS, st.integers(1, 8))
    def check(lengths, sequence_length):
        source = make_source(lengths)
        index = BestFitIndex(source, sequence_length)
        labels = [[] for _ in lengths]
        for sample in range(index.num_samples):
            spans = index.spans(sample)
            assert 0 < spans.length.sum() <= sequence_length + 1
            assert (spans.start[1:] == 0).all()  # a continued document stands first, where it has a left context
            for document, start, length in zip(*(part.tolist() for part in spans), strict=True):
                labels[document] += range(start + 1, start + length)
                assert start == 0 or lengths[document] > sequence_length + 1
                assert lengths[document] > sequence_length + 1 or length == lengths[document]
        assert [sorted(found) for found in labels] == [list(range(1, length)) for length in lengths]

    check()


def test_best_fit_is_the_same_twice_and_wastes_little(make_source):
    lengths = np.minimum(np.random.default_rng(1).lognormal(5.5, 1.2, 20_000).astype(int) + 2, 20_000)
    source = make_source(lengths.tolist())
    first, second = BestFitIndex(source, 1024), BestFitIndex(source, 1024)
    assert first.num_samples == second.num_samples
    for sample in range(0, first.num_samples, 97):
        np.testing.assert_array_equal(first.spans(sample), second.spans(sample))
    filled = sum(int(first.spans(sample).length.sum()) for sample in range(first.num_samples))
    assert filled / (first.num_samples * 1025) > 0.99

"""Segments, positions and left context of packed rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data.loader.packing import left_context, segment_ids_and_positions

GOLDEN = Path(__file__).parent / "golden" / "packing_and_goldfish.npz"


def walk_tokens(row, eod_id):
    """The definition of docs/reference/model_and_training.md §4.3, one token at a time."""
    segments, positions, segment, start = [], [], 0, 0
    for index, token in enumerate(row):
        segments.append(segment)
        positions.append(index - start)
        if token == eod_id:
            segment, start = segment + 1, index + 1
    return segments, positions


@pytest.mark.parametrize("case", [0, 1, 2])
def test_positions_are_those_of_the_published_training_code(case):
    golden = np.load(GOLDEN)
    inputs = golden[f"{case}_tokens"][:, :-1]
    segment_ids, positions = segment_ids_and_positions(inputs, int(golden[f"{case}_eod"]))
    np.testing.assert_array_equal(positions, golden[f"{case}_position_ids"])
    assert segment_ids.dtype == positions.dtype == np.int32
    assert segment_ids.max() > 0


def test_segments_and_positions_of_the_spec_example():
    text = [1, 17, 4242, 99999, 131071, 23, 42, 7, 1000, 65536, 2, 1, 500, 501, 502, 503, 504, 505, 506, 507, 2]
    segment_ids, positions = segment_ids_and_positions(np.array([text[:-1]]), 2)
    assert segment_ids.tolist() == [[0] * 11 + [1] * 9]
    assert positions.tolist() == [list(range(11)) + list(range(9))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=4))
def test_segments_and_positions_equal_a_walk_over_the_tokens(rows):
    segment_ids, positions = segment_ids_and_positions(np.array(rows), 2)
    for row, found_segments, found_positions in zip(rows, segment_ids, positions, strict=True):
        expected_segments, expected_positions = walk_tokens(row, 2)
        assert found_segments.tolist() == expected_segments
        assert found_positions.tolist() == expected_positions


def test_left_context_holds_labels_of_its_own_document_alone(make_source):
    source = make_source([[1, 10, 11, 2], [1, 20, 21, 22, 23, 24, 2]])
    assert left_context(source, 1, 0, 3).tolist() == [-1, -1, -1]  # the window opens the document
    assert left_context(source, 1, 1, 3).tolist() == [-1, -1, 20]  # first input 20 was the label of <s>
    assert left_context(source, 1, 3, 3).tolist() == [20, 21, 22]
    assert left_context(source, 1, 5, 3).tolist() == [22, 23, 24]
    assert left_context(source, 0, 3, 5).tolist() == [-1, -1, 10, 11, 2]
    assert left_context(source, 0, 2, 0).shape == (0,)


def test_label_sees_the_same_context_wherever_a_document_is_cut(make_source):
    document = np.concatenate([[1], np.arange(100, 130), [2]])
    source = make_source([document])
    labels, window = document[1:], 6
    for cut in range(len(document)):
        seen = np.concatenate([left_context(source, 0, cut, window), document[cut + 1 :]])
        for place, label in enumerate(document[cut + 1 :]):
            before = seen[place : place + window]
            index = np.flatnonzero(labels == label)[0]
            expected = np.concatenate([np.full(window, -1), labels[:index]])[-window:]
            np.testing.assert_array_equal(before, expected)

"""Batches of a stream: nothing lost, bounded by number and by weight."""

import pytest

from apertus_jax.corpus.batching import batched

WORDS = ["a", "bb", "ccccc", "d", "e", "f", "g"]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"count": 3}, [["a", "bb", "ccccc"], ["d", "e", "f"], ["g"]]),
        ({"weight": len, "heaviest": 3}, [["a", "bb"], ["ccccc"], ["d", "e", "f"], ["g"]]),
        ({"count": 2, "weight": len, "heaviest": 5}, [["a", "bb"], ["ccccc"], ["d", "e"], ["f", "g"]]),
        ({"count": 7}, [WORDS]),
    ],
)
def test_batch_ends_with_the_item_that_fills_it(options, expected):
    assert list(batched(WORDS, **options)) == expected
    assert list(batched([], **options)) == []


def test_batches_take_no_more_of_the_stream_than_they_give():
    taken = []
    stream = batched((taken.append(number) or number for number in range(10)), 2)
    assert next(stream) == [0, 1] and taken == [0, 1]

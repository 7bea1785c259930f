"""Batches of a run whose schedule changed: the closed form against counting step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data.sample_order.batch_history import BatchHistory, BatchSegment
from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.data.sample_order.continued_blend import ContinuedBlend
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage, resolve_mixture
from apertus_jax.errors import UserError

sizes = st.integers(1, 9)
changes = st.lists(st.tuples(st.integers(1, 90), sizes), unique_by=lambda change: change[0]).map(sorted)
schedules = st.builds(BatchSchedule, sizes, sizes, st.integers(0, 90)) | st.builds(
    lambda initial, changes: BatchSchedule(initial, changes=changes), sizes, changes
)
pieces = st.lists(st.tuples(st.integers(1, 12), schedules, st.integers(1, 64)), min_size=1, max_size=4)


def size_of(schedule, consumed):
    """The batch size by the definition: of samples consumed, and of nothing else."""
    if schedule.final is not None:
        return schedule.initial if consumed < schedule.ramp_samples else schedule.final
    return [schedule.initial, *(size for start, size in schedule.changes if start <= consumed)][-1]


@settings(max_examples=150, deadline=None)
@given(pieces)
def test_history_equals_counting_step_by_step(pieces):
    segments, consumed, tokens, step = [], 0, 0, 0
    expected = []
    for steps, schedule, length in pieces:
        segments.append(BatchSegment(step, consumed, schedule, length))
        for _ in range(steps):
            size = size_of(schedule, consumed)
            expected.append((consumed, size, tokens))
            consumed, tokens, step = consumed + size, tokens + size * length, step + 1
    history = BatchHistory(segments)
    for number, (first, size, before) in enumerate(expected):
        assert (history.first_sample(number), history.size_at(number), history.tokens_before(number)) == (
            first,
            size,
            before,
        )
        assert {history.step_of_sample(sample) for sample in range(first, first + size)} == {number}
    assert history.first_sample(step) == consumed and history.tokens_before(step) == tokens
    for start, stop in ((0, step), (step // 3, step // 2), (step // 2, step + 3), (2, 1)):
        assert history.sizes_between(start, stop) == {history.size_at(number) for number in range(start, stop)}


def test_a_ramp_ends_at_its_sample_whatever_came_before():
    history = BatchHistory(
        [BatchSegment(0, 0, BatchSchedule(4), 16), BatchSegment(10, 40, BatchSchedule(8, 16, 60), 16)]
    )
    assert [history.size_at(step) for step in range(9, 15)] == [4, 8, 8, 8, 16, 16]
    assert history.sizes == {8, 16}
    later = history.followed_by(BatchSegment(13, 64, BatchSchedule(8, 16, 60), 16))
    assert later.sizes == {16}, "the ramp is over"


def test_what_came_before_the_record_is_said_to_be_unknown():
    history = BatchHistory([BatchSegment(10, 40, BatchSchedule(8), 16)])
    assert history.first_sample(11) == 48
    with pytest.raises(UserError, match="begins at step 10; step 9 is not known"):
        history.size_at(9)
    with pytest.raises(UserError, match="sample 39 was in no batch"):
        history.step_of_sample(39)


rates = st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1)


@settings(max_examples=60, deadline=None)
@given(rates, rates, st.integers(0, 300), st.integers(1, 400), st.integers(1, 40))
def test_a_blend_that_takes_over_makes_every_draw_once(first, second, change, more, block):
    counts = {"a": 1000, "b": 500, "c": 10}
    blends = [resolve_mixture(Mixture([MixtureStage(rates=each)], 30 * block), counts, 7) for each in (first, second)]
    before = dict(zip(blends[0].names, blends[0].draw_limit(change).tolist(), strict=True))
    blend = ContinuedBlend(blends[1], change, before)
    drawn = {name: [] for name in "abc"}
    for each, samples in ((blends[0], np.arange(change)), (blend, np.arange(change, change + more))):
        sources, draws = each.locate(samples)
        for source, draw, sample in zip(sources.tolist(), draws.tolist(), samples.tolist(), strict=True):
            drawn[each.names[source]].append(draw)
            if each is blend:
                assert blend.sample_of_draw(source, np.array([draw])).tolist() == [sample]
    for name, draws in drawn.items():
        assert draws == list(range(len(draws))), name
    limits = dict(zip(blend.names, blend.draw_limit(change + more).tolist(), strict=True))
    assert limits == {name: len(drawn[name]) for name in blend.names}
    for source, name in enumerate(blend.names):
        earlier = np.arange(before.get(name, 0))
        assert (blend.sample_of_draw(source, earlier) == -1).all(), "draws of before are not this blend's"

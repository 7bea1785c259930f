"""Steps and samples of the released runs, and the closed form against a loop."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data.sample_order.batch_schedule import BatchSchedule
from apertus_jax.errors import UserError

TOTAL_SAMPLES = 3_662_109_375
DECAY_START = 3_258_203_569
SCHEDULES = {"8b": BatchSchedule(1024, 2048, 1_718_272_000), "70b": BatchSchedule(2048, 4096, 1_072_164_864)}


@pytest.mark.parametrize(
    ("size", "ramp_steps", "total_steps", "decay_step"),
    [("8b", 1_678_000, 2_627_139, 2_429_919), ("70b", 523_518, 1_155_828, 1_057_218)],
)
def test_released_runs_have_their_published_iterations(size, ramp_steps, total_steps, decay_step):
    schedule = SCHEDULES[size]
    assert schedule.ramp_steps == ramp_steps
    assert schedule.size_at(ramp_steps - 1) * 2 == schedule.size_at(ramp_steps)
    assert schedule.first_sample(ramp_steps) == schedule.ramp_samples
    assert schedule.total_steps(TOTAL_SAMPLES) == total_steps
    assert schedule.step_of_sample(DECAY_START) == decay_step


@pytest.mark.parametrize(
    ("size", "first_iteration", "billions"),
    [
        ("70b", 1, 0.0),
        ("70b", 569_655, 5165.6),
        ("70b", 789_001, 8845.6),
        ("70b", 989_501, 12_209.5),
        ("70b", 1_062_328, 13_431.3),
        ("8b", 1, 0.0),
        ("8b", 1_678_000, 7038.0),
        ("8b", 2_269_525, 12_000.1),
        ("8b", 2_429_920, 13_345.6),
    ],
)
def test_stages_start_at_their_published_tokens(size, first_iteration, billions):
    tokens = SCHEDULES[size].first_sample(first_iteration - 1) * 4096
    assert tokens / 1e9 == pytest.approx(billions, abs=0.05)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 60))
def test_closed_form_equals_counting_step_by_step(initial, final, ramp_samples):
    schedule = BatchSchedule(initial, final, ramp_samples)
    consumed = 0
    for step in range(40):
        size = initial if consumed < ramp_samples else final
        assert schedule.size_at(step) == size
        assert schedule.first_sample(step) == consumed
        assert {schedule.step_of_sample(sample) for sample in range(consumed, consumed + size)} == {step}
        assert schedule.total_steps(consumed) == step
        consumed += size


@st.composite
def lists_of_changes(draw):
    """Pairs (samples, size) in order, dense enough that one step crosses several of them."""
    starts = sorted(draw(st.sets(st.integers(1, 90), max_size=6)))
    return [(start, draw(st.integers(1, 9))) for start in starts]


def counted(initial, changes, steps):
    """(first sample, size) of every step by the definition: a step's size hangs on the samples consumed alone."""
    consumed, found = 0, []
    for _ in range(steps):
        size = [initial, *(size for start, size in changes if start <= consumed)][-1]
        found.append((consumed, size))
        consumed += size
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 9), lists_of_changes(), st.integers(0, 30))
def test_any_changes_equal_counting_step_by_step(initial, changes, before):
    schedule = BatchSchedule(initial, changes=changes)
    expected = counted(initial, changes, 110)  # past the last change at one sample a step
    assert [(schedule.first_sample(step), schedule.size_at(step)) for step in range(110)] == expected
    for step, (first, size) in enumerate(expected):
        assert {schedule.step_of_sample(sample) for sample in range(first, first + size)} == {step}
    assert schedule.sizes == {size for _, size in expected}
    assert schedule.final_size == expected[-1][1]
    for stop in (before, before + 1, before + 20):
        assert schedule.sizes_between(before, stop) == {size for _, size in expected[before:stop]}
    left, (reached, _) = schedule.counted_from(expected[before][0]), expected[before]
    assert [(left.first_sample(step) + reached, left.size_at(step)) for step in range(40)] == expected[before:][:40]
    assert BatchSchedule(**json.loads(json.dumps(schedule.describe()))) == schedule


def test_one_change_may_be_written_either_way():
    for initial, final, samples in ((1024, 2048, 1_718_272_000), (3, 5, 7), (4, 2, 4)):
        one, other = BatchSchedule(initial, final, samples), BatchSchedule(initial, changes=[(samples, final)])
        for step in (*range(9), 1_677_999, 1_678_000, 10**7):
            assert one.size_at(step) == other.size_at(step) and one.first_sample(step) == other.first_sample(step)
    # Records of runs before there were lists say these three, and are read as they were.
    assert BatchSchedule(8, 16, 64).describe() == {"initial": 8, "final": 16, "ramp_samples": 64}


def test_constant_batch_needs_one_number():
    schedule = BatchSchedule(8)
    assert [schedule.size_at(0), schedule.size_at(10**9), schedule.first_sample(10**9)] == [8, 8, 8 * 10**9]


@pytest.mark.parametrize("arguments", [(0,), (8, 0), (8, 16, -1), (8, None, 5)])
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(UserError):
        BatchSchedule(*arguments)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([(0, 16)], r"BatchSchedule.changes\[0\]\[0\] = 0 must be a whole number of at least 1"),
        ([(5, 0)], r"changes\[0\]\[1\] = 0"),
        ([(5, 16), (5, 32)], r"changes\[1\] = \(5, 32\) begins at or before"),
        ([(9, 16), (5, 32)], r"changes\[1\]"),
        ([(5, 16, 2)], "must be two numbers"),
        ([(5.5, 16)], r"changes\[0\]\[0\]"),
        ([5, 16], r"changes\[0\] = 5 must be a list"),
    ],
)
def test_impossible_changes_are_refused_by_place(changes, told):
    with pytest.raises(UserError, match=told):
        BatchSchedule(8, changes=changes)
    with pytest.raises(UserError, match="leave one of the two out"):
        BatchSchedule(8, 16, 4, [(5, 16)])

"""Exact quotas, their inverse, and Megatron's greedy blend."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.data.sample_order import greedy_blend
from apertus_jax.data.sample_order.greedy_blend import GreedyBlend, StagedBlend
from apertus_jax.data.sample_order.mixture import Mixture, MixtureStage, largest_remainder, resolve_mixture, stage_rates
from apertus_jax.errors import UserError


def assert_draws_count_up_and_invert(blend, num_samples):
    """Every source's draws count 0, 1, 2, … as they come, and sample_of_draw inverts."""
    samples = np.arange(num_samples)
    sources, draws = blend.locate(samples)
    limits = blend.draw_limit(num_samples)
    for source in range(len(blend.names)):
        mine = sources == source
        assert draws[mine].tolist() == list(range(mine.sum()))
        assert mine.sum() <= limits[source]
        np.testing.assert_array_equal(blend.sample_of_draw(source, draws[mine]), samples[mine])
    return sources, draws


def test_every_block_holds_exactly_its_quotas():
    mixture = Mixture((MixtureStage(rates={"web": 0.55, "books": 0.3, "code": 0.15}),), block_size=20)
    blend = resolve_mixture(mixture, {"web": 10, "books": 10, "code": 10}, seed=1)
    sources, draws = assert_draws_count_up_and_invert(blend, 2000)
    for block in sources.reshape(-1, 20):
        assert np.bincount(block, minlength=3).tolist() == [11, 6, 3]
    assert draws.max() == 1099


def test_slots_of_a_block_are_in_no_order():
    blend = resolve_mixture(Mixture((MixtureStage(rates={"a": 1, "b": 1}),), 1024), {"a": 1, "b": 1}, seed=1)
    sources, _ = blend.locate(np.arange(1024 * 20))
    runs = np.count_nonzero(np.diff(sources))
    assert runs / len(sources) == pytest.approx(0.5, abs=0.02)
    assert not np.array_equal(sources[:1024], sources[1024:2048])
    other, _ = resolve_mixture(Mixture((MixtureStage(rates={"a": 1, "b": 1}),), 1024), {"a": 1, "b": 1}, seed=2).locate(
        np.arange(1024)
    )
    assert not np.array_equal(sources[:1024], other)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any)),
        min_size=1,
        max_size=4,
    ),
    st.integers(60, 130),
)
def test_stages_may_end_anywhere_and_lose_no_draw(stages, block_size):
    starts = np.cumsum([0] + [length for length, _ in stages])[:-1]
    mixture = Mixture(
        tuple(
            MixtureStage(int(start), dict(zip("abc", rates, strict=True)))
            for start, (_, rates) in zip(starts, stages, strict=True)
        ),
        block_size,
    )
    blend = resolve_mixture(mixture, {"a": 1, "b": 1, "c": 1}, seed=3)
    last_start = int(starts[-1])
    total = last_start + 3 * block_size
    sources, _ = assert_draws_count_up_and_invert(blend, total)
    for num_samples in (0, 1, last_start, last_start + 1, total - 1):
        drawn = np.bincount(sources[:num_samples], minlength=len(blend.names))
        assert blend.draw_limit(num_samples).tolist() == drawn.tolist()
    for number, (start, (length, rates)) in enumerate(zip(starts.tolist(), stages, strict=True)):
        end = start + length if number + 1 < len(stages) else total
        counts = dict.fromkeys("abc", 0)
        for source in sources[start:end].tolist():
            counts[blend.names[source]] += 1
        blocks = -(-(end - start) // block_size)
        for name, rate in zip("abc", rates, strict=True):
            assert abs(counts[name] - (end - start) * rate / sum(rates)) < blocks


def test_trillions_of_samples_need_no_table():
    blend = resolve_mixture(Mixture((MixtureStage(rates={"a": 0.7, "b": 0.3}),)), {"a": 1, "b": 1}, seed=5)
    samples = np.array([0, 3_662_109_374, 2**40 + 17, 2**55 + 1])
    sources, draws = blend.locate(samples)
    for source, draw, sample in zip(sources.tolist(), draws.tolist(), samples.tolist(), strict=True):
        assert blend.sample_of_draw(source, np.array([draw])).tolist() == [sample]
        assert draw / max(sample, 1) == pytest.approx([0.7, 0.3][source], rel=2e-3) or sample == 0


def test_a_source_that_a_stage_leaves_out_is_never_drawn_in_it():
    stages = (MixtureStage(0, {"a": 1, "b": 1}), MixtureStage(100, {"a": 1}), MixtureStage(200, {"b": 1, "c": 3}))
    blend = resolve_mixture(Mixture(stages, 64), {"a": 1, "b": 1, "c": 1, "unused": 9}, seed=0)
    assert blend.names == ("a", "b", "c")
    sources, _ = assert_draws_count_up_and_invert(blend, 400)
    assert set(sources[:100].tolist()) == {0, 1} and set(sources[100:200].tolist()) == {0}
    assert set(sources[200:].tolist()) == {1, 2}
    assert blend.sample_of_draw(0, np.array([149, 150, 10**6])).tolist()[1:] == [-1, -1]


def test_temperature_evens_out_sizes():
    counts = {"big": 81_000_000, "small": 1_000_000}
    assert [float(rate) for rate in stage_rates(MixtureStage(), counts)] == pytest.approx([81 / 82, 1 / 82])
    assert [float(r) for r in stage_rates(MixtureStage(temperature=4.0), counts)] == pytest.approx([0.75, 0.25])
    assert [float(r) for r in stage_rates(MixtureStage(temperature=1e9), counts)] == pytest.approx([0.5, 0.5])
    only = stage_rates(MixtureStage(sources=("small",)), counts)
    assert [float(rate) for rate in only] == [0, 1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any), st.integers(0, 500))
def test_quotas_are_whole_sum_to_the_block_and_stay_within_one(weights, slots):
    rates = [Fraction(weight, sum(weights)) for weight in weights]
    quotas = largest_remainder(rates, slots)
    assert quotas.sum() == slots
    for rate, quota in zip(rates, quotas.tolist(), strict=True):
        assert abs(quota - rate * slots) < 1
        assert rate or not quota


def test_resolved_mixture_is_json_and_reports_its_error():
    blend = resolve_mixture(Mixture((MixtureStage(rates={"a": 1, "b": 2}),)), {"a": 5, "b": 5}, seed=1)
    described = json.loads(json.dumps(blend.describe()))
    stage = described["stages"][0]
    assert stage["block_size"] == 1024 and stage["quotas"] == {"a": 341, "b": 683}
    assert 0 < stage["largest_rate_error"] < stage["rate_error_bound"] == 1 / 1024


def test_block_grows_until_small_sources_are_served():
    blend = resolve_mixture(Mixture((MixtureStage(rates={"a": 1, "poison": 2.3e-4}),)), {"a": 5, "poison": 5}, seed=1)
    stage = blend.stages[0]
    assert stage.block_size > 1024
    assert stage.quotas[1] / stage.block_size == pytest.approx(2.3e-4, rel=0.05)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            Mixture((MixtureStage(rates={"wbe": 1}),)),
            "names source 'wbe', which the token store lacks; it has web, books",
        ),
        (Mixture((MixtureStage(rates={"web": -1, "books": 2}),)), "'web' has rate -1"),
        (Mixture((MixtureStage(rates={"web": -0.5}),)), "'web' has rate -0.5"),
        (Mixture((MixtureStage(rates={"web": 0.0}),)), "no source has a positive rate"),
        (Mixture((MixtureStage(temperature=0.0),)), "temperature of the mixture is 0.0"),
        (Mixture((MixtureStage(5),)), "the first must be 0"),
        (Mixture((MixtureStage(0), MixtureStage(0))), "each later than the last"),
        (
            Mixture((MixtureStage(rates={"web": 1, "books": 2e-6}),)),
            "'books' has rate 2.00e-06, .* set block_size to 524288",
        ),
        (
            Mixture((MixtureStage(rates={"web": 1, "books": 1e-9}),)),
            "one sample in the largest block we choose, 65536; raise the",
        ),
        (Mixture(block_size=1 << 21), "block_size of the mixture is 2097152"),
        (
            Mixture((MixtureStage(rates={"web": 1, "books": 0.001}),), 100),
            "less than one sample in its block_size, 100",
        ),
    ],
)
def test_impossible_mixtures_are_one_clear_line(mixture, message):
    with pytest.raises(UserError, match=message):
        resolve_mixture(mixture, {"web": 1000, "books": 1000}, seed=0)


# Megatron's greedy blend


def test_greedy_blend_is_the_published_vectors():
    samples = np.arange(8)
    assert GreedyBlend("ab", (3, 1), 8).locate(samples)[0].tolist() == [0, 1, 0, 0, 0, 1, 0, 0]
    sources, draws = GreedyBlend("abc", (5, 3, 2), 10).locate(np.arange(10))
    assert list(zip(sources.tolist(), draws.tolist(), strict=True)) == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2), (2, 1), (0, 3), (1, 2), (0, 4),
    ]  # fmt: skip


def test_greedy_blend_may_be_read_anywhere(monkeypatch):
    monkeypatch.setattr(greedy_blend, "CHUNK", 16)
    weights = np.array([17, 31, 5, 2])
    blend = GreedyBlend("abcd", weights, 200)
    counts, expected = np.zeros(4), []
    for sample in range(200):
        source = max(range(4), key=lambda s: (weights[s] / 55 * max(sample, 1) - counts[s], -s))
        expected.append((source, int(counts[source])))
        counts[source] += 1
    for sample in [150, 3, 199, 0, 16, 15, 17, 64]:
        source, draw = blend.locate(np.array([sample]))
        assert (int(source[0]), int(draw[0])) == expected[sample]
    fresh = GreedyBlend("abcd", weights, 200)
    for sample, (source, draw) in enumerate(expected):
        assert fresh.sample_of_draw(source, np.array([draw])).tolist() == [sample]
    assert fresh.sample_of_draw(3, np.array([counts[3]])).tolist() == [-1]
    assert fresh.draw_limit(200).tolist() == counts.tolist()
    with pytest.raises(UserError, match="ends after 200 samples and sample number 200"):
        blend.locate(np.array([200]))


def test_greedy_stages_count_from_their_own_start():
    blend = StagedBlend([GreedyBlend(("a@0", "b@0"), (3, 1), 8), GreedyBlend(("b@8", "c@8"), (1, 1), 6)])
    sources, draws = assert_draws_count_up_and_invert(blend, 14)
    assert sources[8:].tolist() == [2, 3, 2, 3, 2, 3] and draws[8:].tolist() == [0, 0, 1, 1, 2, 2]
    assert json.loads(json.dumps(blend.describe()))["stages"][1]["start"] == 8

"""Settings of a run check themselves: what is out of range is one line with name, value and what is allowed."""

import inspect
import math

import optax
import pytest

from apertus_jax.data import BatchSchedule, MegatronMixture, MegatronStage, Mixture, MixtureStage
from apertus_jax.errors import UserError
from apertus_jax.objectives import completion_only, goldfish, not_after_eod, not_padding
from apertus_jax.optimization import (
    adamw,
    ademamix,
    constant_schedule,
    cosine_schedule,
    of_run,
    optimizer_chain,
    sample_count,
    wsd_schedule,
)
from apertus_jax.sharding import MeshConfig
from apertus_jax.training import Objective, RunSchedule, TrainingConfig, pretrain
from apertus_jax.training.loop import train
from apertus_jax.training.records.run_length import chain_of_run
from tests.training.small_run import small_run

NAN, INF = math.nan, math.inf
NO_WHOLE_NUMBERS = (True, 2.5, NAN, INF, "4", None, [4])
NO_NUMBERS = (True, NAN, INF, "4", [4])
# What is made, how its setting is called, the setting, and values it must not have.
WHOLE = [
    (BatchSchedule, "BatchSchedule", "initial", (0, -8, 2**40)),
    (BatchSchedule, "BatchSchedule", "ramp_samples", (-1, 2**70)),
    (TrainingConfig, "TrainingConfig", "sequence_length", (0, -1, 2**40)),
    (TrainingConfig, "TrainingConfig", "accumulation", (0, -1)),
    (TrainingConfig, "TrainingConfig", "log_every", (0, -1)),
    (TrainingConfig, "TrainingConfig", "checkpoint_every", (0, -250)),
    (TrainingConfig, "TrainingConfig", "keep_last", (0, -1)),
    (TrainingConfig, "TrainingConfig", "keep_every", (-1,)),
    (TrainingConfig, "TrainingConfig", "max_skipped_in_a_row", (-1,)),
    (TrainingConfig, "TrainingConfig", "prefetch", (0, -1)),
    (TrainingConfig, "TrainingConfig", "seed", (-1, 2**32)),
    (Objective, "Objective", "microbatch_size", (0, -2)),
    (Objective, "Objective", "num_tiles", (0, -2)),
    (MixtureStage, "MixtureStage", "start", (-1,)),
    (MegatronStage, "MegatronStage", "start", (-1,)),
    (MegatronStage, "MegatronStage", "seed", (-1, 2**32)),
    (MeshConfig, "MeshConfig", "data", ()),
    (goldfish, "goldfish", "k", (0, 1, -3)),
    (goldfish, "goldfish", "h", (0, -3)),
    (not_after_eod, "not_after_eod", "eod_id", (-1, 2**31)),
    (not_padding, "not_padding", "pad_id", (-2, 2**31)),
]
NUMBERS = [
    (TrainingConfig, "TrainingConfig", "clip_norm", (0.0, -1.0)),
    (ademamix, "ademamix", "learning_rate", (-1e-3,)),
    (adamw, "adamw", "learning_rate", (-1e-3, None)),
    (ademamix, "ademamix", "b1", (1.0, -0.1, None)),
    (ademamix, "ademamix", "b3", (1.0, 2.0)),
    (ademamix, "ademamix", "alpha", (-1.0,)),
    (adamw, "adamw", "b2", (1.0, -0.1)),
    (adamw, "adamw", "eps", (-1e-8,)),
    (adamw, "adamw", "weight_decay", (-0.1,)),
    (constant_schedule, "constant_schedule", "peak", (-1e-3, None)),
    (constant_schedule, "constant_schedule", "warmup_fraction", (-0.1, 1.5)),
]
OTHERS = [
    (TrainingConfig, {"clip_norm": "strict"}, "TrainingConfig.clip_norm"),
    (BatchSchedule, {"initial": 8, "final": 0}, "BatchSchedule.final"),
    (BatchSchedule, {"initial": 8, "ramp_samples": 5}, "BatchSchedule.final"),
    (Objective, {"loss_masks": "goldfish"}, "Objective.loss_masks"),
    (Objective, {"loss_masks": goldfish()}, "Objective.loss_masks"),
    (Objective, {"loss_masks": ["goldfish"]}, "Objective.loss_masks"),
    (Objective, {"loss_norm": "local"}, "Objective.loss_norm"),
    (Mixture, {"stages": []}, "Mixture.stages"),
    (Mixture, {"stages": MixtureStage()}, "Mixture.stages"),
    (Mixture, {"stages": ["web"]}, "Mixture.stages"),
    (Mixture, {"block_size": 2.5}, "Mixture.block_size"),
    (MixtureStage, {"rates": [1, 2]}, "MixtureStage.rates"),
    (MixtureStage, {"rates": {"web": True}}, "the rate of 'web'"),
    (MixtureStage, {"rates": {"web": "much"}}, "the rate of 'web'"),
    (MixtureStage, {"rates": {"web": NAN}}, "MixtureStage.rates = {'web': nan}"),
    (MixtureStage, {"temperature": INF}, "MixtureStage.temperature = inf"),
    (MixtureStage, {"temperature": True}, "MixtureStage.temperature"),
    (MixtureStage, {"sources": "web"}, "MixtureStage.sources"),
    (MixtureStage, {"sources": ["web", "web"]}, "'web' stands there twice"),
    (MegatronMixture, {"stages": ()}, "MegatronMixture.stages"),
    (MegatronStage, {"weights": {"web": 0}}, "MegatronStage.weights['web']"),
    (MegatronStage, {"weights": {"web": NAN}}, "MegatronStage.weights['web']"),
    (MegatronStage, {"sources": ["web"], "weights": {"books": 1}}, "lacks source 'web'"),
    (MeshConfig, {"rules": [("embed",)]}, "MeshConfig.rules"),
    (MeshConfig, {"rule_overrides": ["embed"]}, "MeshConfig.rule_overrides"),
    (goldfish, {"use_document_keys": 1}, "goldfish.use_document_keys"),
    (completion_only, {"start_id": 1, "end_id": -1}, "completion_only.end_id"),
    (ademamix, {"learning_rate": 1e-3, "moment_dtype": "half a float"}, "moment_dtype"),
    (ademamix, {"learning_rate": 1e-3, "b3_warmup_steps": 1.5}, "ademamix.b3_warmup_steps"),
    (wsd_schedule, {"peak": 1.0, "total_samples": 10}, "neither of warmup_samples and warmup_fraction"),
    (wsd_schedule, {"peak": 1.0, "warmup_samples": 1, "warmup_fraction": 0.1}, "both of warmup_samples"),
    (wsd_schedule, {"peak": NAN, "warmup_samples": 1, "total_samples": 9, "decay_samples": 1}, "wsd_schedule.peak"),
    (wsd_schedule, {"peak": 1.0, "warmup_samples": True, "total_samples": 9, "decay_samples": 1}, "warmup_samples"),
    (wsd_schedule, {"peak": 1.0, "warmup_samples": 1, "total_samples": INF, "decay_samples": 1}, "total_samples"),
    (cosine_schedule, {"peak": 1.0, "warmup_samples": 20, "total_samples": 10}, "cosine_schedule.total_samples"),
]
NEEDED = {BatchSchedule: {"initial": 8, "final": 8}, ademamix: {"learning_rate": 1.0}, adamw: {"learning_rate": 1.0}}
NEEDED |= {constant_schedule: {"peak": 1.0}, completion_only: {"start_id": 1, "end_id": 2}}


def refusal(make, **settings):
    """Returns the line of a refusal."""
    with pytest.raises(UserError) as raised:
        make(**settings)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    return str(raised.value)


@pytest.mark.parametrize(
    ("make", "owner", "name", "more"), WHOLE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_counts_are_whole_numbers_in_range(make, owner, name, more):
    for value in (*NO_WHOLE_NUMBERS, *more):
        line = refusal(make, **(NEEDED.get(make, {}) | {name: value}))
        assert owner in line and name in line and "whole number" in line


@pytest.mark.parametrize(
    ("make", "owner", "name", "more"), NUMBERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_rates_are_finite_numbers_in_range(make, owner, name, more):
    for value in (*NO_NUMBERS, *more):
        line = refusal(make, **(NEEDED.get(make, {}) | {name: value}))
        assert f"{owner}.{name} = " in line and "finite number" in line


@pytest.mark.parametrize(
    ("make", "settings", "message"), OTHERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_settings_of_other_kinds_are_named(make, settings, message):
    assert message in refusal(make, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_steps": 0}, "RunSchedule.total_steps = 0 must be a whole number of at least 1"),
        ({"total_steps": -5}, "RunSchedule.total_steps = -5"),
        ({"total_steps": 2.0}, "RunSchedule.total_steps = 2.0"),
        ({"stop_step": 0}, "RunSchedule.stop_step = 0"),
        ({"learning_rate": -1e-3}, "RunSchedule.learning_rate = -0.001"),
        ({"learning_rate": NAN}, "RunSchedule.learning_rate = nan"),
        ({"optimizer": "adamw"}, "pretrain.optimizer = 'adamw' must be a function; write pretrain.optimizer = @"),
        ({"mixture": Mixture([MixtureStage(rates={"one": -1.0})])}, "'one' has rate -1.0"),
        ({"mesh": MeshConfig(data=-2)}, "an axis below 1"),
        ({"batch_schedule": BatchSchedule(12)}, "batch of 12"),
    ],
)
def test_what_no_run_can_have_leaves_no_folder(store, tmp_path, settings, message):
    assert message in refusal(small_run, store=store, output=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_no_clipping_is_a_setting_too():
    assert TrainingConfig(clip_norm=None).clip_norm is None
    optimizer_chain(adamw(1e-3), None)


@pytest.mark.parametrize("total", [1, 7, 160, 3_662_109_375])
def test_fractions_mean_the_samples_of_the_run(total):
    relative = wsd_schedule(1e-3, warmup_fraction=0.1, decay_fraction=0.25)
    absolute = wsd_schedule(1e-3, round(0.1 * total), total, round(0.25 * total))
    cosine = of_run(cosine_schedule(1e-3, warmup_fraction=0.1), total), cosine_schedule(1e-3, round(0.1 * total), total)
    for samples in {0, 1, total // 20, total // 2, total - total // 8, total, total + 1}:
        limbs = sample_count(samples)
        assert float(of_run(relative, total)(limbs)) == float(absolute(limbs))
        assert float(cosine[0](limbs)) == float(cosine[1](limbs))
    given = wsd_schedule(1e-3, total_samples=160, warmup_fraction=0.1, decay_fraction=0.25)
    assert float(given(150)) == float(wsd_schedule(1e-3, 16, 160, 40)(150)) and of_run(given, total) is given


def test_a_schedule_without_its_length_says_so():
    with pytest.raises(UserError, match="wsd_schedule hangs on the length of the run"):
        wsd_schedule(1e-3, warmup_fraction=0.1, decay_fraction=0.1)(5)


@pytest.mark.parametrize(("function", "most"), [(pretrain, 15), (train, 7)])
def test_what_travels_together_is_one_parameter(function, most):
    assert len(inspect.signature(function).parameters) <= most


def test_optimizer_and_records_ask_one_learning_rate():
    rate = wsd_schedule(1e-3, warmup_fraction=0.25, decay_fraction=0.25)
    schedule = RunSchedule(BatchSchedule(8), rate, 10).from_start(sequence_length=32)
    given = []
    chain_of_run(
        lambda learning_rate, mask: given.append(learning_rate) or optax.identity(), schedule, TrainingConfig()
    )
    assert given == [schedule.learning_rate] and given[0] is not rate
    assert schedule.learning_rate_of(1) == float(given[0](8)) == pytest.approx((0.1 + 0.9 * 8 / 20) * 1e-3)

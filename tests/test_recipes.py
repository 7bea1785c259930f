"""Recipes of long context and Apertus 1.5, number for number: each file through the schedule that its run has."""

import itertools
import json

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax import cli, configuration
from apertus_jax.data import MegatronMixture
from apertus_jax.optimization import ademamix, weight_decay_mask
from apertus_jax.optimization.ademamix import alpha_at
from apertus_jax.optimization.chain import weight_decay_mask_with_alphas
from apertus_jax.training import TrainingConfig
from apertus_jax.training.records.run_length import chain_of_run
from tests.test_gin_configs import ADEMAMIX, SHAPES, arguments, bound

K = 1024
# θ, sequences of a step, steps, billions of tokens, peak rate, warm-up steps, tensor and context parallelism
# (docs/reference/model_and_training.md §9; steps of the 70B are those at which its runs were stopped).
VERSION_1 = {
    ("8b", 8): (1e6, 1024, 9350, 78.43, 1.1e-5, 150, 2, 1),
    ("8b", 16): (2e6, 512, 6930, 58.13, 1.1e-5, 150, 4, 1),
    ("8b", 32): (4e6, 256, 7000, 58.72, 1.1e-5, 150, 4, 2),
    ("8b", 64): (12e6, 128, 3480, 29.19, 1.1e-5, 150, 4, 4),
    ("70b", 8): (1e6, 2048, 4680, 78.52, 1e-6, 75, 4, 1),
    ("70b", 16): (2e6, 1024, 3470, 58.22, 1e-6, 75, 4, 2),
    ("70b", 32): (4e6, 512, 3500, 58.72, 1e-6, 75, 4, 4),
    ("70b", 64): (12e6, 256, 1742, 29.23, 1e-6, 75, 4, 8),
}
# The same of Apertus 1.5 (docs/reference/after_version_1.md §1; of the 70B the last phase is there, the others are from
# the scripts that docs/recipes.md names).
LONG_1P5 = {
    ("8b", 32): (2e6, 256, 8000, 67.11, 1.1e-5, 300, 4, 2),
    ("8b", 64): (4e6, 128, 7000, 58.72, 1.1e-5, 300, 4, 4),
    ("8b", 128): (4e6, 64, 7000, 58.72, 1.1e-5, 300, 4, 8),
    ("8b", 256): (4e6, 32, 7000, 58.72, 1.1e-5, 300, 4, 16),
    ("70b", 32): (2e6, 512, 3625, 60.82, 2e-6, 0, 4, 4),
    ("70b", 64): (4e6, 256, 3500, 58.72, 2e-6, 100, 4, 8),
    ("70b", 128): (4e6, 128, 3000, 50.33, 2e-6, 100, 4, 16),
    ("70b", 256): (4e6, 64, 3000, 50.33, 2e-6, 100, 4, 32),
}
# Batch, ends of the stages in steps, billions of tokens of each, peak and last rate, warm-up, decay, all in steps
# (docs/reference/after_version_1.md §1).
STAGES_1P5 = {
    "8b": (1024, (96_000, 430_000, 478_000), (805.3, 2801.8, 402.7), 1.1e-4, 1.1e-5, 500, 48_000),
    "70b": (2048, (24_000, 96_000, 120_000), (402.7, 1208.0, 402.7), 2e-5, 2e-6, 250, 24_000),
}
FACTORS = {128: 16.0, 256: 32.0}


@pytest.fixture(autouse=True)
def registered():
    configuration.register(cli.locations())
    yield
    gin.clear_config()


def resolved(built):
    """The schedule that the run reads, from its first step."""
    return built["schedule"].from_start(built["training"].sequence_length)


def drawn(built):
    """Names of the sources that a run draws from, in order."""
    stages = built["mixture"].stages
    return [name for stage in stages for name in (getattr(stage, "rates", None) or stage.sources)]


def check_long_phase(built, size, length, numbers):
    theta, batch, steps, billions, peak, warmup, tensor, context = numbers
    model, training, schedule = built["model"], built["training"], resolved(built)
    assert (model.hidden_size, model.num_layers) == (SHAPES[size][1], SHAPES[size][2])
    assert (model.rope_theta, model.max_position_embeddings, training.sequence_length) == (
        theta,
        length * K,
        length * K,
    )
    assert schedule.batches.sizes == {batch} and schedule.total_steps == steps
    assert schedule.total_samples == steps * batch
    assert schedule.batches.tokens_before(steps) / 1e9 == pytest.approx(billions, abs=0.006)
    rates = {step: schedule.learning_rate_of(step) for step in (0, warmup // 3, warmup, steps // 2, steps - 1)}
    assert rates == pytest.approx({step: peak * min(1, step / warmup if warmup else 1) for step in rates}, rel=1e-6)
    assert (built["mesh"].tensor, built["mesh"].context) == (tensor, context)
    assert bound("ademamix") == ADEMAMIX
    assert float(alpha_at(steps, 8.0, 100_000)) == pytest.approx(8 * steps / 100_000), "a fresh one does not come to 8"
    assert (training.clip_norm, training.init_unread_sources) == (0.1, True)
    assert not training.init_optimizer
    scaling = model.rope_scaling
    assert (scaling.low_frequency_factor, scaling.high_frequency_factor) == (1.0, 4.0)
    assert scaling.original_max_position_embeddings == 8192
    assert bound("goldfish")["k"] == bound("goldfish")["h"] == 50


@pytest.mark.parametrize(("size", "length"), VERSION_1, ids=lambda value: str(value))
@pytest.mark.parametrize("as_run", [False, True], ids=["design", "as_run"])
def test_long_context_is_the_published_one_number_for_number(size, length, as_run):
    built = arguments(f"long_context/{size}_{length}k{'_as_run' * as_run}.gin")
    check_long_phase(built, size, length, VERSION_1[size, length])
    model, objective = built["model"], built["objective"]
    assert (built["training"].seed, model.rope_scaling.factor) == (28, 8.0)
    assert not built["training"].decay_xielu_alphas
    assert len(objective.loss_masks) == (1 if as_run and length == 64 else 2), "masks off at 64k as run"
    # The scripts leave 1.258 billion tokens to the warm-up, in every phase of both sizes.
    warmup = VERSION_1[size, length][5] * VERSION_1[size, length][1] * length * K
    assert warmup == pytest.approx(1.258e9, rel=1e-3)
    if as_run:
        assert (model.doc_attention, model.reset_positions) == ("causal", False)
        assert (objective.loss_norm, objective.microbatch_size) == ("microbatch", 1)
        assert bound("goldfish")["strategy"] == "megatron"
        assert isinstance(built["mixture"], MegatronMixture)
        assert [stage.seed for stage in built["mixture"].stages] == [28]
        assert built["mixture"].stages[0].weights is None
    else:
        assert (model.doc_attention, model.reset_positions) == ("segment", True)
        assert (objective.loss_norm, bound("goldfish")["strategy"]) == ("global", "document")
        assert list(built["mixture"].stages[0].rates.values()) == [0.7, 0.2, 0.1]


@pytest.mark.parametrize("size", ["8b", "70b"])
@pytest.mark.parametrize("form", ["{size}_{length}k", "{size}_{length}k_as_run", "apertus_1p5_{size}_{length}k_as_run"])
def test_no_source_is_drawn_from_in_two_phases(size, form):
    lengths = (32, 64, 128, 256) if "1p5" in form else (8, 16, 32, 64)
    phases = [set(drawn(arguments(f"long_context/{form.format(size=size, length=length)}.gin"))) for length in lengths]
    assert all(phases)
    for first, second in itertools.combinations(phases, 2):
        assert not first & second
    if "1p5" not in form:  # each has the FineWeb documents of its own class of lengths
        assert [f"fineweb_long_{length}k" in phase for length, phase in zip(lengths, phases, strict=True)] == [True] * 4


@pytest.mark.parametrize(("size", "length"), LONG_1P5, ids=lambda value: str(value))
def test_long_context_of_1p5_is_the_published_one(size, length):
    name = f"long_context/apertus_1p5_{size}_{length}k"
    built = arguments(f"{name}_as_run.gin")
    check_long_phase(built, size, length, LONG_1P5[size, length])
    check_common_1p5(built)
    assert built["objective"].loss_norm == "global" and built["mixture"].sample_index == "best_fit"
    assert built["model"].rope_scaling.factor == 8.0
    if length in FACTORS:
        advised = arguments(f"{name}.gin")
        assert advised["model"].rope_scaling.factor == FACTORS[length]
        assert advised["schedule"].batch_schedule == built["schedule"].batch_schedule
        assert advised["schedule"].total_steps == built["schedule"].total_steps


def check_common_1p5(built):
    assert (built["model"].doc_attention, built["model"].reset_positions) == ("segment", True), "masked for real"
    assert (built["training"].seed, built["training"].decay_xielu_alphas) == (41, True)
    assert bound("goldfish") == {"k": 50, "h": 50, "strategy": "megatron"}
    assert bound("not_after_eod") == {"eod_id": 2} and len(built["objective"].loss_masks) == 2


@pytest.mark.parametrize("size", STAGES_1P5)
def test_stages_of_1p5_are_the_published_ones(size):
    batch, ends, billions, peak, last, warmup, decay = STAGES_1P5[size]
    first, third = (arguments(f"apertus_1p5_{size}{name}_as_run.gin") for name in ("", "_stage3"))
    check_common_1p5(third)  # bindings are those of the file read last
    arguments(f"apertus_1p5_{size}_as_run.gin")
    check_common_1p5(first)
    assert bound("ademamix") == ADEMAMIX
    assert (first["schedule"].total_steps, third["schedule"].total_steps) == ends[1:]
    schedule = resolved(third)
    for built in (first, third):
        assert (built["training"].sequence_length, built["model"].max_position_embeddings) == (8192, 8192)
        assert (built["model"].rope_theta, built["model"].rope_scaling.factor) == (500_000.0, 8.0)
        assert resolved(built).batches.sizes == {batch}
        for step in (0, 1, warmup, ends[0], ends[1] - 1, ends[1], ends[1] + 7):
            assert resolved(built).learning_rate_of(step) == schedule.learning_rate_of(step), (
                "one schedule for all three"
            )
    tokens = [schedule.batches.tokens_before(step) / 1e9 for step in (0, *ends)]
    assert np.diff(tokens) == pytest.approx(billions, abs=0.06)
    assert tokens[-1] == pytest.approx({"8b": 4010, "70b": 2013}[size], abs=0.6)
    quarter = ends[2] - 3 * decay // 4
    rates = {0: 0.0, warmup // 2: peak / 2, warmup: peak, ends[0]: peak, ends[1]: peak, quarter: (peak + last) / 2}
    rates[ends[2]] = last
    assert {step: schedule.learning_rate_of(step) for step in rates} == pytest.approx(rates, rel=1e-6, abs=1e-15)
    assert ends[2] - ends[1] == decay, "stage 3 is the decay"
    starts = [stage.start for stage in first["mixture"].stages]
    assert starts == [0, resolved(first).batches.first_sample(ends[0])]
    assert [stage.seed for stage in first["mixture"].stages] == [41, 41]
    assert (first["objective"].loss_norm, first["objective"].microbatch_size) == ("microbatch", 1)
    assert (third["objective"].loss_norm, third["mixture"].sample_index) == ("global", "best_fit")
    assert drawn(third) == ["text_stage_3", "apertus_sft"]


def test_alphas_decay_where_the_setting_says_and_nothing_else():
    params = {
        "feedforward": {"xielu": {"alpha_p": jnp.full((3,), 0.5), "alpha_n": jnp.full((3,), -1.0)}},
        "norm": {"scale": jnp.ones((3, 4))},
        "up": {"kernel": jnp.ones((3, 4, 2))},
    }
    built = arguments("apertus_8b_as_run.gin")
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decays in (False, True):
        training = TrainingConfig(decay_xielu_alphas=decays, clip_norm=None)
        schedule = built["schedule"].from_start(4096)
        chain = chain_of_run(ademamix, schedule, training)
        updates, _ = chain.update(zeros, chain.init(params), params, samples_consumed=4_096_000)
        shrunk = jax.tree.map(lambda update, param: bool((update == -1.1e-4 * 0.1 * param).all()), updates, params)
        assert shrunk["up"]["kernel"] and not shrunk["norm"]["scale"]
        assert shrunk["feedforward"]["xielu"] == {"alpha_p": decays, "alpha_n": decays}
    assert not weight_decay_mask(params)["feedforward"]["xielu"]["alpha_p"]
    assert weight_decay_mask_with_alphas(params) == {
        "feedforward": {"xielu": {"alpha_p": True, "alpha_n": True}},
        "norm": {"scale": False},
        "up": {"kernel": True},
    }


RECIPES = [
    *(f"long_context/{size}_{length}k{form}.gin" for size, length in VERSION_1 for form in ("", "_as_run")),
    *(f"long_context/apertus_1p5_{size}_{length}k_as_run.gin" for size, length in LONG_1P5),
    *(f"long_context/apertus_1p5_{size}_{length}k.gin" for size in ("8b", "70b") for length in FACTORS),
    *(f"apertus_1p5_{size}{name}_as_run.gin" for size in ("8b", "70b") for name in ("", "_stage3")),
]


def test_every_recipe_file_is_compared_with_its_numbers():
    folder = configuration.GIN_CONFIGS
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.gin")}
    assert {name for name in found if "long_context/" in name or name.startswith("apertus_1p5")} == set(RECIPES)


QUICK = {"long_context/8b_64k_as_run.gin", "apertus_1p5_70b_stage3_as_run.gin"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_plan_runs_on_every_recipe(name, capsys):
    assert cli.main(["plan", f"--gin_file={name}", "--devices=512", "--device=h100", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    built = arguments(name)
    assert figures["work"]["samples"] == resolved(built).total_samples
    assert figures["work"]["tokens"] == resolved(built).total_samples * built["training"].sequence_length

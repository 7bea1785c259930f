"""The files under gin_configs: each parses and builds, and the recipes are the published ones number for number."""

import gin
import jax
import numpy as np
import pytest

from apertus_jax import cli, configuration
from apertus_jax.data import BatchSchedule
from apertus_jax.errors import UserError
from apertus_jax.model import abstract_parameters, count_parameters

FILES = sorted(str(path.relative_to(configuration.GIN_CONFIGS)) for path in configuration.GIN_CONFIGS.rglob("*.gin"))
EXPERIMENTS = [name for name in FILES if "/" not in name]
# The shared recipes leave these to the experiments that include them.
PHASE = ["LENGTH = 8192", "PEAK_LEARNING_RATE = 1.0", "WARMUP_SAMPLES = 8"]
MACROS = {
    "recipes/long_context.gin": PHASE,
    "recipes/long_context_as_run.gin": ["SOURCES = ['web']"],
    "recipes/apertus_1p5.gin": PHASE[:1],
    "recipes/apertus_1p5_long_context.gin": PHASE,
    "recipes/apertus_1p5_stages.gin": [*PHASE[1:], "TOTAL_SAMPLES = 64", "DECAY_SAMPLES = 8"],
    "recipes/apertus.gin": ["PEAK_LEARNING_RATE = 1.0", "LEARNING_RATE_INIT_FRACTION = 0.0"],
    "recipes/apertus_stages.gin": [f"Mixture.stages = [{', '.join(f'@stage{n}/MixtureStage()' for n in range(1, 6))}]"],
}

# name: vocabulary, width, layers, feedforward, heads, key-value heads, head width, parameters
# (docs/reference/model_and_training.md §1).
SHAPES = {
    "test_1m": (2048, 128, 2, 672, 4, 2, 32, 967_428),
    "30m": (16384, 384, 8, 2016, 6, 2, 64, 28_122_512),
    "125m": (16384, 768, 12, 4032, 12, 4, 64, 118_378_776),
    "350m": (32768, 1024, 20, 5376, 16, 4, 64, 339_783_208),
    "1b": (131072, 2048, 16, 12288, 32, 8, 64, 1_510_019_104),
    "3b": (131072, 3072, 28, 12288, 24, 8, 128, 3_624_060_984),
    "8b": (131072, 4096, 32, 21504, 32, 8, 128, 8_053_338_176),
    "70b": (131072, 8192, 80, 43008, 64, 8, 128, 70_599_864_480),
}
# What differs between the sizes (docs/reference/model_and_training.md §5.4, §7, §8).
SIZES = {
    "8b": {
        "peak": 1.1e-4,
        "batch": (1024, 2048, 1_718_272_000),
        "ramp_steps": 1_678_000,
        "steps": 2_627_139,
        "checkpoint_every": 2000,
        "microbatch": 4,
        # stage: its first step, counted from 0, and tokens consumed before it in billions
        "stages": {1: (0, 0.0), 3: (1_678_000, 7038.0), 4: (2_269_525, 12_000.1), 5: (2_429_920, 13_345.6)},
    },
    "70b": {
        "peak": 1.0e-5,
        "batch": (2048, 4096, 1_072_164_864),
        "ramp_steps": 523_518,
        "steps": 1_155_828,
        "checkpoint_every": 250,
        "microbatch": 1,
        "stages": {
            1: (0, 0.0),
            2: (569_655, 5165.6),
            3: (789_001, 8845.6),
            4: (989_501, 12_209.5),
            5: (1_062_328, 13_431.3),
        },
    },
}
ADEMAMIX = {
    "b1": 0.9,
    "b2": 0.999,
    "b3": 0.9999,
    "alpha": 8.0,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "alpha_warmup_steps": 100_000,
    "b3_warmup_steps": 100_000,
}
WSD = {
    "warmup_samples": 4_096_000,
    "total_samples": 3_662_109_375,
    "decay_samples": 403_905_806,
    "lr_final_frac": 0.1,
}


# Names that scripts in experiments/ add to those of the commands.
EXPERIMENT_NAMES = ["goldfish_ablation_settings:GoldfishAblation"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.syspath_prepend(str(configuration.GIN_CONFIGS.parent / "experiments"))
    configuration.register([*cli.locations(), *EXPERIMENT_NAMES])
    yield
    gin.clear_config()


def arguments(name):
    """Returns what `pretrain` would be called with under a gin file, every object built, nothing run."""
    configuration.parse([name], [])
    configuration.refer_to_options("pretrain")
    built = {}
    for parameter in configuration.signature("pretrain").parameters:
        try:
            value = gin.query_parameter(f"pretrain.{parameter}")
        except ValueError:
            continue
        built[parameter] = value.scoped_configurable_fn() if getattr(value, "evaluate", False) else value
    return built


def bound(configurable):
    """Returns what a gin file binds of one configurable, macros resolved."""
    values = {}
    for parameter in configuration.signature(configurable).parameters:
        try:
            value = gin.query_parameter(f"{configurable}.{parameter}")
        except ValueError:
            continue
        values[parameter] = value.scoped_configurable_fn() if hasattr(value, "scoped_configurable_fn") else value
    return values


@pytest.mark.parametrize("name", FILES)
def test_every_file_parses_without_an_unknown_name(name):
    configuration.parse([name], MACROS.get(name, []))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds_what_pretrain_needs(name):
    built = arguments(name)
    missing = [
        parameter.name
        for parameter in configuration.signature("pretrain").parameters.values()
        if parameter.default is parameter.empty and parameter.name not in built
    ]
    assert set(missing) <= {"store", "output"}
    optimizer = built["optimizer"].scoped_configurable_fn(
        learning_rate=built["schedule"].learning_rate, mask=lambda _: True
    )
    assert optimizer.init({"kernel": np.zeros((2, 2), np.float32)})
    assert 0 < float(built["schedule"].learning_rate(10)) < 1
    assert built["objective"].left_context in (0, 49)


def test_presets_have_their_exact_parameter_counts():
    assert {name.removeprefix("models/").removesuffix(".gin") for name in FILES if name.startswith("models/")} == set(
        SHAPES
    )
    for name, (vocabulary, width, layers, feedforward, heads, kv_heads, head_width, parameters) in SHAPES.items():
        configuration.parse([f"models/{name}.gin"], [])
        model = gin.get_configurable("ModelConfig")()
        found = (
            model.vocab_size,
            model.hidden_size,
            model.num_layers,
            model.intermediate_size,
            model.num_heads,
            model.num_kv_heads,
            model.head_dim,
            count_parameters(abstract_parameters(model)),
        )
        assert found == (vocabulary, width, layers, feedforward, heads, kv_heads, head_width, parameters), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_run", [False, True], ids=["design", "as_run"])
def test_recipe_is_the_published_one_number_for_number(size, as_run):
    expected = SIZES[size]
    built = arguments(f"apertus_{size}_as_run.gin" if as_run else f"apertus_{size}.gin")
    model, objective, training = built["model"], built["objective"], built["training"]
    assert count_parameters(abstract_parameters(model)) == SHAPES[size][-1]
    assert (model.rope_theta, model.max_position_embeddings, model.norm_epsilon) == (500_000.0, 4096, 1e-5)
    scaling = model.rope_scaling
    assert (scaling.factor, scaling.low_frequency_factor, scaling.high_frequency_factor) == (8.0, 1.0, 4.0)
    assert scaling.original_max_position_embeddings == 8192
    assert model.init_std == 0.008944
    assert (training.sequence_length, training.clip_norm, training.seed) == (4096, 0.1, 28)
    assert training.checkpoint_every == expected["checkpoint_every"]
    assert built["schedule"].total_steps == expected["steps"]
    assert built["schedule"].batch_schedule == BatchSchedule(*expected["batch"])
    assert built["schedule"].batch_schedule.ramp_steps == expected["ramp_steps"]
    assert built["schedule"].batch_schedule.total_steps(WSD["total_samples"]) == expected["steps"]
    assert built["optimizer"].selector == "ademamix"
    assert bound("ademamix") == ADEMAMIX
    initial_fraction = 0.0 if as_run else 0.1
    assert bound("wsd_schedule") == {**WSD, "peak": expected["peak"], "lr_init_frac": initial_fraction}
    assert bound("goldfish") == {"k": 50, "h": 50, "strategy": "megatron" if as_run else "document"}
    assert bound("not_after_eod") == {"eod_id": 2}
    assert len(objective.loss_masks) == 2
    if as_run:
        assert (model.doc_attention, model.reset_positions) == ("causal", False)
        assert (objective.loss_norm, objective.microbatch_size) == ("microbatch", expected["microbatch"])
    else:
        assert (model.doc_attention, model.reset_positions) == ("segment", True)
        assert objective.loss_norm == "global"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_run", [False, True], ids=["design", "as_run"])
def test_stages_start_where_the_paper_says(size, as_run):
    built = arguments(f"apertus_{size}_as_run.gin" if as_run else f"apertus_{size}.gin")
    schedule, stages = built["schedule"].batch_schedule, built["mixture"].stages
    expected = SIZES[size]["stages"]
    for stage, (number, (first_step, billions)) in zip(stages, expected.items(), strict=True):
        # The table counts the first iteration of later stages as steps done, and of the first as 1.
        assert stage.start == schedule.first_sample(first_step), number
        assert stage.start * 4096 / 1e9 == pytest.approx(billions, abs=0.06)
        assert stage.sources
    if as_run:
        assert [stage.seed for stage in stages] == [28 + place for place in range(len(stages))]
    else:
        assert all(stage.rates is None and stage.temperature == 1.0 for stage in stages)


# Samples consumed and the 8B's learning rate with a warm-up from zero (docs/reference/model_and_training.md §7.1); the
# 70B's is in proportion.
AS_RUN_RATES = {
    1024: 2.75e-8,
    2_048_000: 5.5e-5,
    4_096_000: 1.1e-4,
    3_258_203_569: 1.1e-4,
    3_258_204_593: 1.098424e-4,
    3_460_156_472: 3.999643e-5,
    3_561_132_924: 2.426348e-5,
    3_662_109_375: 1.1e-5,
    3_700_000_000: 1.1e-5,
}


@pytest.mark.parametrize("size", SIZES)
def test_learning_rate_has_the_check_values_of_the_specification(size):
    schedule = jax.jit(arguments(f"apertus_{size}_as_run.gin")["schedule"].learning_rate)
    scale = SIZES[size]["peak"] / 1.1e-4
    for samples, rate in AS_RUN_RATES.items():
        limbs = np.array([samples >> 32, samples & 0xFFFFFFFF], np.uint32)
        np.testing.assert_allclose(schedule(limbs), rate * scale, rtol=1e-6, err_msg=str(samples))


@pytest.mark.parametrize("size", SIZES)
def test_design_warms_up_from_a_tenth_of_the_peak(size):
    schedule = arguments(f"apertus_{size}.gin")["schedule"].learning_rate
    peak = SIZES[size]["peak"]
    np.testing.assert_allclose(schedule(0), 0.1 * peak, rtol=1e-6)
    np.testing.assert_allclose(schedule(2_048_000), 0.55 * peak, rtol=1e-6)


@pytest.mark.parametrize("line", ["ademamix.beta3 = 0.5", "wsd_schedule.decay = 3", "goldfish.K = 4", "Trainer.x = 1"])
def test_a_leftover_that_no_code_reads_is_refused(line):
    with pytest.raises(UserError, match="has no parameter|nothing is called"):
        configuration.parse(["apertus_8b.gin"], [line])

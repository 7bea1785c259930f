"""Gin at the edge: what is read, what is in effect, and how a command line becomes bindings."""

import gin
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apertus_jax import cli, configuration
from apertus_jax.cli import split_gin_flags
from apertus_jax.configuration import effective_bindings, parse_bindings
from apertus_jax.errors import UserError


@pytest.fixture(autouse=True, scope="module")
def registered():
    configuration.register(cli.locations())
    yield
    gin.clear_config()


def test_bindings_in_effect_follow_references_macros_and_scopes():
    configuration.parse(
        [],
        [
            "WIDTH = 0.1",
            "pretrain.mixture = @Mixture()",
            "Mixture.stages = [@first/MixtureStage(), @second/MixtureStage()]",
            "first/MixtureStage.rates = {'one': %WIDTH}",
            "second/MixtureStage.start = 7",
            "MixtureStage.temperature = 2.0",
            "tokenize.seed = 5",
        ],
    )
    gin.query_parameter("pretrain.mixture")
    gin.get_configurable("Mixture")()
    found = effective_bindings("Mixture")
    assert found["Mixture.stages"] == "[@first/MixtureStage(), @second/MixtureStage()]"
    assert found["first/MixtureStage.rates"] == "{'one': %WIDTH}" and found["WIDTH"] == "0.1"
    assert found["second/MixtureStage.start"] == "7" and found["first/MixtureStage.temperature"] == "2.0"
    assert not any(name.startswith("tokenize") for name in found)


def test_defaults_are_part_of_what_is_in_effect():
    configuration.parse([], ["TrainingConfig.log_every = 3"])
    gin.get_configurable("TrainingConfig")()
    found = effective_bindings("TrainingConfig")
    assert found["TrainingConfig.log_every"] == "3"
    assert found["TrainingConfig.seed"] == "28" and found["TrainingConfig.clip_norm"] == "0.1"


def test_values_that_nothing_used_are_not_in_effect():
    configuration.parse([], ["goldfish.k = 4", "not_after_eod.eod_id = 2", "Objective.loss_masks = [@goldfish()]"])
    gin.get_configurable("Objective")()
    assert not any(name.startswith("not_after_eod") for name in effective_bindings("Objective"))


WORDS = st.text(alphabet="abc =#'\"\\\n@%", max_size=60)
SCALARS = st.one_of(st.integers(-5, 10**12), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), WORDS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=st.one_of(SCALARS, st.lists(WORDS, max_size=8), st.dictionaries(WORDS, SCALARS, max_size=5)))
def test_a_value_of_any_length_is_read_back_as_gin_wrote_it(value):
    gin.clear_config()
    gin.bind_parameter("MixtureStage.start", 3)
    gin.bind_parameter("MixtureStage.rates", value)
    gin.bind_parameter("MixtureStage.temperature", 2.5)
    bindings = parse_bindings(gin.config_str())
    assert bindings.keys() == {"MixtureStage.start", "MixtureStage.rates", "MixtureStage.temperature"}
    assert (bindings["MixtureStage.start"], bindings["MixtureStage.temperature"]) == ("3", "2.5")
    assert gin.config.parse_value(bindings["MixtureStage.rates"]) == value


def test_long_values_that_span_lines_are_one_binding():
    text = (
        "# Parameters for Mixture:\n# =====\nimport apertus_jax\n\nMixture.stages = \\\n"
        "    [@stage1/MixtureStage(),\n     @stage2/MixtureStage()]\nA = {'x': 1,\n     'y = 2': 2}\nB = 3\n"
    )
    assert parse_bindings(text) == {
        "Mixture.stages": "[@stage1/MixtureStage(), @stage2/MixtureStage()]",
        "A": "{'x': 1, 'y = 2': 2}",
        "B": "3",
    }


def test_gin_flags_become_gin_lines_and_the_rest_stays():
    arguments = [
        "pretrain",
        "--gin_file=a.gin",
        "--gin.SEED=1",
        "--steps",
        "3",
        "--gin.stage1/MixtureStage.rates={'a': 1}",
    ]
    assert split_gin_flags(arguments) == (
        ["pretrain", "--gin_file=a.gin", "--steps", "3"],
        ["SEED = 1", "stage1/MixtureStage.rates = {'a': 1}"],
    )
    assert split_gin_flags(["--gin.A.b='x=y'"]) == ([], ["A.b = 'x=y'"])
    for wrong in ("--gin.SEED", "--gin.SEED="):
        with pytest.raises(UserError, match="--gin.SEED=VALUE"):
            split_gin_flags([wrong])


def test_a_second_configuration_starts_from_nothing():
    configuration.parse(["models/30m.gin"], [])
    configuration.parse([], ["ModelConfig.hidden_size = 64"])
    assert "384" not in gin.config_str() and "ModelConfig.num_layers" not in gin.config_str()


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "from os import path",
        "import \\\n  os",
        "include 'other.gin'",
        "import apertus_jax.data",
        "from __gin__ import dynamic_registration",
    ],
)
def test_no_gin_file_runs_code_from_outside(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.gin").write_text("import subprocess\n")
    (tmp_path / "mine.gin").write_text(f"{line}\nTrainingConfig.seed = 3\n")
    with pytest.raises(UserError, match="gin files are data and import nothing, remove the import"):
        configuration.parse(["mine.gin"], [])


def test_text_that_looks_like_an_import_is_only_text(tmp_path):
    (tmp_path / "mine.gin").write_text('goldfish.strategy = """\nimport os\n"""\n')
    configuration.parse([str(tmp_path / "mine.gin")], [])
    assert gin.query_parameter("goldfish.strategy") == "\nimport os\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ModelConfig.hidden_size = 'wide'", "ModelConfig.hidden_size = 'wide' must be a whole number"),
        ("ModelConfig.hidden_size = 64.0", "must be a whole number"),
        ("ModelConfig.reset_positions = 'no'", "must be True or False"),
        ("ModelConfig.num_layers = True", "must be a whole number"),
        ("ModelConfig.doc_attention = 3", "must be text in quotes"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(line, message):
    with pytest.raises(UserError, match=message):
        configuration.parse(["models/test_1m.gin"], [line])

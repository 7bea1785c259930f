"""A model configuration that exists is one that can be computed: every field checks itself."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, RopeScaling, abstract_parameters, count_parameters

SOUND = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
}
SIZES = (*SOUND, "max_position_embeddings", "scan_unroll", "head_dim")
NUMBERS = ("norm_epsilon", "rope_theta", "init_std", "xielu_alpha_p", "xielu_alpha_n", "xielu_beta", "xielu_epsilon")


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -4, True, 8.0, "8", math.nan, [8], 2**31, pytest.param(10**5000, id="huge")])
def test_sizes_are_whole_numbers_within_int32(field, value):
    with pytest.raises(UserError, match=f"ModelConfig.{field} = ") as caught:
        ModelConfig(**SOUND | {field: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "tiny", True, None, [1.0]])
def test_numbers_of_the_model_are_finite(field, value):
    with pytest.raises(UserError, match=f"ModelConfig.{field} = "):
        ModelConfig(**SOUND | {field: value})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 5}, "not a multiple"),
        ({"num_kv_heads": 3}, "not a multiple of num_kv_heads"),
        ({"head_dim": 7}, "must be even"),
        ({"norm_epsilon": 0}, "norm_epsilon = 0"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0"),
        ({"xielu_alpha_n": 0.4}, "above xielu_beta"),
        ({"reset_positions": 1}, "True or False"),
        ({"doc_attention": ["segment"]}, "doc_attention"),
        ({"compute_dtype": "float16"}, "compute_dtype"),
        ({"rope_scaling": {"factor": 8.0}}, "RopeScaling"),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**30, "num_heads": 2**20, "num_kv_heads": 2**20}, "parameters"),
    ],
)
def test_fields_that_contradict_each_other_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        ModelConfig(**SOUND | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"factor": 0},
        {"factor": math.nan},
        {"low_frequency_factor": -1.0},
        {"high_frequency_factor": "4"},
        {"high_frequency_factor": 1.0},
        {"original_max_position_embeddings": 0},
        {"original_max_position_embeddings": 8192.0},
    ],
)
def test_rope_scaling_refuses_what_it_cannot_blend(changes):
    with pytest.raises(UserError, match="RopeScaling"):
        RopeScaling(**changes)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from([*SIZES, *NUMBERS]), st.one_of(st.none(), st.integers(), st.floats(), st.text()))
)
def test_any_value_is_a_configuration_or_one_line(changes):
    try:
        config = ModelConfig(**SOUND | changes)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert 0 < count_parameters(abstract_parameters(config)) < 10**16
    assert config.head_dim % 2 == 0

"""Both spellings of config.json mean what transformers reads in them."""

import dataclasses
import json

import numpy as np
import pytest
import transformers
from transformers.models.apertus.modeling_apertus import ApertusRotaryEmbedding

from apertus_jax.checkpoints.huggingface_config import from_huggingface, read_huggingface_config, to_huggingface
from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, RopeScaling, abstract_parameters, count_parameters
from apertus_jax.model.rope import inverse_frequencies

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALINGS = [RopeScaling(), RopeScaling(4.0, 2.0, 6.0, 2048), None]


def write(folder, values) -> None:
    (folder / "config.json").write_text(json.dumps(values))


def published(config, **changes):
    values = to_huggingface(config, "bfloat16", SPECIAL) | changes
    return {key: value for key, value in values.items() if value is not ...}


@pytest.mark.parametrize("theta", [500_000.0, 12_000_000.0])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_transformers_rotates_by_our_frequencies(tmp_path, config, theta, scaling):
    config = dataclasses.replace(config, rope_theta=theta, rope_scaling=scaling)
    write(tmp_path, published(config))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.rope_parameters["rope_theta"] == theta
    assert theirs.rope_parameters["rope_type"] == ("default" if scaling is None else "llama3")
    frequencies = ApertusRotaryEmbedding(theirs).inv_freq.numpy()
    ours = np.asarray(inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling))
    np.testing.assert_allclose(frequencies, ours, rtol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_either_spelling_alone_gives_the_same_config(config, scaling):
    config = dataclasses.replace(config, rope_theta=12e6, rope_scaling=scaling)
    for changes in ({}, {"rope_parameters": ...}, {"rope_scaling": ..., "rope_theta": ...}):
        assert from_huggingface(published(config, **changes), "config.json") == config


def test_null_scaling_means_none_and_old_type_key_is_read(config):
    values = published(config, rope_parameters=..., rope_scaling=None)
    assert from_huggingface(values, "config.json").rope_scaling is None
    old = {key: value for key, value in LLAMA3.items() if key != "rope_type"} | {"type": "llama3"}
    assert from_huggingface(published(config, rope_parameters=..., rope_scaling=old), "x").rope_scaling == RopeScaling()


def test_settings_without_a_published_key_come_back(config):
    ours = dataclasses.replace(config, doc_attention="causal", reset_positions=False, init_std=0.008944)
    assert from_huggingface(published(ours), "config.json") == ours


def test_released_8b_config_is_read(tmp_path):
    """The layout of the released files, which have no block of ours.

    Source: docs/reference/model_and_training.md §12.2.
    """
    write(
        tmp_path,
        {
            "architectures": ["ApertusForCausalLM"],
            "model_type": "apertus",
            "vocab_size": 131072,
            "hidden_size": 4096,
            "intermediate_size": 21504,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "hidden_act": "xielu",
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-05,
            "rope_theta": 12000000,
            "rope_scaling": LLAMA3 | {"type": "llama3"},
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "mlp_bias": False,
            "qk_norm": True,
            "post_norm": False,
            "tie_word_embeddings": False,
            "initializer_range": 0.02,
            "torch_dtype": "bfloat16",
        },
    )
    config, _ = read_huggingface_config(tmp_path)
    assert config == ModelConfig(131072, 4096, 21504, 32, 32, 8, rope_theta=12e6, max_position_embeddings=65536)
    assert count_parameters(abstract_parameters(config)) == 8_053_338_176


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"hidden_act": "silu"}, "hidden_act='silu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"hidden_size": ...}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"rope_parameters": ..., "rope_scaling": ...}, "rope_theta without rope_scaling"),
        ({"rope_scaling": LLAMA3 | {"factor": 4.0}}, "different rope_parameters and rope_scaling"),
        ({"rope_theta": 10_000.0}, "different rope_parameters and rope_scaling"),
        ({"rope_parameters": ..., "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        ({"rope_parameters": ..., "rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_parameters": ..., "rope_scaling": "llama3"}, "'llama3'"),
        ({"apertus_jax": {"colour": "red"}}, "apertus_jax.colour"),
        ({"num_key_value_heads": 5}, "num_kv_heads=5"),
    ],
)
def test_config_of_another_architecture_is_refused_in_one_line(tmp_path, config, changes, words):
    write(tmp_path, published(config, **changes))
    with pytest.raises(UserError) as caught:
        read_huggingface_config(tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_config_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "aper')
    with pytest.raises(UserError, match="not valid JSON"):
        read_huggingface_config(tmp_path)

"""The model folder: complete or refused, and the parameters come back bit for bit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from apertus_jax.errors import UserError
from apertus_jax.model import Transformer, init_parameters
from apertus_jax.model.model_folder import (
    find_model,
    load_model,
    save_model,
)
from apertus_jax.model.model_folder import (
    tokenizer_folder as tokenizer_of,
)
from apertus_jax.model.parameters import parameter_shapes
from apertus_jax.release import load_huggingface, save_huggingface
from apertus_jax.storage import artifacts
from tests.model_parameters import random_parameters


def test_parameter_table_is_what_the_model_makes(config):
    boxed = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    made = flatten_dict(meta.unbox(boxed), sep="/")
    assert {name: leaf.shape for name, leaf in made.items()} == parameter_shapes(config)


def test_model_comes_back_bit_for_bit(tmp_path, config, params, tokenizer_folder):
    config = dataclasses.replace(config, rope_scaling=None, doc_attention="causal", compute_dtype="bfloat16")
    save_model(tmp_path / "model", config, params, tokenizer_folder, inputs={"run": "abc"}, shard_bytes=50_000)
    loaded_config, loaded = load_model(tmp_path / "model")
    assert loaded_config == config
    found = flatten_dict(loaded, sep="/")
    for name, leaf in flatten_dict(params, sep="/").items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name].view(np.uint32), leaf.view(np.uint32), err_msg=name)
    assert artifacts.read_manifest(tmp_path / "model", "model")["inputs"] == {"run": "abc"}
    copied = tokenizer_of(tmp_path / "model") / "tokenizer.json"
    assert copied.read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()


def test_model_without_tokenizer_says_so(tmp_path, config, params):
    save_model(tmp_path / "model", config, params)
    assert tokenizer_of(tmp_path / "model") is None


def test_fresh_and_boxed_parameters_are_accepted(tmp_path, config):
    save_model(tmp_path / "model", config, init_parameters(config, jax.random.key(0)))
    boxed = jax.jit(Transformer(config).init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    save_model(tmp_path / "boxed", config, boxed)
    assert load_model(tmp_path / "boxed")[0] == config


def test_run_folder_with_a_model_is_a_model(tmp_path, config, params):
    save_model(tmp_path / "run" / "model", config, params)
    assert find_model(tmp_path / "run") == find_model(tmp_path / "run" / "model")
    assert load_model(tmp_path / "run")[0] == config


def test_any_flipped_byte_is_detected_and_named(tmp_path, config, params):
    save_model(tmp_path / "model", config, params)
    path = tmp_path / "model" / "parameters.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="parameters.safetensors has changed"):
        load_model(tmp_path / "model")


def test_folders_that_are_no_models_are_refused_with_a_remedy(tmp_path, config, params):
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a complete model folder"):
        load_model(tmp_path / "empty")
    save_huggingface(tmp_path / "repository", config, params)
    with pytest.raises(UserError, match="huggingface_model, not a model"):
        load_model(tmp_path / "repository")
    (tmp_path / "repository" / artifacts.COMMIT_MARKER).unlink()
    with pytest.raises(UserError, match="apertus import --input"):
        load_model(tmp_path / "repository")
    save_model(tmp_path / "model", config, params)
    with pytest.raises(UserError, match="model_type None"):
        load_huggingface(tmp_path / "model")


def test_parameters_of_another_shape_are_refused_and_named(tmp_path, config, params):
    def folder_with(change):
        flat = dict(flatten_dict(params, sep="/"))
        change(flat)
        return unflatten_dict(flat, sep="/")

    cases = [
        (lambda flat: flat.pop("final_norm/scale"), "lack final_norm/scale"),
        (lambda flat: flat.update({"layers/gate/kernel": np.zeros(2)}), "layers/gate/kernel"),
        (lambda flat: flat.update({"final_norm/scale": np.zeros(2)}), r"final_norm/scale has shape \(2,\)"),
    ]
    for change, words in cases:
        with pytest.raises(UserError, match=words):
            save_model(tmp_path / "model", config, folder_with(change))
        assert not (tmp_path / "model").exists()


def test_config_that_does_not_fit_the_tensors_is_refused(tmp_path, config, params):
    save_model(tmp_path / "model", config, params)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 128}))
    with pytest.raises(UserError, match="config.json has .*bytes|config.json has changed"):
        load_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"layers/feedforward/down/kernel .* shape \(3, 112, 48\)"):
        load_model(tmp_path / "model", verify=False)


def test_tokenizer_that_does_not_fit_the_vocabulary_is_refused(tmp_path, config, tokenizer_folder):
    small = dataclasses.replace(config, vocab_size=64)
    with pytest.raises(UserError, match="token id .* vocab_size is 64"):
        save_model(tmp_path / "model", small, random_parameters(small), tokenizer_folder)
    with pytest.raises(UserError, match="tokenizer.json does not exist"):
        save_model(tmp_path / "model", config, random_parameters(config), tmp_path)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match="not a tokenizers file"):
        save_model(tmp_path / "model", config, random_parameters(config), tmp_path)
    assert not (tmp_path / "model").exists()

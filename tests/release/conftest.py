"""Random models and a small tokenizer that the tests of the release package share."""

import dataclasses

import pytest
import tokenizers

from apertus_jax.model import ModelConfig
from tests.model_parameters import random_parameters

SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=112,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=16,
        max_position_embeddings=256,
    )


@pytest.fixture(scope="session")
def params(config) -> dict:
    return random_parameters(config)


@pytest.fixture(scope="session")
def long_config(config) -> ModelConfig:
    return dataclasses.replace(
        config, num_heads=2, num_kv_heads=1, num_layers=2, rope_theta=12e6, max_position_embeddings=65536
    )


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A byte-level BPE with the four special tokens at their released ids."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIALS,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["der Bund und die Kantone", "the cantons and the people"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder

"""Random models and a small tokenizer that the tests of this room share."""

import dataclasses

import numpy as np
import pytest
import tokenizers

from apertus_jax.model import ModelConfig
from apertus_jax.model_folder import parameter_shapes, unflatten

SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]


def random_parameters(config: ModelConfig, seed: int = 0) -> dict:
    """Parameters well away from their initial values, so that every tensor matters."""
    random = np.random.default_rng(seed)
    flat = {}
    for path, shape in parameter_shapes(config).items():
        noise = random.standard_normal(shape).astype(np.float32)
        centre, spread = {"scale": (1.0, 0.1), "alpha_p": (0.2, 0.2), "alpha_n": (-1.0, 0.2)}.get(
            path.rsplit("/", 1)[1], (0.0, 0.08)
        )
        flat[path] = (centre + spread * noise).astype(np.float32)
    return unflatten(flat)


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

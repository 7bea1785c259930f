"""One small random model that the tests of inference share."""

import jax
import pytest

from apertus_jax.model import ModelConfig, init_parameters


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    # A wide initialisation, so that logits differ clearly and every part of the model matters.
    return ModelConfig(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=112,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        head_dim=16,
        max_position_embeddings=256,
        init_std=0.2,
    )


@pytest.fixture(scope="session")
def params(config):
    return init_parameters(config, jax.random.key(7))

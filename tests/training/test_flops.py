"""The analytic count of arithmetic against published figures and against the compiler's own count."""

import jax
import jax.numpy as jnp
import pytest

from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.training.flops import forward_flops_per_sequence, train_flops_per_token


@pytest.mark.parametrize(
    ("shape", "published"),
    [((131072, 4096, 21504, 32, 32, 8), 5.158e10), ((131072, 8192, 43008, 80, 64, 8), 4.4957e11)],
    ids=["8b", "70b"],
)
def test_flops_per_token_equal_the_papers_figures(shape, published):
    assert train_flops_per_token(ModelConfig(*shape), 4096) == pytest.approx(published, rel=2e-4)


def test_fifteen_trillion_tokens_of_70b_are_the_papers_total():
    config = ModelConfig(131072, 8192, 43008, 80, 64, 8)
    assert 15e12 * train_flops_per_token(config, 4096) == pytest.approx(6.74e24, rel=1e-3)


def test_analytic_count_agrees_with_the_compilers_count():
    config = ModelConfig(512, 64, 256, 1, 4, 2)
    tokens = jnp.zeros((1, 128), jnp.int32)
    params = jax.eval_shape(lambda: Transformer(config).init(jax.random.key(0), tokens))
    compiled = jax.jit(Transformer(config).apply).lower(params, tokens).compile()
    counted = compiled.cost_analysis()["flops"]
    assert forward_flops_per_sequence(config, 128) == pytest.approx(counted, rel=0.05)

"""Parts of the model from a module of one's own: offered like the rest, named by the model's configuration, checked."""

import sys

import jax
import numpy as np
import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration.modules import import_modules
from apertus_jax.errors import UserError
from apertus_jax.inference import generate_tokens
from apertus_jax.inference.unrolled import unknown_part
from apertus_jax.model import ModelConfig, Transformer, init_parameters
from apertus_jax.model.attention import check_added_attention
from apertus_jax.model.feedforwards import check_feedforward
from apertus_jax.model.model_folder import config_from_json, config_to_json
from apertus_jax.model.tensor_table import export_obstacle

BLOCKS = """
import flax.linen as nn
import jax
import jax.numpy as jnp
from apertus_jax.model import ModelConfig
from apertus_jax.model.attention import Implementation, plain_attention
from apertus_jax.model.transformer import Dense, FeedForward

__all__ = ["Squared", "Doubled", "windowed", "again"]


class Squared(nn.Module):
    '''Squared ReLU.'''

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden):
        config = self.config
        up = Dense((config.hidden_size, config.intermediate_size), ("embed", "mlp"), config.init_std, "BTD,DF->BTF")
        down = Dense((config.intermediate_size, config.hidden_size), ("mlp", "embed"), config.init_std, "BTF,FD->BTD")
        return down(jnp.square(nn.relu(up(hidden))))


class Doubled(FeedForward):
    '''The parameters of the published block, and another result.'''

    def __call__(self, hidden):
        return 2 * super().__call__(hidden)


def only_near(query, key, value, segment_ids):
    far = jnp.arange(query.shape[1]) // 8
    return plain_attention(query, key, value, jnp.broadcast_to(far[None], query.shape[:2]))


windowed = Implementation(only_near, platforms=("cpu",))
again = Implementation(lambda query, key, value, segment_ids: plain_attention(query, key, value, segment_ids))
"""
SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2)


@pytest.fixture
def blocks(lab):
    """The lab's folder, its module of blocks imported."""
    (lab / "my_lab" / "blocks.py").write_text(BLOCKS)
    import_modules(["my_lab.blocks"])
    return lab


def test_configuration_names_a_block_of_a_module(blocks, capsys):
    config = ModelConfig(**SIZES, feedforward="Squared", attention_implementation="again", init_std=0.3)
    assert config_to_json(config)["feedforward"] == "Squared"
    assert config_from_json(config_to_json(config), "here") == config
    assert "feedforward" not in config_to_json(ModelConfig(**SIZES))
    check_feedforward(config)
    check_added_attention("again", 32, 8)
    params = init_parameters(config, jax.random.key(0))
    assert sorted(params["layers"]["feedforward"]) == ["Dense_0", "Dense_1"]
    tokens = [5, 9, 2]
    forward = jax.jit(Transformer(config).apply)
    for _ in range(4):
        padded = np.asarray([tokens + [0] * (8 - len(tokens))])
        tokens.append(int(forward({"params": params}, padded)[0, len(tokens) - 1].argmax()))
    assert generate_tokens(config, params, [tokens[:3]], max_new_tokens=4) == [tokens[3:]]
    assert "its feedforward 'Squared' has no format" in export_obstacle(config)
    assert cli.main(["help", "Squared"]) == 0
    assert "of my_lab.blocks), as ModelConfig.feedforward = 'Squared'\n\nSquared ReLU." in capsys.readouterr().out


def test_block_of_published_parameters_is_not_exported(blocks):
    config = ModelConfig(**SIZES, feedforward="Doubled")
    params = init_parameters(config, jax.random.key(0))
    assert unknown_part(ModelConfig(**SIZES), params) is None
    assert unknown_part(config, params) == "the feedforward 'Doubled'"
    assert export_obstacle(ModelConfig(**SIZES)) is None and export_obstacle(config)


def test_unknown_block_names_the_flag():
    for field in ("feedforward", "attention_implementation"):
        with pytest.raises(UserError, match=f"ModelConfig.{field} = 'Squared' must be one of .*--import=MODULE"):
            ModelConfig(**SIZES, **{field: "Squared"})


@pytest.mark.parametrize("line", ["Squared.width = 2", "pretrain.model = @Squared()"])
def test_block_is_no_binding(blocks, line):
    with pytest.raises(UserError, match="Squared .*a model has it by ModelConfig.feedforward = 'Squared'"):
        configuration.parse([], [line])


def test_attention_that_computes_something_else_is_refused(blocks):
    with pytest.raises(UserError, match="'windowed' does not compute what 'xla' does; they must agree"):
        check_added_attention("windowed", 32, 8)


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        ("    width: int = 3", "has the fields config, width; a feed-forward block has config"),
        ("    def __call__(self, hidden, mask): return hidden", "fails with TypeError"),
        ("    def __call__(self, hidden): return hidden[..., :1]", r"gives float32\[1, 4, 1\] for float32\[1, 4, 32\]"),
        ("    def __call__(self, hidden): return jnp.cumsum(hidden, 1)", "looks at other positions"),
        (
            "    @nn.compact\n    def __call__(self, hidden):\n"
            "        return hidden * self.param('scale', nn.initializers.ones, (), jnp.bfloat16).astype('float32')",
            "has parameters of bfloat16",
        ),
        (
            "    @nn.compact\n    def __call__(self, hidden):\n"
            "        return hidden + self.variable('counts', 'seen', lambda: 1.0).value",
            "keeps counts",
        ),
    ],
    ids=["fields", "signature", "shape", "positions", "dtype", "state"],
)
def test_block_that_breaks_the_contract_is_one_line(lab, definition, told):
    text = BLOCKS.split("class Squared")[0].replace('"Squared", "Doubled", "windowed", "again"', '"Bad"')
    (lab / "lab_bad.py").write_text(f"{text}class Bad(nn.Module):\n    config: ModelConfig\n\n{definition}\n")
    with pytest.raises(UserError, match=told) as caught:
        import_modules(["lab_bad"])
        check_feedforward(ModelConfig(**SIZES, feedforward="Bad"))
    assert "\n" not in str(caught.value) and "Bad" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("__all__ = ['xla']\nxla = Implementation(plain_attention)", "xla is the name of another attention"),
        ("__all__ = ['mine']\nmine = Implementation('xla')", "mine is no attention Implementation of a function"),
        ("__all__ = ['mine']\nmine = Implementation(plain_attention, planned_as='x')", "planned_as='x' of mine"),
    ],
    ids=["taken", "no function", "plan"],
)
def test_offer_that_is_no_attention_is_one_line(lab, capsys, content, told):
    (lab / "lab_bad.py").write_text(
        f"from apertus_jax.model.attention import Implementation, plain_attention\n{content}\n"
    )
    assert cli.main(["plan", "--import=lab_bad"]) == 2
    line = capsys.readouterr().err
    assert told in line and line.startswith("apertus: --import=lab_bad: ") and line.count("\n") == 1
    assert "lab_bad" in sys.modules

"""Counts, names, shapes and initial values of the parameters."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer, abstract_parameters, count_parameters, init_parameters

# docs/reference/model_and_training.md §1.1 and §1.2: V, d, F, L, query heads, kv heads, head_dim → parameters, of them
# outside V·d tables.
SHAPES = {
    "test_1m": (2048, 128, 672, 2, 4, 2, 32, 967_428, 443_140),
    "30m": (16384, 384, 2016, 8, 6, 2, 64, 28_122_512, 15_539_600),
    "125m": (16384, 768, 4032, 12, 12, 4, 64, 118_378_776, 93_212_952),
    "350m": (32768, 1024, 5376, 20, 16, 4, 64, 339_783_208, 272_674_344),
    "1b": (131072, 2048, 12288, 16, 32, 8, 64, 1_510_019_104, 973_148_192),
    "3b": (131072, 3072, 12288, 28, 24, 8, 128, 3_624_060_984, 2_818_754_616),
    "8b": (131072, 4096, 21504, 32, 32, 8, 128, 8_053_338_176, 6_979_596_352),
    "70b": (131072, 8192, 43008, 80, 64, 8, 128, 70_599_864_480, 68_452_380_832),
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_counts_are_the_published_ones(name):
    vocab, embed, width, layers, heads, kv_heads, head_dim, total, outside_tables = SHAPES[name]
    config = ModelConfig(vocab, embed, width, layers, heads, kv_heads)
    assert config.head_dim == head_dim
    tree = abstract_parameters(config)
    assert count_parameters(tree) == total
    assert total - count_parameters([tree["embedder"], tree["lm_head"]]) == outside_tables


def test_leaves_have_their_contracted_shape_dtype_and_axes():
    V, D, F, L, N, K, H = 24, 32, 40, 3, 4, 2, 6
    tree = abstract_parameters(ModelConfig(V, D, F, L, N, K, head_dim=H))
    boxed = jax.tree.leaves_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in boxed}
    layers = {
        "attention_norm/scale": ((D,), ("norm",)),
        "attention/query/kernel": ((D, N, H), ("embed", "heads", "head_dim")),
        "attention/key/kernel": ((D, K, H), ("embed", "kv_heads", "head_dim")),
        "attention/value/kernel": ((D, K, H), ("embed", "kv_heads", "head_dim")),
        "attention/output/kernel": ((N, H, D), ("heads", "head_dim", "embed")),
        "attention/query_norm/scale": ((H,), ("norm",)),
        "attention/key_norm/scale": ((H,), ("norm",)),
        "feedforward_norm/scale": ((D,), ("norm",)),
        "feedforward/up/kernel": ((D, F), ("embed", "mlp")),
        "feedforward/down/kernel": ((F, D), ("mlp", "embed")),
        "feedforward/xielu/alpha_p": ((), ()),
        "feedforward/xielu/alpha_n": ((), ()),
    }
    expected = {f"layers/{name}": ((L, *shape), ("layers", *axes)) for name, (shape, axes) in layers.items()}
    expected["embedder/embedding"] = ((V, D), ("vocab", "embed"))
    expected["final_norm/scale"] = ((D,), ("norm",))
    expected["lm_head/kernel"] = ((D, V), ("embed", "vocab"))
    assert {name: (leaf.value.shape, leaf.names) for name, leaf in found.items()} == expected
    assert all(leaf.value.dtype == jnp.float32 for leaf in found.values())


def test_initial_values_have_the_published_spread():
    config = ModelConfig(2048, 192, 320, 3, 6, 2, head_dim=32)
    params = init_parameters(config, jax.random.key(0))
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    residual = 0.008944 / np.sqrt(2 * 3)
    for name, leaf in flat.items():
        if name.endswith("scale"):
            np.testing.assert_array_equal(leaf, 1.0)
        elif name.endswith("alpha_p"):
            np.testing.assert_allclose(leaf, 0.2033823208110246, rtol=1e-6)
        elif name.endswith("alpha_n"):
            np.testing.assert_allclose(leaf, -1.0502256128148464, rtol=1e-6)
        else:
            std = residual if name.endswith(("output/kernel", "down/kernel")) else 0.008944
            for layer in leaf if name.startswith("layers/") else [leaf]:
                # Five standard errors of a standard deviation.
                assert np.std(layer) == pytest.approx(std, rel=5 / np.sqrt(2 * layer.size)), name
                assert abs(np.mean(layer)) < 5 * std / np.sqrt(layer.size), name
            # A normal cut at two standard deviations would never reach three.
            assert np.max(np.abs(leaf)) > 3.2 * std, name
    query = flat["layers/attention/query/kernel"]
    assert not np.array_equal(query[0], query[1])
    assert not np.array_equal(flat["layers/attention/key/kernel"], flat["layers/attention/value/kernel"])


def test_init_returns_the_tree_boxed_with_axis_names():
    config = ModelConfig(32, 16, 24, 2, 2, 1)
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    boxed = jax.eval_shape(Transformer(config).init, jax.random.key(5), tokens)["params"]
    assert isinstance(boxed["lm_head"]["kernel"], nn.LogicallyPartitioned)
    plain = jax.eval_shape(lambda key: init_parameters(config, key), jax.random.key(5))
    assert jax.tree.map(lambda leaf: leaf.shape, nn.unbox(boxed)) == jax.tree.map(lambda leaf: leaf.shape, plain)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(remat_policy="some"), "remat_policy"),
        (dict(compute_dtype="float16"), "compute_dtype"),
        (dict(doc_attention="both"), "doc_attention"),
        (dict(xielu_alpha_n=0.5), "xielu_alpha_n"),
        (dict(num_kv_heads=3), "num_kv_heads"),
        (dict(head_dim=5), "head_dim"),
    ],
)
def test_impossible_configurations_are_refused_in_one_line(change, message):
    possible = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=4, num_kv_heads=4)
    with pytest.raises(UserError, match=message) as caught:
        ModelConfig(**(possible | change))
    assert "\n" not in str(caught.value)

"""Our model against transformers' ApertusForCausalLM on the same random weights, float32; golden forward pass."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import ApertusConfig, ApertusForCausalLM

from apertus_jax.model import ModelConfig, Transformer

# Where each tensor of a transformers state dict goes in our tree (docs/reference/model_and_training.md §12.1). Torch
# kernels are [out, in].
LAYER_NAMES = {
    "attention_layernorm.weight": ("attention_norm", "scale"),
    "feedforward_layernorm.weight": ("feedforward_norm", "scale"),
    "mlp.act_fn.alpha_n": ("feedforward", "xielu", "alpha_n"),
    "mlp.act_fn.alpha_p": ("feedforward", "xielu", "alpha_p"),
    "mlp.down_proj.weight": ("feedforward", "down", "kernel"),
    "mlp.up_proj.weight": ("feedforward", "up", "kernel"),
    "self_attn.k_norm.weight": ("attention", "key_norm", "scale"),
    "self_attn.k_proj.weight": ("attention", "key", "kernel"),
    "self_attn.o_proj.weight": ("attention", "output", "kernel"),
    "self_attn.q_norm.weight": ("attention", "query_norm", "scale"),
    "self_attn.q_proj.weight": ("attention", "query", "kernel"),
    "self_attn.v_proj.weight": ("attention", "value", "kernel"),
}
TOP_NAMES = {
    "lm_head.weight": ("lm_head", "kernel"),
    "model.embed_tokens.weight": ("embedder", "embedding"),
    "model.norm.weight": ("final_norm", "scale"),
}


def to_our_layout(config, path, array):
    """One torch tensor in the shape of our leaf, without the layer axis."""
    heads = {"query": config.num_heads, "key": config.num_kv_heads, "value": config.num_kv_heads}
    if path[-1] in ("alpha_p", "alpha_n"):
        return array.reshape(())
    if path[-1] != "kernel":
        return array
    if path[-2] in heads:
        return array.T.reshape(config.hidden_size, heads[path[-2]], config.head_dim)
    if path[-2] == "output":
        return array.T.reshape(config.num_heads, config.head_dim, config.hidden_size)
    return array.T


def convert(config, tensors):
    """{transformers name: array} → our nested parameter tree."""
    tree = {path: to_our_layout(config, path, tensors[name]) for name, path in TOP_NAMES.items()}
    for name, path in LAYER_NAMES.items():
        layers = [tensors[f"model.layers.{layer}.{name}"] for layer in range(config.num_layers)]
        tree["layers", *path] = np.stack([to_our_layout(config, path, array) for array in layers])
    return flax.traverse_util.unflatten_dict(tree)


def peers(num_heads, num_kv_heads, head_dim, attention="eager", num_layers=2, hidden_size=48, seed=0):
    """→ (our config, our parameters, the torch model) with the same random weights."""
    config = ModelConfig(
        vocab_size=96,
        hidden_size=hidden_size,
        intermediate_size=80,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rope_theta=12e6,
        attention_implementation="xla_blockwise",
    )
    # Without pad_token_id=None, torch would block the gradient of embedding row 3.
    their_config = ApertusConfig(
        vocab_size=96,
        hidden_size=hidden_size,
        intermediate_size=80,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        pad_token_id=None,
        dtype="float32",
        attn_implementation=attention,
        head_dim=head_dim,
    )
    model = ApertusForCausalLM(their_config).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            start = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(start + noise * (0.2 if parameter.ndim == 1 else 0.15))
        for layer in model.model.layers:
            layer.mlp.act_fn.beta.fill_(0.5)
            layer.mlp.act_fn.eps.fill_(-1e-6)
    return config, convert(config, {n: p.detach().numpy() for n, p in model.named_parameters()}), model


SHAPES = [(2, 2, 32), (4, 1, 64), (8, 1, 128)]


@pytest.mark.parametrize("num_heads, num_kv_heads, head_dim", SHAPES)
def test_logits_equal_transformers_up_to_8k_and_at_60k(num_heads, num_kv_heads, head_dim):
    config, params, model = peers(num_heads, num_kv_heads, head_dim)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 96, (2, 40)).astype(np.int32)
    apply = jax.jit(Transformer(config).apply)
    for limit, tolerance in ((8192, 5e-5), (65536, 1e-3)):
        positions = np.sort(rng.choice(limit, (2, 40), replace=False), axis=1).astype(np.int32)
        positions[:, -1] = limit - 1 - np.arange(2)
        # The mask is given, because transformers would read jumps in position as the borders of documents.
        mask = torch.full((40, 40), torch.finfo(torch.float32).min).triu(1).expand(2, 1, 40, 40)
        with torch.no_grad():
            expected = model(
                torch.tensor(tokens).long(), position_ids=torch.tensor(positions).long(), attention_mask=mask
            ).logits.numpy()
        error = np.max(np.abs(apply({"params": params}, tokens, positions) - expected)) / np.max(np.abs(expected))
        assert error <= tolerance, (limit, error)


def test_logits_equal_transformers_over_a_real_window_of_8192():
    config, params, model = peers(2, 1, 32, attention="sdpa", num_layers=1)
    tokens = np.random.default_rng(2).integers(0, 96, (1, 8192)).astype(np.int32)
    with torch.no_grad():
        expected = model(torch.tensor(tokens).long()).logits.numpy()
    logits = jax.jit(Transformer(config).apply)({"params": params}, tokens)
    assert np.max(np.abs(logits - expected)) / np.max(np.abs(expected)) <= 5e-5


@pytest.mark.parametrize(
    "num_heads, num_kv_heads, head_dim, implementation",
    [(*shape, "xla_blockwise") for shape in SHAPES] + [(*SHAPES[0], "xla")],
)
def test_gradient_of_every_tensor_equals_transformers(num_heads, num_kv_heads, head_dim, implementation):
    config, params, model = peers(num_heads, num_kv_heads, head_dim, seed=3)
    config = dataclasses.replace(config, attention_implementation=implementation)
    tokens = np.random.default_rng(4).integers(0, 96, (2, 65)).astype(np.int32)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    logits = model(torch.tensor(inputs).long()).logits
    torch.nn.functional.cross_entropy(logits.reshape(-1, 96), torch.tensor(labels).long().reshape(-1)).backward()
    expected = convert(config, {name: p.grad.numpy() for name, p in model.named_parameters()})

    def mean_loss(params):
        log_probabilities = jax.nn.log_softmax(Transformer(config).apply({"params": params}, inputs))
        return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1))

    ours = flax.traverse_util.flatten_dict(jax.jit(jax.grad(mean_loss))(params), sep="/")
    theirs = flax.traverse_util.flatten_dict(expected, sep="/")
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        layers = zip(ours[name], gradient, strict=True) if name.startswith("layers/") else [(ours[name], gradient)]
        for index, (our_layer, their_layer) in enumerate(layers):
            assert np.max(np.abs(their_layer)) > 0, name
            error = np.max(np.abs(our_layer - their_layer)) / np.max(np.abs(their_layer))
            assert error <= 1e-4, (name, index, error)


def golden_parameters(config):
    """Golden parameters: sines by alphabetical rank of the transformers name.

    Source: docs/reference/model_and_training.md §16.1.
    """
    shapes = {"q": config.num_heads, "k": config.num_kv_heads, "v": config.num_kv_heads}
    embed, width, head = config.hidden_size, config.intermediate_size, config.head_dim

    def shape(name):
        if name.startswith(("lm_head", "model.embed_tokens")):
            return config.vocab_size, embed
        if name.endswith(("alpha_p", "alpha_n")):
            return (1,)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            return (head,)
        if name.endswith("norm.weight"):
            return (embed,)
        if "_proj" not in name:
            raise AssertionError(name)
        if "up_proj" in name:
            return width, embed
        if "down_proj" in name:
            return embed, width
        if "o_proj" in name:
            return embed, config.num_heads * head
        return shapes[name.split("_proj")[0][-1]] * head, embed

    names = [*TOP_NAMES, *(f"model.layers.{i}.{name}" for i in range(config.num_layers) for name in LAYER_NAMES)]
    tensors = {}
    for rank, name in enumerate(sorted(names)):
        wave = np.sin(0.7 * np.arange(1, np.prod(shape(name)) + 1) + rank).reshape(shape(name))
        if name.endswith("norm.weight"):
            wave = 1 + 0.1 * wave
        elif name.endswith("alpha_p"):
            wave = 0.2 + 0.1 * wave
        elif name.endswith("alpha_n"):
            wave = -1 + 0.1 * wave
        else:
            wave = 0.25 * wave
        tensors[name] = wave.astype(np.float32)
    return convert(config, tensors)


@pytest.mark.parametrize("implementation", ["xla", "xla_blockwise"])
def test_golden_forward_pass(implementation):
    config = ModelConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=168,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        rope_theta=12e6,
        attention_implementation=implementation,
    )
    params = golden_parameters(config)
    ids = np.array([[1, 5, 9, 2, 33, 60, 7, 12]], np.int32)
    apply = jax.jit(Transformer(config).apply)
    logits = np.asarray(apply({"params": params}, ids, np.arange(8, dtype=np.int32)[None]))[0]
    np.testing.assert_allclose(logits[0, :4], [0.033842, 0.161514, -0.330245, 0.444538], atol=5e-5)
    np.testing.assert_allclose(logits[7, :4], [0.839624, -0.566282, 0.199592, 0.199999], atol=5e-5)
    # The sum runs over 512 logits: 5e-5 of each bounds it, and it is in fact met within 5e-5 relative.
    np.testing.assert_allclose(np.abs(logits).sum(), 266.33414, rtol=5e-5)
    assert logits.argmax(-1).tolist() == [58, 7, 11, 4, 14, 62, 11, 14]
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(8), np.roll(ids[0], -1)]
    np.testing.assert_allclose(losses[:7].mean(), 3.998708, atol=5e-5)
    far = np.array([[0, 1, 2, 3, 5000, 9000, 20000, 60000]], np.int32)
    logits = np.asarray(apply({"params": params}, ids, far))[0]
    np.testing.assert_allclose(logits[7, :4], [0.576657, -0.56577, 0.46162, -0.281374], atol=5e-5)
    np.testing.assert_allclose(np.abs(logits).sum(), 250.83266, rtol=5e-5)

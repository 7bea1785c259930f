"""Promises of sharding: sizes that fit or a clear line, names that decide, results that do not change."""

import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec
from rich.console import Console

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer
from apertus_jax.sharding import (
    MeshConfig,
    batch_sharding,
    check_batch,
    make_mesh,
    parameter_shardings,
    partition_spec,
    partition_table,
    resolve_rules,
    state_shardings,
    unbox,
    use_mesh,
    with_shardings,
)

MESHES = [
    ("one_device", MeshConfig(data=1), 1),
    ("data", MeshConfig(), 8),
    ("fsdp", MeshConfig(data=1, fsdp=8), 8),
    ("fsdp_tensor", MeshConfig(data=1, fsdp=4, tensor=2), 8),
    ("data_fsdp_tensor", MeshConfig(data=2, fsdp=2, tensor=2), 8),
    ("tpu_preset", MeshConfig(data=1, fsdp=2, tensor=4, rules="tpu"), 8),
    ("context", MeshConfig(data=2, fsdp=2, context=2), 8),
]


class TinyNetwork(nn.Module):
    """Embedding, one hidden layer and a head whose axes are named as in the real model."""

    @nn.compact
    def __call__(self, tokens):
        def parameter(name, axes, shape):
            return self.param(name, nn.with_logical_partitioning(nn.initializers.normal(0.1), axes), shape)

        hidden = parameter("embedding", ("vocab", "embed"), (32, 16))[tokens]
        hidden = nn.with_logical_constraint(hidden, ("activation_batch", "activation_length", "activation_embed"))
        up = jnp.einsum("BTD,DF->BTF", hidden, parameter("up", ("embed", "mlp"), (16, 24)))
        up = nn.with_logical_constraint(up, ("activation_batch", "activation_length", "activation_mlp"))
        hidden = jnp.einsum("BTF,FD->BTD", jnp.square(up), parameter("down", ("mlp", "embed"), (24, 16)))
        hidden = hidden * parameter("scale", ("norm",), (16,))
        return jnp.einsum("BTD,DV->BTV", hidden, parameter("head", ("embed", "vocab"), (16, 32)))


TINY_MODEL = ModelConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2)
TOKENS = np.arange(8 * 6, dtype=np.int32).reshape(8, 6) % 32


@pytest.fixture(scope="module")
def boxed_shapes():
    return jax.eval_shape(TinyNetwork().init, jax.random.key(0), TOKENS)["params"]


@pytest.fixture(scope="module")
def parameters():
    return unbox(TinyNetwork().init(jax.random.key(0), TOKENS)["params"])


def test_open_axis_takes_what_is_left():
    assert dict(make_mesh(MeshConfig(fsdp=2, tensor=2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2, "context": 1}


def test_mesh_axes_are_auto_so_that_linen_constraints_reshard():
    assert make_mesh(MeshConfig()).axis_types == (AxisType.Auto,) * 4


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (MeshConfig(fsdp=3), ("multiple of 3", "8")),
        (MeshConfig(data=2, fsdp=2), ("4 devices", "8")),
        (MeshConfig(data=16), ("16 devices", "8")),
        (MeshConfig(fsdp=-1), ("data and fsdp",)),
        (MeshConfig(tensor=0), ("tensor=0",)),
    ],
)
def test_mesh_that_does_not_divide_is_one_line_with_numbers(config, numbers):
    with pytest.raises(UserError) as raised:
        make_mesh(config)
    message = str(raised.value)
    assert all(number in message for number in numbers) and "\n" not in message


def test_batch_that_does_not_divide_is_refused_with_the_numbers():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, context=2))
    check_batch(mesh, 8, 16)
    with pytest.raises(UserError, match=r"batch of 6 .* over 4 devices \(data=2 × fsdp=2\)"):
        check_batch(mesh, 6)
    with pytest.raises(UserError, match="length of 15 .* context=2"):
        check_batch(mesh, 8, 15)


@pytest.mark.parametrize(
    ("preset", "embedding", "up", "residual"),
    [
        ("data", (None, None), (None, None), None),
        ("fsdp", (None, "fsdp"), ("fsdp", None), None),
        ("tensor", ("tensor", None), (None, "tensor"), None),
        ("cpu", (("tensor", "fsdp"), None), ("fsdp", "tensor"), None),
        ("gpu", (("tensor", "fsdp"), None), ("fsdp", "tensor"), None),
        ("tpu", ("tensor", "fsdp"), ("fsdp", "tensor"), "tensor"),
    ],
)
def test_presets_split_the_named_axes(preset, embedding, up, residual):
    rules = resolve_rules(preset, "cpu")
    assert partition_spec(("vocab", "embed"), rules) == PartitionSpec(*embedding)
    assert partition_spec(("embed", "mlp"), rules) == PartitionSpec(*up)
    assert partition_spec(("layers", "norm"), rules) == PartitionSpec(None, None)
    activations = partition_spec(("activation_batch", "activation_length", "activation_embed"), rules)
    assert activations == PartitionSpec(("data", "fsdp"), "context", residual)


def test_auto_preset_is_the_platform_s_and_overrides_change_one():
    config = MeshConfig(rule_overrides=[("kv_heads", None), ("embed", ["fsdp", "context"])])
    assert partition_spec(("activation_embed",), config.axis_rules("tpu")) == PartitionSpec("tensor")
    rules = config.axis_rules()
    expected = PartitionSpec(("fsdp", "context"), None, None)
    assert partition_spec(("embed", "kv_heads", "head_dim"), rules) == expected
    assert partition_spec(("embed", "heads", "head_dim"), rules)[1] == "tensor"


def test_mistakes_in_the_table_are_named():
    with pytest.raises(UserError, match="'fdsp' is not a preset"):
        resolve_rules("fdsp", "cpu")
    with pytest.raises(UserError, match="'model'"):
        resolve_rules((("embed", "model"),), "cpu")
    with pytest.raises(UserError, match="'kvheads'"):
        resolve_rules("cpu", "cpu", (("kvheads", None),))
    with pytest.raises(UserError, match="w has an axis named 'embd'"):
        partition_spec(("embd",), resolve_rules("cpu", "cpu"), "w")


def test_parameter_that_does_not_divide_is_named(boxed_shapes):
    mesh = make_mesh(MeshConfig(data=1, tensor=8))
    rules = resolve_rules("cpu", "cpu")
    parameter_shardings(boxed_shapes, mesh, rules)
    kernel = jax.ShapeDtypeStruct((16, 2, 4), jnp.float32)
    narrow = {"attention": {"key": nn.LogicallyPartitioned(kernel, ("embed", "kv_heads", "head_dim"))}}
    with pytest.raises(UserError, match=r"attention/key of shape \(16, 2, 4\).*axis 1 has size 2.*tensor=8"):
        parameter_shardings(narrow, mesh, rules)


def test_moments_are_split_like_parameters_and_scalars_whole(boxed_shapes):
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    rules = resolve_rules("cpu", "cpu")
    shapes = unbox(boxed_shapes)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
    state = {
        "params": shapes,
        "optimizer": jax.eval_shape(optimizer.init, shapes),
        "samples": jax.ShapeDtypeStruct((2,), jnp.uint32),
        "step": np.int32(0),
    }
    shardings = state_shardings(state, boxed_shapes, mesh, rules)
    expected = parameter_shardings(boxed_shapes, mesh, rules)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    assert shardings["params"] == expected
    moments = shardings["optimizer"][1]
    assert moments.mu == expected and moments.nu == expected
    assert moments.count.is_fully_replicated and shardings["samples"].is_fully_replicated
    assert expected["embedding"].spec == PartitionSpec(("tensor", "fsdp"), None)
    assert expected["up"].spec == PartitionSpec("fsdp", "tensor")


def test_leaf_of_another_shape_is_not_split_like_its_namesake(boxed_shapes, caplog):
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    state = {"rows": {"up": jax.ShapeDtypeStruct((16, 1), jnp.float32)}}
    shardings = state_shardings(state, {"params": boxed_shapes}, mesh, resolve_rules("cpu", "cpu"))
    assert shardings["rows"]["up"].is_fully_replicated
    assert "rows/up" in caplog.text


@pytest.mark.parametrize(("config", "num_devices"), [mesh[1:] for mesh in MESHES], ids=[mesh[0] for mesh in MESHES])
def test_outputs_are_same_on_every_mesh(config, num_devices, boxed_shapes, parameters):
    mesh = make_mesh(config, jax.devices()[:num_devices])
    rules = config.axis_rules()
    expected = TinyNetwork().apply({"params": parameters}, TOKENS)
    shardings = parameter_shardings(boxed_shapes, mesh, rules)
    placed = jax.device_put(parameters, shardings)
    described = with_shardings(boxed_shapes, shardings)
    for leaf, wanted in zip(jax.tree.leaves(described), jax.tree.leaves(placed), strict=True):
        assert leaf.sharding == wanted.sharding and leaf.shape == wanted.shape
    with use_mesh(mesh, rules):
        logits = jax.jit(TinyNetwork().apply)({"params": placed}, jax.device_put(TOKENS, batch_sharding(mesh)))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-9)
    largest = max(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(placed))
    split = config.fsdp * config.tensor
    assert largest <= 32 * 16 // split


def test_constraints_on_named_axes_take_effect_under_the_mesh():
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))

    def constrain(value):
        return nn.with_logical_constraint(value + 1, ("activation_batch", "activation_length", "activation_mlp"))

    with use_mesh(mesh, resolve_rules("cpu", "cpu")):
        constrained = jax.jit(constrain)(jnp.zeros((8, 4, 6)))
    assert constrained.sharding.shard_shape((8, 4, 6)) == (2, 4, 3)


@pytest.mark.parametrize("preset", ["gpu", "tpu"])
def test_embedding_lookup_never_gathers_the_whole_batch(preset, capfd):
    config = MeshConfig(data=2, fsdp=2, tensor=2, rules=preset)
    mesh, rules = make_mesh(config), config.axis_rules()
    model = Transformer(TINY_MODEL)
    boxed = jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"]
    shardings = parameter_shardings(boxed, mesh, rules)
    places = (shardings, batch_sharding(mesh))
    gradient = jax.grad(lambda params, tokens: jnp.square(model.apply({"params": params}, tokens)).sum())
    with use_mesh(mesh, rules):
        jax.jit(gradient, in_shardings=places, out_shardings=shardings).lower(unbox(boxed), TOKENS).compile()
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


def test_real_model_has_same_logits_on_a_mesh():
    model = Transformer(TINY_MODEL)
    boxed = jax.eval_shape(model.init, jax.random.key(0), TOKENS)["params"]
    params = unbox(jax.jit(model.init)(jax.random.key(0), TOKENS)["params"])
    expected = jax.jit(model.apply)({"params": params}, TOKENS)
    config = MeshConfig(data=1, fsdp=4, tensor=2)
    mesh, rules = make_mesh(config), config.axis_rules()
    with use_mesh(mesh, rules):
        placed = jax.device_put(params, parameter_shardings(boxed, mesh, rules))
        logits = jax.jit(model.apply)({"params": placed}, jax.device_put(TOKENS, batch_sharding(mesh)))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6 * float(jnp.abs(expected).max()))


def test_table_for_people_shows_shape_and_partition(boxed_shapes):
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(partition_table(boxed_shapes, mesh, resolve_rules("cpu", "cpu")))
    text = console.export_text()
    row = next(line for line in text.splitlines() if " embedding " in line)
    assert "(32, 16)" in row and "tensor×fsdp, ·" in row and "vocab, embed" in row

"""Exported repositories compute the same thing in transformers, and come back bit for bit."""

import dataclasses
import functools
import json
import shutil
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tokenizers
import torch
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict

from apertus_jax.errors import UserError
from apertus_jax.model import ModelConfig, Transformer, tensor_table
from apertus_jax.model.model_folder import load_model
from apertus_jax.model.parameters import count_parameters, parameter_shapes, parameter_specs
from apertus_jax.model.tensor_table import LAYER, TENSOR_TABLE, TensorRow, published_tensors
from apertus_jax.release import export, huggingface, import_huggingface, load_huggingface, save_huggingface
from apertus_jax.storage import artifacts
from tests.model_parameters import random_parameters


def as_bits(array) -> np.ndarray:
    return np.asarray(array).reshape(-1).view(np.uint8)


def assert_same_bits(left: dict, right: dict) -> None:
    left, right = flatten_dict(left, sep="/"), flatten_dict(right, sep="/")
    assert left.keys() == right.keys()
    for name in left:
        assert np.shape(left[name]) == np.shape(right[name]), name
        assert left[name].dtype == right[name].dtype, name
        np.testing.assert_array_equal(as_bits(left[name]), as_bits(right[name]), err_msg=name)


def read_tensors(folder) -> dict:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="np") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return found


def load_in_transformers(folder, **options):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, **options
    )
    return model.eval(), report


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, tokens, positions):
    return Transformer(config).apply({"params": params}, tokens, positions)


def our_logits(config, params, tokens, positions=None):
    tokens = np.asarray(tokens, np.int32)
    positions = (
        np.arange(tokens.shape[1], dtype=np.int32)[None] if positions is None else np.asarray(positions, np.int32)
    )
    return np.asarray(apply(config, params, tokens, positions))


def their_logits(model, tokens, positions=None):
    with torch.no_grad():
        positions = None if positions is None else torch.tensor(positions)
        return model(torch.tensor(tokens), position_ids=positions).logits.numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, config, params, tokenizer_folder):
    folder = tmp_path_factory.mktemp("export") / "repository"
    save_huggingface(folder, config, params, tokenizer=tokenizer_folder)
    return folder


@pytest.fixture(scope="module")
def peer(exported):
    return load_in_transformers(exported)


def test_transformers_reports_no_missing_or_unexpected_tensor(peer):
    _, report = peer
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]


def test_published_names_and_shapes_are_those_of_transformers(peer, config):
    theirs = {name: tuple(tensor.shape) for name, tensor in peer[0].state_dict().items()}
    assert {tensor.name: tensor.shape for tensor in published_tensors(config).values()} == theirs


def test_every_parameter_has_exactly_one_row(config):
    assert sorted(row.path for row in TENSOR_TABLE) == sorted(parameter_shapes(config))
    assert len({row.name for row in TENSOR_TABLE}) == len(TENSOR_TABLE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [row for row in rows if row.path != "lm_head/kernel"], "lm_head/kernel has no row in"),
        (
            lambda rows: [*rows, TensorRow("gate", "layers/gate/kernel", ("mlp",))],
            "it lacks the parameter layers/gate/kernel",
        ),
        (lambda rows: [dataclasses.replace(rows[0], groups=("embed",)), *rows[1:]], "embedder/embedding has axes"),
        (lambda rows: [dataclasses.replace(rows[-1], name=LAYER + "head"), *rows[:-1]], "lm_head/kernel has axes"),
    ],
    ids=["no row", "no parameter", "an axis left out", "layers where there are none"],
)
def test_rows_that_are_not_the_parameters_are_an_obstacle(config, params, change, words, tmp_path, monkeypatch):
    assert tensor_table.export_obstacle(config) is None
    other = dataclasses.replace(tensor_table.APERTUS, rows=tuple(change(TENSOR_TABLE)))
    monkeypatch.setattr(tensor_table, "published_format", lambda config: other)
    assert words in tensor_table.export_obstacle(config)
    with pytest.raises(UserError, match=f"cannot be exported to Hugging Face: .*{words}"):
        save_huggingface(tmp_path / "repository", config, params)
    assert not (tmp_path / "repository").exists()


def test_logits_agree_with_transformers_in_float32(peer, config, params):
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (8, 96))
    ours, theirs = our_logits(config, params, tokens), their_logits(peer[0], tokens)
    assert np.abs(ours - theirs).max() <= 5e-5 * np.abs(theirs).max()
    assert np.abs(ours - theirs).mean() <= 1e-5
    top = np.sort(theirs, axis=-1)
    clear = top[..., -1] - top[..., -2] > 1e-3
    np.testing.assert_array_equal(ours.argmax(-1)[clear], theirs.argmax(-1)[clear])


def test_loss_on_fixed_tokens_agrees_with_transformers(peer, config, params):
    tokens = np.random.default_rng(2).integers(0, config.vocab_size, (2, 64))
    logits = our_logits(config, params, tokens)[:, :-1].astype(np.float64)
    picked = np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    ours = (np.log(np.exp(logits).sum(-1)) - picked).mean()
    with torch.no_grad():
        theirs = peer[0](torch.tensor(tokens), labels=torch.tensor(tokens)).loss.item()
    assert abs(ours - theirs) <= 1e-5


def test_logits_agree_beyond_8192_positions(tmp_path, long_config):
    params = random_parameters(long_config, 3)
    save_huggingface(tmp_path / "repository", long_config, params)
    model, _ = load_in_transformers(tmp_path / "repository")
    tokens = np.random.default_rng(3).integers(0, long_config.vocab_size, (1, 48))
    positions = np.sort(np.random.default_rng(4).choice(60_001, 47, replace=False))[None]
    positions = np.concatenate([positions, [[60_000]]], axis=1)
    theirs = their_logits(model, tokens, positions)
    assert np.abs(our_logits(long_config, params, tokens, positions) - theirs).max() <= 1e-3


@pytest.mark.slow
def test_logits_agree_on_a_sequence_longer_than_8192(tmp_path, long_config):
    params = random_parameters(long_config, 5)
    save_huggingface(tmp_path / "repository", long_config, params)
    model, _ = load_in_transformers(tmp_path / "repository", attn_implementation="sdpa")
    tokens = np.random.default_rng(5).integers(0, long_config.vocab_size, (1, 8400))
    assert np.abs(our_logits(long_config, params, tokens) - their_logits(model, tokens)).max() <= 1e-3


def test_golden_forward_pass_survives_the_export(tmp_path):
    """docs/reference/model_and_training.md §16.1: weights by formula over the sorted published names."""
    config = ModelConfig(64, 32, 168, 2, 4, 2, rope_theta=12e6, max_position_embeddings=65536)
    tensors = {name: tensor for name, tensor in published_tensors(config).items() if tensor.row}
    flat = {}
    for number, name in enumerate(sorted(tensors)):
        tensor = tensors[name]
        size = int(np.prod(tensor.shape))
        wave = np.sin(0.7 * np.arange(1, size + 1) + number).reshape(tensor.shape)
        if name.endswith("norm.weight"):
            wave = 1 + 0.1 * wave
        else:
            wave = {"alpha_p": 0.2 + 0.1 * wave, "alpha_n": -1 + 0.1 * wave}.get(name.rsplit(".", 1)[1], 0.25 * wave)
        split = wave.astype(np.float32).reshape(tensor.split_shape(config))
        axes = [axis for axis in parameter_specs(config)[tensor.row.path].axes if axis != "layers"]
        own = split.transpose([tensor.row.order.index(axis) for axis in axes])
        flat.setdefault(tensor.row.path, []).append(own)
    stacked = {path: np.stack(parts) if path.startswith("layers/") else parts[0] for path, parts in flat.items()}
    save_huggingface(tmp_path / "repository", config, unflatten_dict(stacked, sep="/"))
    loaded_config, loaded = load_huggingface(tmp_path / "repository")
    tokens = [[1, 5, 9, 2, 33, 60, 7, 12]]
    logits = our_logits(loaded_config, loaded, tokens)[0]
    np.testing.assert_allclose(logits[0, :4], [0.033842, 0.161514, -0.330245, 0.444538], atol=5e-5)
    np.testing.assert_allclose(logits[7, :4], [0.839624, -0.566282, 0.199592, 0.199999], atol=5e-5)
    assert logits.argmax(-1).tolist() == [58, 7, 11, 4, 14, 62, 11, 14]
    far = our_logits(loaded_config, loaded, tokens, [[0, 1, 2, 3, 5000, 9000, 20000, 60000]])[0]
    np.testing.assert_allclose(far[7, :4], [0.576657, -0.56577, 0.46162, -0.281374], atol=5e-5)


def test_ours_to_huggingface_to_ours_is_bit_exact(exported, config, params):
    loaded_config, loaded = load_huggingface(exported)
    assert loaded_config == config
    assert_same_bits(loaded, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_huggingface_to_ours_to_huggingface_is_bit_exact(tmp_path, config, dtype):
    torch.manual_seed(0)
    their_config = transformers.ApertusConfig(
        vocab_size=config.vocab_size,
        hidden_size=48,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    model = transformers.ApertusForCausalLM(their_config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs")
    loaded_config, loaded = load_huggingface(tmp_path / "theirs")
    save_huggingface(tmp_path / "back", loaded_config, loaded, dtype=dtype)
    assert_same_bits(read_tensors(tmp_path / "back"), read_tensors(tmp_path / "theirs"))


def test_bfloat16_export_agrees_with_transformers_in_bfloat16(tmp_path, config, params):
    save_huggingface(tmp_path / "repository", config, params, dtype="bfloat16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "repository").eval()
    assert model.dtype == torch.bfloat16
    loaded_config, loaded = load_huggingface(tmp_path / "repository")
    tokens = np.random.default_rng(6).integers(0, config.vocab_size, (8, 64))
    ours = our_logits(loaded_config, loaded, tokens)
    theirs = their_logits(model.float(), tokens)
    # Both sides hold the same rounded weights, so computing in float32 must agree as closely as before.
    assert np.abs(ours - theirs).max() <= 5e-5 * np.abs(theirs).max()
    in_bfloat16 = our_logits(dataclasses.replace(loaded_config, compute_dtype="bfloat16"), loaded, tokens)
    top = np.sort(theirs, axis=-1)
    clear = top[..., -1] - top[..., -2] > 0.05 * np.abs(theirs).max()
    assert (in_bfloat16.argmax(-1) == theirs.argmax(-1))[clear].mean() >= 0.99


def test_sharded_export_is_one_checkpoint(tmp_path, config, params):
    save_huggingface(tmp_path / "repository", config, params, shard_bytes=60_000)
    files = sorted(path.name for path in (tmp_path / "repository").glob("*.safetensors"))
    index = json.loads((tmp_path / "repository" / "model.safetensors.index.json").read_text())
    tensors = read_tensors(tmp_path / "repository")
    assert len(files) > 3 and files == sorted(set(index["weight_map"].values()))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["metadata"]["total_parameters"] == count_parameters(params) + 2 * config.num_layers
    assert index["weight_map"].keys() == tensors.keys()
    with safetensors.safe_open(tmp_path / "repository" / files[0], framework="np") as file:
        assert file.metadata() == {"format": "pt"}
    assert_same_bits(load_huggingface(tmp_path / "repository")[1], params)
    model, report = load_in_transformers(tmp_path / "repository")
    assert not report["missing_keys"] and not report["unexpected_keys"]
    np.testing.assert_array_equal(model.lm_head.weight.detach().numpy(), params["lm_head"]["kernel"].T)


def test_parameters_sharded_over_8_devices_export_the_same_files(tmp_path, exported, config, params):
    mesh = jax.make_mesh((2, 4), ("layers", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    flat = flatten_dict(params, sep="/")
    placed = {}
    for path, leaf in flat.items():
        axes = [
            name if size % mesh.shape[name] == 0 else None
            for name, size in zip(["tensor"], leaf.shape[-1:], strict=False)
        ]
        spec = jax.P(*[None] * (leaf.ndim - 1), *axes)
        placed[path] = jax.device_put(leaf, jax.sharding.NamedSharding(mesh, spec))
    save_huggingface(tmp_path / "repository", config, unflatten_dict(placed, sep="/"))
    assert artifacts.digest_file(tmp_path / "repository" / "model.safetensors") == artifacts.digest_file(
        exported / "model.safetensors"
    )


def test_tokenizer_loads_in_transformers_and_encodes_the_same(exported, tokenizer_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 3)
    ours = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    for text in ["the cantons", "Zürich  \n — 数学 🏔", "</s> inside", "हिन्दी और اردو"]:
        expected = ours.encode(text, add_special_tokens=False).ids
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
        assert tokenizer.decode(expected, skip_special_tokens=True) == ours.decode(expected)


def test_end_of_document_stops_base_models_end_of_turn_chats(exported, tmp_path, config, params):
    generation = transformers.GenerationConfig.from_pretrained(exported)
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 3)
    assert not generation.do_sample
    save_huggingface(tmp_path / "chat", config, params, chat=True)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "chat")
    assert generation.eos_token_id == 68 and generation.do_sample
    assert (generation.temperature, generation.top_p) == (0.8, 0.9)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "chat").eos_token_id == 68


def test_chat_model_needs_its_end_of_turn_token(tmp_path, config, params, tokenizer_folder):
    with pytest.raises(UserError, match="assistant_end"):
        save_huggingface(tmp_path / "chat", config, params, tokenizer=tokenizer_folder, chat=True)
    assert not (tmp_path / "chat").exists()


def test_import_and_export_go_through_the_model_folder(tmp_path, exported, config, params):
    import_huggingface(exported, tmp_path / "model")
    loaded_config, loaded = load_model(tmp_path / "model")
    assert loaded_config == config
    assert_same_bits(loaded, params)
    export(tmp_path / "model", tmp_path / "again", dtype="float32")
    for name in (
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name


def test_complete_export_is_never_overwritten(exported, config, params):
    with pytest.raises(UserError, match="already complete"):
        save_huggingface(exported, config, params)


def test_half_written_export_is_refused(tmp_path, exported):
    folder = tmp_path / "repository"
    shutil.copytree(exported, folder)
    (folder / artifacts.COMMIT_MARKER).rename(folder / artifacts.BUILDING_MARKER)
    with pytest.raises(UserError, match="half-written"):
        load_huggingface(folder)


def test_killed_export_leaves_no_config_for_others_to_find(tmp_path, config, params, monkeypatch):
    """What a reader sees when the process dies while weights are written (no clean-up runs)."""
    seen = []

    def die(root, *_, **__):
        seen.extend(path.name for path in root.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface, "write_tensors", die)
    with pytest.raises(KeyboardInterrupt):
        save_huggingface(tmp_path / "repository", config, params)
    assert seen == [artifacts.BUILDING_MARKER]


def rewrite(folder, change) -> None:
    tensors = read_tensors(folder)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BETA = "model.layers.1.mlp.act_fn.beta"
UP = "model.layers.2.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(BETA), [BETA, "lacks"]),
        (lambda tensors: tensors.pop(UP), [UP, "lacks"]),
        (lambda tensors: tensors.update(gate=np.zeros(3, np.float32)), ["gate", "unknown"]),
        (lambda tensors: tensors.update({UP: tensors[UP][:-1]}), [UP, "(111, 48)", "(112, 48)"]),
        (lambda tensors: tensors.update({BETA: np.array(0.25, np.float32)}), [BETA, "0.25", "0.5"]),
        (lambda tensors: tensors.update({UP: np.zeros((112, 48), np.int8)}), [UP, "I8"]),
    ],
)
def test_wrong_tensors_are_named_in_one_line(tmp_path, config, params, change, words):
    folder = tmp_path / "repository"
    save_huggingface(folder, config, params)
    rewrite(folder, change)
    with pytest.raises(UserError) as caught:
        load_huggingface(folder)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_transformers_misses_constants_that_are_not_written(tmp_path, config, params):
    """Why beta and eps are always written: without them a reader computes with whatever memory held."""
    save_huggingface(tmp_path / "repository", config, params)
    rewrite(tmp_path / "repository", lambda tensors: tensors.pop(BETA))
    _, report = load_in_transformers(tmp_path / "repository")
    assert set(report["missing_keys"]) == {BETA}


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_truncated_file_is_named_in_one_line(tmp_path, config, params, keep):
    folder = tmp_path / "repository"
    save_huggingface(folder, config, params)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(UserError, match="model.safetensors is truncated or damaged") as caught:
        load_huggingface(folder)
    assert "\n" not in str(caught.value)


def test_lost_or_foreign_shard_is_named(tmp_path, config, params):
    folder = tmp_path / "repository"
    save_huggingface(folder, config, params, shard_bytes=60_000)
    shard = sorted(folder.glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        load_huggingface(folder)
    shard.write_bytes(content)
    safetensors.numpy.save_file({"other": np.zeros(2, np.float32)}, shard)
    with pytest.raises(UserError, match=shard.name):
        load_huggingface(folder)


def test_folder_without_weights_or_config_is_refused(tmp_path, config, params):
    with pytest.raises(UserError, match="config.json does not exist"):
        load_huggingface(tmp_path)
    save_huggingface(tmp_path / "repository", config, params)
    (tmp_path / "repository" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="neither model.safetensors nor"):
        load_huggingface(tmp_path / "repository")


def test_wrong_dtype_and_wrong_parameters_leave_nothing_behind(tmp_path, config, params):
    with pytest.raises(UserError, match="float16"):
        save_huggingface(tmp_path / "repository", config, params, dtype="float16")
    other = dataclasses.replace(config, intermediate_size=113)
    with pytest.raises(UserError, match=r"layers/feedforward/down/kernel has shape \(3, 112, 48\)"):
        save_huggingface(tmp_path / "repository", other, params)
    assert not (tmp_path / "repository").exists()


def test_bfloat16_rounds_to_nearest_even(tmp_path, config, params):
    save_huggingface(tmp_path / "repository", config, params, dtype="bfloat16")
    stored = read_tensors(tmp_path / "repository")["model.embed_tokens.weight"]
    expected = torch.tensor(params["embedder"]["embedding"]).to(torch.bfloat16).view(torch.int16).numpy()
    assert stored.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(stored.view(np.int16), expected)


def test_memory_holds_one_shard_in_writing_one_tensor_in_reading(tmp_path):
    config = ModelConfig(
        vocab_size=512, hidden_size=256, intermediate_size=1344, num_layers=6, num_heads=4, num_kv_heads=2
    )
    params = random_parameters(config)
    total, shard = 4 * count_parameters(params), 3_000_000
    largest = 4 * 256 * 1344
    tracemalloc.start()
    try:
        save_huggingface(tmp_path / "repository", config, params, shard_bytes=shard)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        load_huggingface(tmp_path / "repository")
        read = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # Digesting reads files in pieces of 4 MB.
    assert written < 1.2 * shard + 2 * largest + artifacts.READ_BYTES < 0.6 * total
    assert read < total + 3 * largest < 1.3 * total

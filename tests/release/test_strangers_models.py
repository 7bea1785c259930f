"""Models that someone else made are read for what they are, or refused in one line before memory is taken for them."""

import json
import os
import shutil
import stat
import struct

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from flax.traverse_util import flatten_dict

from apertus_jax.errors import UserError
from apertus_jax.model.model_folder import load_model, save_model
from apertus_jax.release import load_huggingface, save_huggingface
from apertus_jax.release.import_command import import_huggingface
from apertus_jax.storage import artifacts
from apertus_jax.storage.tensors.reader import TensorReader, check_memory
from apertus_jax.storage.tensors.writer import TensorSpec, write_tensors
from apertus_jax.storage.tokenizer_files import check_tokenizer, library_tokenizer, read_vocabulary

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, config, params, tokenizer_folder):
    folder = tmp_path_factory.mktemp("exported") / "repository"
    save_huggingface(folder, config, params, tokenizer=tokenizer_folder)
    (folder / artifacts.COMMIT_MARKER).unlink()  # as anybody's repository
    return folder


@pytest.fixture
def repository(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "repository")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, config, params):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, config, params)
    return folder


def set_config(repository, name="config.json", **changes):
    values = json.loads((repository / name).read_text()) | changes
    (repository / name).write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def tensors_of(repository):
    return safetensors.numpy.load_file(repository / WEIGHTS)


def set_tensors(repository, tensors):
    safetensors.numpy.save_file(tensors, repository / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps = 'tiny'"),
        ({"rms_norm_eps": 0}, "rms_norm_eps = 0"),
        ({"initializer_range": "small"}, "initializer_range='small'"),
        ({"initializer_range": -1}, "initializer_range=-1"),
        ({"dtype": 32}, "dtype=32"),
        ({"bos_token_id": "<s>"}, "bos_token_id='<s>'"),
        ({"eos_token_id": [2, 10**30]}, "eos_token_id="),
        ({"pad_token_id": -2}, "pad_token_id=-2"),
        ({"rope_parameters": ..., "rope_theta": float("nan")}, "NaN"),
        ({"rope_parameters": ..., "rope_theta": "12e6"}, "rope_theta='12e6'"),
        ({"rope_parameters": ..., "rope_theta": 0}, "rope_theta = 0"),
        ({"rope_parameters": ..., "rope_scaling": [8]}, "rotary settings"),
        ({"rope_scaling": ..., "rope_parameters": {"rope_type": "llama3", "factor": True}}, "without low_freq_factor"),
        ({"num_hidden_layers": 10**8}, "holds 45 tensors where num_hidden_layers=100000000"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers = "),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers='3'"),
        ({"num_hidden_layers": 2}, "unknown"),
        ({"num_hidden_layers": ...}, "no num_hidden_layers"),
        ({"num_hidden_layers": 4}, "lacks the tensor"),
        ({"hidden_size": 10**9}, "parameters|has shape"),
        ({"vocab_size": 300}, "has shape"),
        ({"num_key_value_heads": 0}, "num_key_value_heads = 0"),
        ({"num_key_value_heads": 4}, "not a multiple"),
        ({"num_key_value_heads": 2.0}, "num_key_value_heads = 2.0"),
        ({"head_dim": 15}, "must be even"),
        ({"head_dim": "16"}, "head_dim = '16'"),
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"attention_bias": 0}, "attention_bias"),
        ({"apertus_jax": [1]}, "apertus_jax"),
        ({"apertus_jax": {"xielu_beta": None}}, "xielu_beta"),
        ({"apertus_jax": {"norm_epsilon": 1}}, "unknown field"),
        ({"model_type": ["apertus"]}, "model_type"),
    ],
)
def test_config_of_a_stranger_is_refused_by_name(repository, tmp_path, changes, words):
    set_config(repository, **changes)
    with pytest.raises(UserError, match=words) as caught:
        import_huggingface(repository, tmp_path / "model")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(repository, tmp_path, value):
    tensors = tensors_of(repository)
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    set_tensors(repository, tensors)
    with pytest.raises(UserError, match=r"model.layers.1.mlp.up_proj.weight .* at \[5, 7\]"):
        load_huggingface(repository)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_sound_weights_of_other_types_are_read_exactly(repository, config, params, dtype):
    narrow = {name: value.astype(np.float16) for name, value in tensors_of(repository).items()}
    set_tensors(repository, {name: value.astype(dtype) for name, value in narrow.items()})
    found = flatten_dict(load_huggingface(repository)[1], sep="/")
    for path, leaf in flatten_dict(params, sep="/").items():
        np.testing.assert_array_equal(found[path], leaf.astype(np.float16).astype(np.float32))


def test_float64_beyond_float32_is_rounded_and_told(repository, caplog):
    tensors = {name: value.astype(np.float64) for name, value in tensors_of(repository).items()}
    tensors["model.norm.weight"] *= 1 + 1e-12
    set_tensors(repository, tensors)
    found = flatten_dict(load_huggingface(repository)[1], sep="/")["final_norm/scale"]
    np.testing.assert_array_equal(found, tensors["model.norm.weight"].astype(np.float32))
    assert "float64 values that float32 lacks (tensor model.norm.weight)" in caplog.text
    tensors["model.norm.weight"][3] = 1e300
    set_tensors(repository, tensors)
    with pytest.raises(UserError, match=r"model.norm.weight .* 1e\+300 at \[3\]"):
        load_huggingface(repository)


def test_constants_of_another_activation_are_refused(repository):
    tensors = tensors_of(repository)
    tensors["model.layers.0.mlp.act_fn.eps"] = np.asarray(-2e-6, np.float32)
    set_tensors(repository, tensors)
    with pytest.raises(UserError, match="act_fn.eps .* where xIELU has -1e-06"):
        load_huggingface(repository)


def header_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_header(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def double(path):
    header, data = header_of(path)
    (name, first), *rest = [(key, value) for key, value in header.items() if key != "__metadata__"]
    pairs = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in [(name, first), (name, first), *rest]]
    write_header(path, ("{" + ",".join(pairs) + "}").encode(), data)


def edit(name, **changes):
    def damage(path):
        header, data = header_of(path)
        header[name] |= changes
        write_header(path, header, data)

    return damage


def lie_about_length(path):
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


@pytest.mark.parametrize(
    "damage",
    [
        double,
        lie_about_length,
        edit("lm_head.weight", data_offsets=[4, 61444]),
        edit("lm_head.weight", dtype="I32"),
        edit("lm_head.weight", dtype="F8_E4M3"),
        edit("lm_head.weight", shape=[2**40, 2**40]),
        edit("lm_head.weight", shape=[48, 320]),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(path.read_bytes() + b"more"),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to(path.name)),
    ],
)
def test_tensor_files_that_lie_are_refused_in_one_line(repository, damage):
    damage(repository / WEIGHTS)
    with pytest.raises(UserError) as caught:
        load_huggingface(repository)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "nowhere.safetensors", "a\0b", "x" * 400, 5, None]
)
def test_index_that_leads_elsewhere_is_refused(repository, shard):
    names = list(tensors_of(repository))
    (repository / WEIGHTS).rename(repository / "part.safetensors")
    index = {"weight_map": dict.fromkeys(names, "part.safetensors") | {names[0]: shard}}
    (repository / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="shard|not in the folder"):
        load_huggingface(repository)


@pytest.mark.parametrize("change", ["extra", "missing"])
def test_tensor_too_many_or_too_few_is_named(repository, change):
    tensors = tensors_of(repository)
    if change == "extra":
        tensors["model.extra.weight"] = np.zeros(3, np.float32)
    else:
        del tensors["model.norm.weight"]
    set_tensors(repository, tensors)
    with pytest.raises(UserError, match="model.extra.weight" if change == "extra" else "model.norm.weight"):
        load_huggingface(repository)


def set_tokenizer(repository, change):
    path = repository / "tokenizer.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.pop("model"), "no model.vocab"),
        (lambda values: values["model"].update(vocab=[["a", 0.5]]), "no model.vocab"),
        (lambda values: values["model"].update(vocab={}), "no model.vocab"),
        (lambda values: values["model"]["vocab"].update(a="seven"), "'seven'"),
        (lambda values: values["model"]["vocab"].update(a=-1), "id -1"),
        (lambda values: values["model"]["vocab"].update(a=True), "id True"),
        (lambda values: values["model"]["vocab"].update(a=values["model"]["vocab"]["b"]), "one id"),
        (lambda values: values["model"]["vocab"].update(strange=10**30), "huge|id 1"),
        (lambda values: values["model"]["vocab"].update(strange=5000), "vocab_size is 320"),
        (lambda values: values["added_tokens"].append({"content": "<x>", "id": 999}), "vocab_size is 320"),
        (lambda values: values["added_tokens"].append({"content": "<x>"}), "added_tokens"),
        (lambda values: values["added_tokens"].append("<x>"), "added_tokens"),
        (lambda values: values.update(added_tokens={"a": 1}), "added_tokens"),
        (lambda values: values["model"].update(merges=[["nowhere", "else"]]), "tokenizers library"),
        (lambda values: values["model"].update(type="Magic"), "tokenizers library"),
        (lambda values: values.update(pre_tokenizer={"type": "Magic"}), "tokenizers library"),
    ],
)
def test_tokenizer_of_a_stranger_is_refused_at_import(repository, tmp_path, change, words):
    set_tokenizer(repository, change)
    with pytest.raises(UserError, match=words) as caught:
        import_huggingface(repository, tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "1" * 5000])
def test_companions_of_a_tokenizer_are_checked_at_import(repository, tmp_path, name, content):
    (repository / name).write_text(content)
    with pytest.raises(UserError, match=name):
        import_huggingface(repository, tmp_path / "model")


def test_tokenizer_that_cuts_texts_short_cuts_nothing_here(tokenizer_folder):
    library = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    library.enable_truncation(2)
    read = library_tokenizer(library.to_str(), "tokenizer.json")
    assert len(read.encode("der Bund und die Kantone", add_special_tokens=False).ids) > 2
    check_tokenizer(tokenizer_folder, 320)
    assert read_vocabulary(tokenizer_folder)["<s>"] == 1


def test_weights_have_the_mode_that_the_umask_gives(tmp_path, config, params):
    old = os.umask(0o027)
    try:
        save_model(tmp_path / "model", config, params)
        save_huggingface(tmp_path / "export", config, params)
    finally:
        os.umask(old)
    for path in [*(tmp_path / "model").glob("*"), *(tmp_path / "export").glob("*")]:
        if path.suffix in (".safetensors", ".json") and path.name not in ("LEASE.json", "COMMITTED.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640, path


def test_full_disk_is_the_error_of_the_system(tmp_path):
    spec = TensorSpec("a", (3,), np.dtype(np.float32))
    (tmp_path / WEIGHTS).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_tensors(tmp_path, [spec], lambda name, box: np.zeros(3, np.float32)[box])
    assert caught.value.errno == 28 and caught.value.filename.endswith(WEIGHTS)
    assert list(tmp_path.iterdir()) == []


def test_memory_beyond_the_machine_is_refused_before_it_is_taken():
    check_memory(1 << 20, "a model")
    with pytest.raises(UserError, match="the model of x takes 1,000,000,000.0 GB"):
        check_memory(10**18, "the model of x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_layers": -1}, "num_layers = -1"),
        ({"num_layers": 10**8}, "has shape"),
        ({"norm_epsilon": "tiny"}, "norm_epsilon"),
        ({"rope_scaling": {"factor": 0}}, "RopeScaling"),
        ({"rope_scaling": {"factors": 8}}, "rope_scaling.factors"),
        ({"rope_scaling": 8}, "rope_scaling"),
        ({"strange": 1}, "unknown field"),
        ({"vocab_size": ...}, "not a model configuration"),
    ],
)
def test_own_config_with_digests_remade_is_refused(saved, tmp_path, changes, words):
    folder = shutil.copytree(saved, tmp_path / "model")
    set_config(folder, **changes)
    with pytest.raises(UserError, match=words):
        load_model(folder, verify=False)
    with pytest.raises(UserError, match="config.json"):
        load_model(folder)


def test_reader_names_what_is_no_folder_of_tensors(tmp_path):
    with pytest.raises(UserError, match="neither"):
        TensorReader(tmp_path)

"""The model folder: what training leaves behind and `generate`, `export` and evaluation read.

An artifact of kind "model" with `config.json` (every field of `ModelConfig`), `parameters*.safetensors` (float32, our
tree with its path joined by "/", layers stacked on the first axis) and, when there is one, `tokenizer/` (a copy of
`tokenizer.json` and its companions). The commit marker digests all of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.core import meta

from apertus_jax import artifacts
from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig, RopeScaling
from apertus_jax.tensor_files import TensorReader, TensorSpec, write_tensors

KIND = "model"
CONFIG_FILE = "config.json"
PARAMETERS_STEM = "parameters"
TOKENIZER_FOLDER = "tokenizer"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
FLOAT32 = np.dtype(np.float32)

# Our tree in axis letters: D embed, N query heads, K key/value heads, H head_dim, F feedforward, V vocab, L layers.
PARAMETER_AXES = {
    "embedder/embedding": "VD",
    "layers/attention_norm/scale": "LD",
    "layers/attention/query/kernel": "LDNH",
    "layers/attention/key/kernel": "LDKH",
    "layers/attention/value/kernel": "LDKH",
    "layers/attention/output/kernel": "LNHD",
    "layers/attention/query_norm/scale": "LH",
    "layers/attention/key_norm/scale": "LH",
    "layers/feedforward_norm/scale": "LD",
    "layers/feedforward/up/kernel": "LDF",
    "layers/feedforward/down/kernel": "LFD",
    "layers/feedforward/xielu/alpha_p": "L",
    "layers/feedforward/xielu/alpha_n": "L",
    "final_norm/scale": "D",
    "lm_head/kernel": "DV",
}


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """Returns the size of every axis letter of `PARAMETER_AXES`."""
    return {
        "D": config.hidden_size,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
        "F": config.intermediate_size,
        "V": config.vocab_size,
        "L": config.num_layers,
    }


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter, by its path joined with "/"."""
    sizes = axis_sizes(config)
    return {path: tuple(sizes[axis] for axis in axes) for path, axes in PARAMETER_AXES.items()}


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of a nested dict by their path joined with "/"."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict whose leaves `flatten` gives; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def check_parameters(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flattened parameters after checking names, shapes and that this process holds them.

    Raises:
      UserError: a leaf is missing, unknown, of another shape, or spread over several processes.
    """
    flat = flatten(meta.unbox(params))
    expected = parameter_shapes(config)
    for path, shape in expected.items():
        if path not in flat:
            raise UserError(f"the parameters lack {path}; give the tree that Transformer.init makes")
        if tuple(flat[path].shape) != shape:
            raise UserError(
                f"parameter {path} has shape {tuple(flat[path].shape)} where the configuration says {shape}"
            )
    unknown = sorted(set(flat) - set(expected))
    if unknown:
        raise UserError(f"the parameters hold {unknown[0]}, which this architecture does not have")
    for path, leaf in flat.items():
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise UserError(f"parameter {path} is spread over several processes; restore and save it in one process")
    return flat


def config_to_json(config: ModelConfig) -> dict[str, Any]:
    """Returns every field of the configuration as JSON values."""
    return dataclasses.asdict(config)


def config_from_json(values: Mapping[str, Any], source: str) -> ModelConfig:
    """Returns the configuration that `config_to_json` wrote; `source` names the file in errors.

    Raises:
      UserError: a field is unknown or missing, or a value is refused by ModelConfig.
    """
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"{source} holds the unknown field {unknown[0]!r}; it was written by another version")
    fields = dict(values)
    if isinstance(fields.get("rope_scaling"), Mapping):
        fields["rope_scaling"] = RopeScaling(**fields["rope_scaling"])
    try:
        return ModelConfig(**fields)
    except TypeError as error:
        raise UserError(f"{source} is not a model configuration ({error}); rebuild the folder") from error


def save_model(
    folder: epath.PathLike,
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer: epath.PathLike | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    shard_bytes: float = 5e9,
) -> None:
    """Writes a model folder.

    Args:
      folder: where; must not exist or be empty.
      config: the architecture.
      params: the plain parameter tree (NumPy or jax arrays, sharded or not); stored as float32.
      tokenizer: a folder with `tokenizer.json`, copied into the model folder; None for a model without text.
      inputs: what decided the content (run, step, digests), for the manifest.
      summary: more for readers of the manifest.
      shard_bytes: largest number of tensor bytes in one file.

    Raises:
      UserError: wrong parameters, a folder in use, or a tokenizer that does not fit the vocabulary.
    """
    flat = check_parameters(config, params)
    check_tokenizer(tokenizer, config.vocab_size)
    specs = [TensorSpec(path, shape, FLOAT32) for path, shape in parameter_shapes(config).items()]
    with artifacts.build(folder, KIND, inputs or {}) as under_construction:
        root = under_construction.path
        (root / CONFIG_FILE).write_text(json.dumps(config_to_json(config), indent=2, sort_keys=True) + "\n")
        write_tensors(root, specs, lambda path: np.asarray(flat[path], FLOAT32), shard_bytes, PARAMETERS_STEM)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, root / TOKENIZER_FOLDER)
        under_construction.summary.update(num_parameters=config.num_parameters, **dict(summary or {}))


def load_model(folder: epath.PathLike, *, verify: bool = True) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns the configuration and the float32 parameters (NumPy) of a model folder or of a run folder with one.

    Args:
      folder: a model folder, or a run folder whose training has ended.
      verify: read every file once more and compare its digest with the commit marker.

    Raises:
      UserError: not a model folder, damaged files, or tensors that do not fit the configuration.
    """
    root = find_model(folder)
    if verify:
        artifacts.verify(root, KIND)
    config = read_config(root)
    with TensorReader(root, PARAMETERS_STEM) as reader:
        expected = parameter_shapes(config)
        check_names_and_shapes(reader, expected)
        flat = {path: reader.read(path).astype(FLOAT32, copy=False) for path in expected}
    return config, unflatten(flat)


def read_config(folder: epath.PathLike) -> ModelConfig:
    """Returns the configuration of a model folder without reading its parameters."""
    path = epath.Path(folder) / CONFIG_FILE
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); rebuild the folder") from error
    return config_from_json(values, str(path))


def find_model(folder: epath.PathLike) -> epath.Path:
    """Returns the model folder that `folder` is, or that a run folder holds under `model/`.

    Raises:
      UserError: there is none; a Hugging Face repository is named as such.
    """
    root = epath.Path(folder)
    nested = root / "model"
    if artifacts.is_complete(nested):
        root = nested
    if not artifacts.is_complete(root) and (root / CONFIG_FILE).exists():
        raise UserError(f"{root} is not a model folder; run `apertus import --input {root} --output FOLDER` first")
    artifacts.read_manifest(root, KIND)
    return root


def tokenizer_folder(folder: epath.PathLike) -> epath.Path | None:
    """Returns the tokenizer folder inside a model folder, or None when the model has none."""
    path = epath.Path(folder) / TOKENIZER_FOLDER
    return path if (path / TOKENIZER_FILE).exists() else None


def check_names_and_shapes(reader: TensorReader, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compares all names and shapes with what the architecture has, before any data is read.

    Raises:
      UserError: the first missing, unknown or differently shaped tensor.
    """
    missing = sorted(set(expected) - reader.names)
    if missing:
        raise UserError(f"{reader.folder} lacks the tensor {missing[0]} ({len(missing)} missing in all)")
    unknown = sorted(reader.names - set(expected))
    if unknown:
        raise UserError(
            f"{reader.folder} holds the tensor {unknown[0]}, which Apertus lacks ({len(unknown)} unknown in all)"
        )
    for name, shape in expected.items():
        if reader.shape(name) != shape:
            raise UserError(
                f"tensor {name} in {reader.folder} has shape {reader.shape(name)} where its configuration says {shape}"
            )
        reader.dtype(name)


def check_tokenizer(folder: epath.PathLike | None, vocab_size: int) -> None:
    """Checks that a tokenizer folder is readable and none of its ids is outside the model's vocabulary.

    Raises:
      UserError: no tokenizer.json, an unreadable one, or more tokens than the model has rows.
    """
    if folder is None:
        return
    path = epath.Path(folder) / TOKENIZER_FILE
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a tokenizer")
    try:
        content = json.loads(path.read_text())
        ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content.get("added_tokens", []))]
        largest = max(ids)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a tokenizers file ({error!r}); give the folder of a byte-level BPE") from error
    if largest >= vocab_size:
        raise UserError(
            f"{path} has the token id {largest} but the model's vocab_size is {vocab_size}; use the model's tokenizer"
        )


def copy_tokenizer(source: epath.PathLike, target: epath.PathLike, files: tuple[str, ...] = TOKENIZER_FILES) -> None:
    """Copies those of `files` that the tokenizer folder `source` has into the folder `target`."""
    epath.Path(target).mkdir(parents=True, exist_ok=True)
    for name in files:
        if (epath.Path(source) / name).exists():
            (epath.Path(source) / name).copy(epath.Path(target) / name, overwrite=True)

"""Parameters to and from a Hugging Face Apertus repository, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from apertus_jax import artifacts
from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig
from apertus_jax.model_folder import (
    FLOAT32,
    TOKENIZER_FILE,
    check_names_and_shapes,
    check_parameters,
    check_tokenizer,
    find_model,
    load_model,
    parameter_shapes,
    save_model,
    tokenizer_folder,
    unflatten,
)
from apertus_jax.release.huggingface_config import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    generation_config,
    read_huggingface_config,
    to_huggingface,
)
from apertus_jax.release.huggingface_tokenizer import special_token_ids, write_tokenizer
from apertus_jax.release.tensor_table import TENSOR_TABLE, published_tensors, take_layer
from apertus_jax.tensor_files import TensorReader, TensorSpec, write_tensors

KIND = "huggingface_model"
EXPORT_DTYPES = {"float32": FLOAT32, "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def save_huggingface(
    path: epath.PathLike,
    config: ModelConfig,
    params: Mapping[str, Any],
    *,
    tokenizer: epath.PathLike | None = None,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    chat: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Writes a repository that `AutoModelForCausalLM` and `AutoTokenizer` of transformers 4.56 and later load.

    Beyond `params`, memory holds one shard: parameters leave the device layer by layer.

    Args:
      path: where; must not exist or be empty. The commit marker is written last.
      config: the architecture.
      params: the plain parameter tree (NumPy or jax arrays, sharded or not).
      tokenizer: a folder with tokenizer.json; its companions are copied, or made when absent.
      dtype: "float32" or "bfloat16", the type of the stored weights.
      shard_bytes: largest number of tensor bytes in one file.
      chat: write a chat model: it stops at the end of the assistant's turn, samples, and has its chat template.
      inputs: what decided the content (run, step, digests), for the manifest.

    Raises:
      UserError: wrong parameters, dtype or tokenizer, or a folder in use.
    """
    if dtype not in EXPORT_DTYPES:
        raise UserError(f"cannot export as dtype {dtype!r}; choose one of {', '.join(EXPORT_DTYPES)}")
    flat = check_parameters(config, params)
    check_tokenizer(tokenizer, config.vocab_size)
    special_ids = special_token_ids(tokenizer, config.vocab_size, chat)
    tensors = published_tensors(config)
    stored = EXPORT_DTYPES[dtype]

    def fetch(name: str) -> np.ndarray:
        tensor = tensors[name]
        if tensor.row is None:
            return np.asarray(tensor.constant, stored)
        return tensor.row.publish(config, take_layer(flat[tensor.row.path], tensor.layer)).astype(stored, copy=False)

    with artifacts.build(path, KIND, inputs or {}) as under_construction:
        root = under_construction.path
        specs = [TensorSpec(tensor.name, tensor.shape, stored) for tensor in tensors.values()]
        write_tensors(root, specs, fetch, shard_bytes)
        if tokenizer is not None:
            write_tokenizer(tokenizer, root, config.max_position_embeddings, chat)
        # Readers that know nothing of commit markers look for config.json first, so it comes after the weights.
        _write_json(root / GENERATION_CONFIG_FILE, generation_config(special_ids, chat))
        _write_json(root / CONFIG_FILE, to_huggingface(config, dtype, special_ids))
        under_construction.summary.update(dtype=dtype, chat=chat, num_parameters=config.num_parameters)


def load_huggingface(path: epath.PathLike) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns (config, params) of a Hugging Face Apertus repository; params are float32 NumPy arrays, layers stacked.

    Each tensor is read once, straight into its place. A file in bfloat16 or float16 widens without loss.

    Raises:
      UserError: another architecture, an unfinished export, a truncated file, a missing, unknown or differently shaped
        tensor, or xIELU constants other than the configuration's.
    """
    root = epath.Path(path)
    if (root / artifacts.BUILDING_MARKER).exists() and not artifacts.is_complete(root):
        raise UserError(f"{root} is a half-written export; run the command that writes it again")
    config, _ = read_huggingface_config(root)
    tensors = published_tensors(config)
    flat = {}
    with TensorReader(root) as reader:
        check_names_and_shapes(reader, {tensor.name: tensor.shape for tensor in tensors.values()})
        for tensor in tensors.values():
            if tensor.row is None:
                _check_constant(reader, tensor.name, tensor.constant)
        for row in TENSOR_TABLE:
            leaf = np.empty(parameter_shapes(config)[row.path], FLOAT32)
            for layer in range(config.num_layers) if row.per_layer else [...]:
                leaf[layer] = row.adopt(config, reader.read(row.name.format(layer=layer)))
            flat[row.path] = leaf
    return config, unflatten(flat)


def export(
    model: epath.PathLike,
    output: epath.PathLike,
    *,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    chat: bool = False,
) -> None:
    """Converts a model folder (or a run folder that holds one) to a Hugging Face repository: the `export` command.

    Done already from the same model with the same settings: returns at once.

    Raises:
      UserError: see `load_model` and `save_huggingface`.
    """
    folder = find_model(model)
    manifest = artifacts.read_manifest(folder, "model")
    inputs = {"model": manifest["digest"], "dtype": dtype, "shard_bytes": shard_bytes, "chat": chat}
    if artifacts.already_built(output, KIND, inputs):
        return
    config, params = load_model(folder)
    save_huggingface(
        output,
        config,
        params,
        tokenizer=tokenizer_folder(folder),
        dtype=dtype,
        shard_bytes=shard_bytes,
        chat=chat,
        inputs=inputs,
    )


def import_huggingface(repository: epath.PathLike, output: epath.PathLike) -> None:
    """Converts a Hugging Face Apertus repository to a model folder: the `import` command.

    Raises:
      UserError: see `load_huggingface` and `save_model`.
    """
    root = epath.Path(repository)
    config, params = load_huggingface(root)
    tokenizer = root if (root / TOKENIZER_FILE).exists() else None
    config_digest = artifacts.digest_file(root / CONFIG_FILE)
    save_model(output, config, params, tokenizer, inputs={"huggingface_config": config_digest})


def _check_constant(reader: TensorReader, name: str, expected: float) -> None:
    # The constant was rounded to the type of the file, so the comparison is made there.
    if reader.read(name) != np.asarray(expected, reader.dtype(name)):
        raise UserError(
            f"tensor {name} in {reader.folder} is {float(reader.read(name))!r} where xIELU has {expected!r}"
        )


def _write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

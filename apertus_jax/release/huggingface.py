"""Hugging Face export of Apertus repositories, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from apertus_jax.checkpoints.huggingface_config import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    generation_config,
    to_huggingface,
)
from apertus_jax.checkpoints.huggingface_repository import KIND
from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.model_folder import FLOAT32, check_parameters, takes_part_only
from apertus_jax.model.parameters import abstract_parameters, count_parameters
from apertus_jax.model.tensor_table import export_obstacle, published_tensors
from apertus_jax.release.huggingface_tokenizer import check_chat_tokens, special_token_ids, write_tokenizer
from apertus_jax.release.model_card import CARD_FILE, model_card
from apertus_jax.storage import artifacts
from apertus_jax.storage.run_parent import PARENT, Parent
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, ReadBox
from apertus_jax.storage.tensors.device_boxes import piece_bytes, read_box
from apertus_jax.storage.tensors.writer import TensorSpec, write_tensors
from apertus_jax.storage.tokenizer_files import check_tokenizer

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
    card: str | None = None,
) -> None:
    """Writes a repository that `AutoModelForCausalLM` and `AutoTokenizer` of transformers 4.56 and later load.

    Beyond `params`, nobody holds more than a shard of the largest leaf: parameters leave the devices piece by piece.

    Args:
      path: where; must not exist or be empty. The commit marker is written last.
      config: the architecture.
      params: the plain parameter tree (NumPy or jax arrays, sharded or not). When it is spread over several processes,
        each of them calls this and the first one writes.
      tokenizer: a folder with tokenizer.json; its companions are copied, or made when absent.
      dtype: "float32" or "bfloat16", the type of the stored weights.
      shard_bytes: largest number of tensor bytes in one file.
      chat: write a chat model: it stops at the end of the assistant's turn, samples, and has its chat template.
      inputs: what decided the content (run, step, digests), for the manifest.
      card: the text of its README.md; by default that of `model_card`, which then knows the architecture alone.

    Raises:
      UserError: wrong parameters, dtype or tokenizer, an architecture without a published format, or a folder in use.
    """
    flat = check_parameters(config, params)
    write_repository(
        path,
        config,
        lambda name, box: read_box(flat[name], box),
        tokenizer=tokenizer,
        dtype=dtype,
        shard_bytes=shard_bytes,
        chat=chat,
        inputs=inputs,
        card=card,
        piece_bytes=piece_bytes(flat.values()),
        takes_part_only=takes_part_only(flat),
    )


def write_repository(
    path: epath.PathLike,
    config: ModelConfig,
    read: ReadBox,
    *,
    tokenizer: epath.PathLike | None = None,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    chat: bool = False,
    inputs: Mapping[str, Any] | None = None,
    card: str | None = None,
    parent: Parent | None = None,
    piece_bytes: int = PIECE_BYTES,
    takes_part_only: bool = False,
) -> None:
    """Writes a repository of parameters that are read in boxes; the rest as `save_huggingface`.

    Args:
      read: path of a parameter and box → its values there.
      parent: the weights that the training of the model started from, for the manifest.
      piece_bytes: largest number of bytes that are read at a time.
      takes_part_only: reads all the same, because others need this process for that, and writes nothing.

    Raises:
      UserError: wrong dtype or tokenizer, an architecture without a published format, or a folder in use.
    """
    check_settings(config, dtype)
    check_tokenizer(tokenizer, config.vocab_size)
    special_ids = special_token_ids(tokenizer, config.vocab_size, chat)
    if chat and tokenizer is not None:
        check_chat_tokens(tokenizer)
    tensors = published_tensors(config)
    stored = EXPORT_DTYPES[dtype]
    piece_bytes = piece_bytes * stored.itemsize // FLOAT32.itemsize  # a piece is read before it becomes narrower
    specs = [TensorSpec(tensor.name, tensor.shape, stored, tensor.split_shape(config)) for tensor in tensors.values()]

    def published(name: str, box: Box) -> np.ndarray:
        tensor = tensors[name]
        if tensor.row is None:
            return np.asarray(tensor.constant, stored)
        return tensor.row.read_published(config, read, tensor.layer, box).astype(stored, copy=False)

    if takes_part_only:
        write_tensors(None, specs, published, shard_bytes, piece_bytes=piece_bytes)
        return
    num_parameters = count_parameters(abstract_parameters(config))
    if card is None:
        card = model_card(config, num_parameters, dtype=dtype, chat=chat)
    with artifacts.build(path, KIND, inputs or {}) as under_construction:
        root = under_construction.path
        write_tensors(root, specs, published, shard_bytes, piece_bytes=piece_bytes)
        if tokenizer is not None:
            write_tokenizer(tokenizer, root, config.max_position_embeddings, chat)
        (root / CARD_FILE).write_text(card)
        # Readers that know nothing of commit markers look for config.json first, so it comes after the weights.
        _write_json(root / GENERATION_CONFIG_FILE, generation_config(special_ids, chat))
        _write_json(root / CONFIG_FILE, to_huggingface(config, dtype, special_ids))
        under_construction.summary.update(dtype=dtype, chat=chat, num_parameters=num_parameters)
        if parent is not None:
            under_construction.summary[PARENT] = parent.to_json()


def check_settings(config: ModelConfig, dtype: str) -> None:
    """Raises UserError for a type that weights are not exported in, or an architecture without a published format."""
    if dtype not in EXPORT_DTYPES:
        raise UserError(f"cannot export as dtype {dtype!r}; choose one of {', '.join(EXPORT_DTYPES)}")
    check_exportable(config)


def check_exportable(config: ModelConfig) -> None:
    """Raises UserError for an architecture that has no published format."""
    obstacle = export_obstacle(config)
    if obstacle:
        raise UserError(f"this architecture cannot be exported to Hugging Face: {obstacle}; add its format there")


def _write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

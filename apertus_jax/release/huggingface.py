"""Hugging Face export and import of Apertus repositories, tensor by tensor."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.model_folder import (
    FLOAT32,
    check_names_and_shapes,
    check_parameters,
    takes_part_only,
)
from apertus_jax.model.parameters import abstract_parameters, count_parameters, parameter_shapes
from apertus_jax.model.tensor_table import (
    export_obstacle,
    num_published_tensors,
    published_format,
    published_tensors,
)
from apertus_jax.release.huggingface_config import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    generation_config,
    read_huggingface_config,
    to_huggingface,
)
from apertus_jax.release.huggingface_tokenizer import special_token_ids, write_tokenizer
from apertus_jax.release.model_card import CARD_FILE, model_card
from apertus_jax.storage import artifacts
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, Box, ReadBox, whole_box
from apertus_jax.storage.tensors.device_boxes import piece_bytes, put_arrays, read_box
from apertus_jax.storage.tensors.reader import TensorReader, check_memory
from apertus_jax.storage.tensors.writer import FLOAT_DTYPES, TensorSpec, write_tensors
from apertus_jax.storage.tokenizer_files import check_tokenizer

KIND = "huggingface_model"
MAX_MISSING_NAMED = 100_000
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
    piece_bytes: int = PIECE_BYTES,
    takes_part_only: bool = False,
) -> None:
    """Writes a repository of parameters that are read in boxes; the rest as `save_huggingface`.

    Args:
      read: path of a parameter and box → its values there.
      piece_bytes: largest number of bytes that are read at a time.
      takes_part_only: reads all the same, because others need this process for that, and writes nothing.

    Raises:
      UserError: wrong dtype or tokenizer, an architecture without a published format, or a folder in use.
    """
    check_settings(config, dtype)
    check_tokenizer(tokenizer, config.vocab_size)
    special_ids = special_token_ids(tokenizer, config.vocab_size, chat)
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


def load_huggingface(path: epath.PathLike, *, shardings: Any = None) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns (config, params) of a Hugging Face Apertus repository; params are float32, layers stacked.

    A file in bfloat16 or float16 widens without loss.

    Args:
      path: the repository.
      shardings: the parameter tree with a `jax.sharding.Sharding` for each leaf; then every process reads the shards of
        its own devices, one at a time, and gets jax arrays. None: NumPy arrays, whole.

    Raises:
      UserError: another architecture, an unfinished export, a truncated file, a missing, unknown or differently shaped
        tensor, or xIELU constants other than the configuration's.
    """
    with open_repository(path) as (config, read):
        shapes = parameter_shapes(config)
        if shardings is not None:
            flat: dict[str, Any] = put_arrays(shapes, flatten_dict(shardings, sep="/"), read)
        else:
            check_memory(count_parameters(abstract_parameters(config)) * FLOAT32.itemsize, f"the model of {path}")
            flat = {name: read(name, whole_box(shape)) for name, shape in shapes.items()}
    return config, unflatten_dict(flat, sep="/")


@contextlib.contextmanager
def open_repository(path: epath.PathLike) -> Iterator[tuple[ModelConfig, ReadBox]]:
    """Opens a Hugging Face Apertus repository: its configuration, and our parameters to be read in boxes, float32.

    Raises:
      UserError: as `load_huggingface`; values that are not finite are found when they are read.
    """
    root = epath.Path(path)
    if (root / artifacts.BUILDING_MARKER).exists() and not artifacts.is_complete(root):
        raise UserError(f"{root} is a half-written export; run the command that writes it again")
    config, _ = read_huggingface_config(root)
    with TensorReader(root) as reader:
        _check_number_of_tensors(reader, config)
        tensors = published_tensors(config)
        check_names_and_shapes(reader, {tensor.name: tensor.shape for tensor in tensors.values()})
        for tensor in tensors.values():
            if tensor.constant is not None:
                _check_constant(reader, tensor.name, tensor.constant)
        rows = {row.path: row for row in published_format(config).rows}
        yield config, lambda name, box: rows[name].read_own(config, reader, box)


def _check_number_of_tensors(reader: TensorReader, config: ModelConfig) -> None:
    """Checks that the files could hold so many layers, before a table of them is made.

    Raises:
      UserError: they hold far fewer tensors than the configuration says.
    """
    expected = num_published_tensors(config)
    if expected > 2 * len(reader.names) + MAX_MISSING_NAMED:
        raise UserError(
            f"{reader.folder} holds {len(reader.names)} tensors where num_hidden_layers={config.num_layers} makes "
            f"{expected}; correct config.json, or fetch the files again"
        )


def _check_constant(reader: TensorReader, name: str, expected: float) -> None:
    # The constant was rounded to some type once, and the file may be a copy in a wider one.
    found = float(reader.read(name))
    if not any(found == float(np.asarray(expected, dtype)) for dtype in FLOAT_DTYPES.values()):
        raise UserError(f"tensor {name} in {reader.folder} is {found!r} where xIELU has {expected!r}")


def _write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

"""Model folder: what training leaves behind, and `generate`, `export` and evaluation read.

An artifact of kind "model" with `config.json` (every field of `ModelConfig`), `parameters*.safetensors` (float32, our
tree with its path joined by "/", layers stacked on the first axis) and, when there is one, `tokenizer/` (a copy of
`tokenizer.json` and its companions). The commit marker digests all of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.core import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from apertus_jax.errors import UserError
from apertus_jax.model.attention_kernels import Tiles
from apertus_jax.model.config import ModelConfig, RopeScaling
from apertus_jax.model.feedforwards import OWN
from apertus_jax.model.parameters import abstract_parameters, count_parameters, parameter_shapes
from apertus_jax.process.agreement import set_anywhere
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.storage.tensors.boxes import PIECE_BYTES, ReadBox, whole_box
from apertus_jax.storage.tensors.device_boxes import is_spread, piece_bytes, put_arrays, read_box
from apertus_jax.storage.tensors.reader import TensorReader, check_memory
from apertus_jax.storage.tensors.writer import SUFFIX, TensorSpec, write_tensors
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE, check_tokenizer, copy_tokenizer

KIND = "model"
CONFIG_FILE = "config.json"
PARAMETERS_STEM = "parameters"
PARAMETERS_FILE = PARAMETERS_STEM + SUFFIX
TOKENIZER_FOLDER = "tokenizer"
FLOAT32 = np.dtype(np.float32)
# Fields that came later: a model that has what every model had before them is described as before.
LATER_FIELDS = {
    "feedforward": OWN,
    "attention_tile": Tiles.size,
    "attention_fused_backward": Tiles.fused_backward,
}
FIELDS = {kind: {field.name for field in dataclasses.fields(kind)} for kind in (ModelConfig, RopeScaling)}


def check_parameters(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flattened parameters after checking names and shapes.

    Raises:
      UserError: a leaf is missing, unknown or of another shape.
    """
    flat = flatten_dict(meta.unbox(params), sep="/")
    expected = parameter_shapes(config)
    for path, shape in expected.items():
        if path not in flat:
            raise UserError(f"the parameters lack {path}; give the tree that init_parameters makes")
        if tuple(flat[path].shape) != shape:
            raise UserError(
                f"parameter {path} has shape {tuple(flat[path].shape)} where the configuration says {shape}"
            )
    unknown = sorted(set(flat) - set(expected))
    if unknown:
        raise UserError(f"the parameters hold {unknown[0]}, which this architecture does not have")
    return flat


def config_to_json(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields of the configuration as JSON values; those of `LATER_FIELDS` where they say something new."""
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if name not in LATER_FIELDS or LATER_FIELDS[name] != value}


def config_from_json(values: Mapping[str, Any], source: str) -> ModelConfig:
    """Returns the configuration that `config_to_json` wrote; `source` names the file in errors.

    Raises:
      UserError: a field is unknown or missing, or a value is refused by ModelConfig.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{source} is not a model configuration (no JSON object); rebuild the folder")
    fields = dict(values)
    unknown = sorted(set(fields) - FIELDS[ModelConfig])
    if unknown:
        raise UserError(f"{source} holds the unknown field {unknown[0]!r}; it was written by another version")
    scaling = fields.get("rope_scaling")
    try:
        if isinstance(scaling, Mapping):
            strange = sorted(set(scaling) - FIELDS[RopeScaling])
            if strange:
                raise UserError(f"holds the unknown field rope_scaling.{strange[0]}; it was written by another version")
            fields["rope_scaling"] = RopeScaling(**scaling)
        return ModelConfig(**fields)
    except TypeError as error:
        raise UserError(f"{source} is not a model configuration ({error}); rebuild the folder") from error
    except UserError as error:
        raise UserError(f"{source}: {error}; restore it, or rebuild the folder") from error


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
    """Writes a model folder, piece by piece: beyond `params`, nobody holds more than a shard of the largest leaf.

    Args:
      folder: where; must not exist or be empty.
      config: the architecture.
      params: the plain parameter tree (NumPy or jax arrays, sharded or not); stored as float32. When it is spread over
        several processes, each of them calls this and the first one writes.
      tokenizer: a folder with `tokenizer.json`, copied into the model folder; None for a model without text.
      inputs: what decided the content (run, step, digests), for the manifest.
      summary: more for readers of the manifest.
      shard_bytes: largest number of tensor bytes in one file.

    Raises:
      UserError: wrong parameters, a folder in use, or a tokenizer that does not fit the vocabulary.
    """
    flat = check_parameters(config, params)
    write_model(
        folder,
        config,
        lambda path, box: read_box(flat[path], box).astype(FLOAT32, copy=False),
        tokenizer,
        inputs=inputs,
        summary=summary,
        shard_bytes=shard_bytes,
        piece_bytes=piece_bytes(flat.values()),
        takes_part_only=takes_part_only(flat),
    )


def takes_part_only(flat: Mapping[str, Any]) -> bool:
    """Returns whether this process gives others its parts of the parameters and writes nothing itself."""
    return jax.process_index() > 0 and any(map(is_spread, flat.values()))


def parameter_tensors(config: ModelConfig) -> list[TensorSpec]:
    """Returns what the parameter files of a model folder hold."""
    return [TensorSpec(path, shape, FLOAT32) for path, shape in parameter_shapes(config).items()]


def write_model(
    folder: epath.PathLike,
    config: ModelConfig,
    read: ReadBox,
    tokenizer: epath.PathLike | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    shard_bytes: float = 5e9,
    piece_bytes: int = PIECE_BYTES,
    takes_part_only: bool = False,
) -> None:
    """Writes a model folder of parameters that are read in boxes; the rest as `save_model`.

    Args:
      read: path of a parameter and box → its float32 values there.
      piece_bytes: largest number of bytes that are read at a time.
      takes_part_only: reads all the same, because others need this process for that, and writes nothing.

    Raises:
      UserError: a folder in use, or a tokenizer that does not fit the vocabulary.
    """
    check_tokenizer(tokenizer, config.vocab_size)
    specs = parameter_tensors(config)
    if takes_part_only:
        write_tensors(None, specs, read, shard_bytes, PARAMETERS_STEM, piece_bytes)
        return
    with artifacts.build(folder, KIND, inputs or {}) as under_construction:
        root = under_construction.path
        (root / CONFIG_FILE).write_text(json.dumps(config_to_json(config), indent=2, sort_keys=True) + "\n")
        write_tensors(root, specs, read, shard_bytes, PARAMETERS_STEM, piece_bytes)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, root / TOKENIZER_FOLDER)
        num_parameters = count_parameters(abstract_parameters(config))
        under_construction.summary.update(num_parameters=num_parameters, **dict(summary or {}))


def load_model(
    folder: epath.PathLike, *, verify: bool = True, shardings: Any = None
) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns the configuration and the float32 parameters of a model folder or of a run folder with one.

    Args:
      folder: a model folder, or a run folder whose training has ended.
      verify: read every file once more and compare its digest with the commit marker.
      shardings: the parameter tree with a `jax.sharding.Sharding` for each leaf; then every process reads the shards of
        its own devices, one at a time, and gets jax arrays. None: NumPy arrays, whole.

    Raises:
      UserError: not a model folder, damaged files, or tensors that do not fit the configuration.
    """
    root = find_model(folder)
    if verify and shardings is None:
        artifacts.verify(root, KIND)
    elif verify:
        _verify_together(root)
    config = read_config(root)
    with open_parameters(root, config) as read:
        if shardings is not None:
            flat: dict[str, Any] = put_arrays(parameter_shapes(config), flatten_dict(shardings, sep="/"), read)
        else:
            check_memory(count_parameters(abstract_parameters(config)) * FLOAT32.itemsize, f"the model of {root}")
            flat = {path: read(path, whole_box(shape)) for path, shape in parameter_shapes(config).items()}
    return config, unflatten_dict(flat, sep="/")


def _verify_together(root: epath.Path) -> None:
    """Compares every file with its digest, each process of the job a share of them.

    Raises:
      UserError: on every process, when one of them found a file that is not as it was written.
    """
    files = artifacts.read_manifest(root, KIND)["files"]
    names = sorted(files)
    own = names[jax.process_index() :: jax.process_count()]
    damages = {name: artifacts.damage_of(root / name, files[name]) for name in own}
    bad = set_anywhere(np.array([damages.get(name) is not None for name in names], bool))
    for name, is_bad in zip(names, bad, strict=True):
        if is_bad:
            damage = damages.get(name) or "is damaged (another process saw it)"
            raise UserError(f"{root / name} {damage}; restore it or rebuild the folder")


@contextlib.contextmanager
def open_parameters(folder: epath.PathLike, config: ModelConfig) -> Iterator[ReadBox]:
    """Opens the parameters of a model folder, to be read in boxes: float32, nothing of them in memory yet.

    Raises:
      UserError: tensors that do not fit the configuration; while reading, a value that is not finite.
    """
    with TensorReader(folder, PARAMETERS_STEM) as reader:
        check_names_and_shapes(reader, parameter_shapes(config))
        yield reader.read_weights


def read_config(folder: epath.PathLike) -> ModelConfig:
    """Returns the configuration of a model folder without reading its parameters."""
    path = epath.Path(folder) / CONFIG_FILE
    return config_from_json(read_json(path), str(path))


def find_model(folder: epath.PathLike) -> epath.Path:
    """Returns the model folder that `folder` is, or that a run folder holds under `model/`.

    Raises:
      UserError: there is none; a Hugging Face repository is named as such.
    """
    root, run = epath.Path(folder), RunFolder(folder)
    if run.is_run() or artifacts.is_complete(run.final_model):
        root = run.model()
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

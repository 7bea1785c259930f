"""Hugging Face Apertus repositories as they are read: checked, and tensor by tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from apertus_jax.checkpoints.huggingface_config import read_huggingface_config
from apertus_jax.errors import UserError
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.model_folder import FLOAT32, check_names_and_shapes
from apertus_jax.model.parameters import abstract_parameters, count_parameters, parameter_shapes
from apertus_jax.model.tensor_table import num_published_tensors, published_format, published_tensors
from apertus_jax.storage import artifacts
from apertus_jax.storage.tensors.boxes import ReadBox, whole_box
from apertus_jax.storage.tensors.device_boxes import put_arrays
from apertus_jax.storage.tensors.reader import TensorReader, check_memory
from apertus_jax.storage.tensors.writer import FLOAT_DTYPES

KIND = "huggingface_model"
MAX_MISSING_NAMED = 100_000


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

"""Classifier folder: `head.safetensors` and `classifier.json`, committed with digests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.corpus.classifiers.head import HeadShape, Parameters, score_row
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.tensors.reader import TensorReader
from apertus_jax.storage.tensors.writer import TensorSpec, write_tensors

KIND = "classifier"
STEM = "head"
DESCRIPTION_FILE = "classifier.json"


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A head and what it expects: the task, the identity of its embedder, and the digest of its folder."""

    task: str
    parameters: Parameters
    embedder: Mapping[str, Any]
    languages: tuple[str, ...]
    digest: str

    def score(self, embedding: np.ndarray) -> float:
        """Returns P(label 1) of one embedding [D]."""
        return score_row(self.parameters, embedding)


def write_classifier(folder: epath.Path, parameters: Parameters, description: Mapping[str, Any]) -> None:
    """Writes both files of a classifier below an existing folder."""
    stored = {name: np.asarray(value, np.float32) for name, value in sorted(parameters.items())}
    specs = [TensorSpec(name, value.shape, value.dtype) for name, value in stored.items()]
    write_tensors(folder, specs, lambda name, box: stored[name][box], stem=STEM)
    text = json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False)
    artifacts.write_atomically(folder / DESCRIPTION_FILE, text + "\n")


def load_classifier(folder: epath.PathLike, task: str) -> Classifier:
    """Reads a classifier after checking every digest; parameters become double precision.

    Raises:
      UserError: the folder is missing, incomplete, changed, of another task, or its tensors do not fit together.
    """
    root = epath.Path(folder)
    manifest = artifacts.verify(root, KIND)
    try:
        description = read_json_object(root / DESCRIPTION_FILE)
        found = description["task"]
        shape = HeadShape(**description["head"])
        embedder, languages = dict(description["embedder"]), tuple(description["languages"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{root / DESCRIPTION_FILE} does not describe a classifier ({error}); train it again"
        ) from error
    if found != task:
        raise UserError(f"{root} was trained for {found}, not {task}; give the folder of a {task} classifier")
    with TensorReader(root, stem=STEM) as reader:
        shapes = {name: reader.shape(name) for name in reader.names}
        if shapes != shape.parameter_shapes():
            raise UserError(f"{root} holds tensors {shapes} where {shape.parameter_shapes()} belong; train it again")
        parameters = {name: reader.read(name).astype(np.float64) for name in sorted(shapes)}
    if not all(np.isfinite(value).all() for value in parameters.values()):
        raise UserError(f"{root} holds weights that are not finite; train the classifier again")
    return Classifier(task, parameters, embedder, languages, manifest["digest"])

"""Verification of checkpoints: digests, then every stored leaf restored and checked."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from etils import epath

from apertus_jax.checkpoints import leaves as leaf_tools
from apertus_jax.checkpoints import step_folders
from apertus_jax.checkpoints.checkpointer import Checkpointer
from apertus_jax.errors import UserError
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.places import absolute_place
from apertus_jax.storage.run_folder import list_steps, step_folder, step_of_folder
from apertus_jax.storage.tensors.reader import check_memory
from apertus_jax.storage.verification import Notes

PARAMETERS = "params/"
SEED_KEY = "key<"


def verify_checkpoint(folder: epath.Path, manifest: dict[str, Any] | None, notes: Notes) -> None:
    """Checks one step: every file, every leaf of the declared shape and finite, moments shaped as their parameters.

    Raises:
      UserError: the first thing that is not.
    """
    step = step_of_folder(folder.name)
    if step is None:
        raise UserError(f"{folder} is a checkpoint under another name; call it step_ and ten digits")
    found = step_folders.read_manifest(folder.parent, step)
    if isinstance(found, step_folders.Rejection):
        raise UserError(f"{folder / found.file} {found.reason}; remove this step, or restore it")
    damages = step_folders.damages(folder, found["files"], found["files"])
    for name in sorted(damages):
        raise UserError(f"{folder / name} {damages[name]}; remove this step, or restore it")
    notes.add(folder, "digests", f"{len(found['files'])} files")
    metadata = step_folders.read_metadata(folder.parent, step)
    table = leaf_table(metadata, str(folder / step_folders.METADATA_FILE))
    _check_moments(table, folder)
    notes.add(folder, "leaves", f"{_check_leaves(folder, step, table):,} numbers in {len(table)} leaves, all finite")


def leaf_table(metadata: Any, where: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns leaf → (shape, dtype) of a checkpoint's metadata.

    Raises:
      UserError: the table is missing or a row of it is none.
    """
    require_fields(metadata, {"step": int, "leaves": dict, "metadata": dict}, where)
    table = {}
    for name, leaf in metadata["leaves"].items():
        require_fields(leaf, {"shape": list, "dtype": str}, f"{where}, leaf {name[:80]}")
        if not all(type(size) is int and size >= 0 for size in leaf["shape"]):
            raise UserError(f"{where}, leaf {name[:80]}: {leaf['shape']!r:.60} is no shape; remove this step")
        table[name] = (tuple(leaf["shape"]), leaf["dtype"])
    return table


def _check_moments(table: dict[str, tuple[tuple[int, ...], str]], folder: epath.Path) -> None:
    """Checks that a leaf of the optimizer that stands for a parameter has its shape."""
    parameters = {name.removeprefix(PARAMETERS): leaf for name, leaf in table.items() if name.startswith(PARAMETERS)}
    if not parameters:
        raise UserError(f"{folder} holds no parameters; remove this step")
    for name, (shape, _) in table.items():
        own = next((path for path in parameters if name.endswith(f"/{path}") and not name.startswith(PARAMETERS)), None)
        if own is not None and shape != parameters[own][0]:
            raise UserError(f"{folder}: {name} has shape {shape} and its parameter {parameters[own][0]}; remove it")


def _check_leaves(folder: epath.Path, step: int, table: dict[str, tuple[tuple[int, ...], str]]) -> int:
    """Restores all leaves to the host, checks that their numbers are finite, and returns how many there are."""
    abstract = {}
    for name, (shape, dtype) in table.items():
        if dtype.startswith(SEED_KEY):
            dtype_of_key = jax.eval_shape(lambda: jax.random.key(0)).dtype
            abstract[tuple(name.split("/"))] = jax.ShapeDtypeStruct(shape, dtype_of_key)
            continue
        try:
            abstract[tuple(name.split("/"))] = jax.ShapeDtypeStruct(shape, np.dtype(jax.numpy.dtype(dtype)))
        except TypeError as error:
            raise UserError(f"{folder}: {name} has the unknown type {dtype[:40]!r}; remove this step") from error
    total = sum(int(np.prod(leaf.shape, dtype=object)) for leaf in abstract.values())
    check_memory(4 * total, f"the checkpoint {folder}")
    with Checkpointer(absolute_place(folder.parent)) as checkpoints:
        state, _, _ = checkpoints.restore(leaf_tools.nested(abstract), step)
    for path, leaf in leaf_tools.named_leaves(state).items():
        values = np.asarray(leaf) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.zeros(0)
        is_float = jax.dtypes.issubdtype(values.dtype, np.floating)
        if is_float and not np.isfinite(values.astype(np.float32)).all():
            raise UserError(f"{folder}: {'/'.join(path)} holds numbers that are not finite; take an earlier step")
    return total


def verify_checkpoints(folder: epath.Path, manifest: dict[str, Any] | None, notes: Notes) -> None:
    """Checks every committed step of a folder of checkpoints.

    Raises:
      UserError: a step is damaged, or there is none.
    """
    steps = list_steps(folder, committed=True)
    if not steps:
        raise UserError(f"{folder} holds no committed checkpoint; give the folder of a run")
    for step in steps:
        verify_checkpoint(step_folder(folder, step), None, notes)

"""Leaves of a train state by path name: what is stored, and what is compared before a restore.

A checkpoint holds nested dicts keyed by path names, whatever containers the state was made of, so that a reader needs
none of the classes of the writer, and a message can name a leaf.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from apertus_jax.errors import UserError
from apertus_jax.sharding import path_names

LeafPath = tuple[str, ...]
MAX_NAMED = 3
KEY_IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")


def named_leaves(tree: Any) -> dict[LeafPath, Any]:
    """Returns the leaves of a tree by path.

    Raises:
      ValueError: two leaves share a name.
    """
    leaves = [(path_names(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    counts = collections.Counter("/".join(path) for path, _ in leaves)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(f"two leaves of the state are both called {repeated[0]}")
    return dict(leaves)


def nested(leaves: Mapping[LeafPath, Any]) -> dict[str, Any]:
    """Returns nested dicts for leaves by path."""
    root: dict[str, Any] = {}
    for path, leaf in leaves.items():
        branch = root
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = leaf
    return root


def dtype_name(leaf: Any) -> str:
    """Returns the dtype of an array, an abstract array or a Python number, as text ("bfloat16", "key<fry>")."""
    return str(leaf.dtype) if hasattr(leaf, "dtype") else str(np.asarray(leaf).dtype)


def describe(leaves: Mapping[LeafPath, Any]) -> dict[str, dict[str, Any]]:
    """Returns the table of leaves that is stored beside them: name → shape and dtype."""
    return {"/".join(path): {"shape": list(np.shape(leaf)), "dtype": dtype_name(leaf)} for path, leaf in leaves.items()}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def captured(leaf: Any) -> Any:
    """Returns what is stored of a leaf: device arrays as they are, key bits of keys, host values copied right now."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.array(leaf)


def check_compatible(
    saved: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]], source: str, partial: bool = False
) -> None:
    """Checks that a checkpoint holds exactly the leaves that are asked for, before anything is read.

    Args:
      saved: the table of leaves in the checkpoint.
      wanted: the table of leaves in the request.
      source: what the checkpoint is called in the message.
      partial: leaves of the checkpoint that are not asked for are left alone.

    Raises:
      UserError: shapes differ, leaves are missing or left over, or dtypes differ (values are never cast silently).
    """
    shared = [name for name in wanted if name in saved]
    problems = [
        f"{name} has shape {tuple(saved[name]['shape'])} in the checkpoint and {tuple(wanted[name]['shape'])} here"
        for name in shared
        if list(saved[name]["shape"]) != list(wanted[name]["shape"])
    ]
    problems += [
        f"{name} {tuple(wanted[name]['shape'])} is part of this run and missing from the checkpoint"
        for name in wanted
        if name not in saved
    ]
    if not partial:
        problems += [
            f"{name} {tuple(saved[name]['shape'])} is in the checkpoint and no part of this run"
            for name in saved
            if name not in wanted
        ]
    advice = "restore it with the configuration it was saved with"
    if not problems:
        problems = [
            f"{name} is {saved[name]['dtype']} in the checkpoint and {wanted[name]['dtype']} here"
            for name in shared
            if saved[name]["dtype"] != wanted[name]["dtype"]
        ]
        advice = "values are never cast silently: ask for the saved dtypes and cast afterwards"
    if problems:
        more = f" (and {len(problems) - MAX_NAMED} more)" if len(problems) > MAX_NAMED else ""
        raise UserError(f"{source} does not fit: {'; '.join(problems[:MAX_NAMED])}{more}; {advice}")


def stored_form(wanted: Any) -> Any:
    """Returns the abstract value of what is stored of a requested leaf."""
    if not _is_key(wanted):
        return wanted
    bits = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(wanted.shape, wanted.dtype))
    return jax.ShapeDtypeStruct(bits.shape, bits.dtype, sharding=getattr(wanted, "sharding", None))


def restore_arguments(stored: Any) -> Any:
    """Returns how Orbax restores a stored leaf: onto the sharding it carries, or, without one, into host memory."""
    sharding = getattr(stored, "sharding", None)
    if sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=tuple(stored.shape))


def restored_like(wanted: Any, value: Any) -> Any:
    """Returns a restored value in the type of the request: keys, NumPy scalars and Python numbers included."""
    if _is_key(wanted):
        dtypes = {impl: jax.eval_shape(lambda i=impl: jax.random.key(0, impl=i)).dtype for impl in KEY_IMPLEMENTATIONS}
        return jax.random.wrap_key_data(value, impl=next(impl for impl in dtypes if dtypes[impl] == wanted.dtype))
    if isinstance(wanted, np.generic):
        return value[()]
    return type(wanted)(value) if isinstance(wanted, (bool, int, float)) else value

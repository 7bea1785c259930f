"""Shardings from logical axis names: of the parameters, and of the train state that mirrors them."""

from __future__ import annotations

import logging
import math
from typing import Any

import flax.linen as nn
import jax
from flax.core import meta
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from rich.table import Table

from apertus_jax.errors import UserError
from apertus_jax.sharding.mesh import replicated
from apertus_jax.sharding.rules import AxisRules

_log = logging.getLogger(__name__)


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Returns the entries of a JAX key path as plain names."""
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def unbox(boxed: Any) -> Any:
    """Returns the plain tree behind Linen's boxes, without applying constraints: safe for abstract values."""
    return jax.tree.map(
        lambda leaf: leaf.unbox(apply_constraint=False) if _is_box(leaf) else leaf, boxed, is_leaf=_is_box
    )


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, meta.Partitioned)


def _value_of(leaf: Any) -> Any:
    return leaf.unbox(apply_constraint=False) if _is_box(leaf) else leaf


def partition_spec(names: tuple[str | None, ...], rules: AxisRules, leaf: str = "array") -> PartitionSpec:
    """Returns the partition of an array whose axes are called `names`; a mesh axis is used once, in table order.

    Raises:
      UserError: the table has no rule for one of the names.
    """
    known = {name for name, _ in rules}
    for name in names:
        if name is not None and name not in known:
            raise UserError(f"{leaf} has an axis named {name!r} and the table of axis rules lacks it; add an entry")
    spec = nn.logical_to_mesh_axes(names, rules)
    assert spec is not None  # only names=None gives None
    return spec


def check_divides(leaf: str, shape: tuple[int, ...], sharding: NamedSharding) -> None:
    """Checks that every split axis of an array divides.

    Raises:
      UserError: names the leaf, the axis, its size and the number of parts.
    """
    for axis, mesh_axes in enumerate(sharding.spec):
        names = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes or ()
        parts = math.prod(sharding.mesh.shape[name] for name in names)
        if shape[axis] % parts:
            raise UserError(
                f"{leaf} of shape {tuple(shape)} does not divide: axis {axis} has size {shape[axis]} and is split over "
                f"{' × '.join(f'{name}={sharding.mesh.shape[name]}' for name in names)}; change the mesh or override "
                "its rule in MeshConfig.rule_overrides"
            )


def _named_leaves(boxed_abstract_params: Any) -> dict[tuple[str, ...], Any]:
    tree = boxed_abstract_params
    if isinstance(tree, dict) and set(tree) == {"params"}:
        tree = tree["params"]
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box)
    return {path_names(path): leaf for path, leaf in leaves}


def _leaf_sharding(path: tuple[str, ...], leaf: Any, mesh: Mesh | AbstractMesh, rules: AxisRules) -> NamedSharding:
    name = "/".join(path)
    value = _value_of(leaf)
    names = tuple(leaf.names) if _is_box(leaf) else (None,) * len(value.shape)
    if len(names) != len(value.shape):
        raise UserError(f"{name} has shape {tuple(value.shape)} and {len(names)} axis names {names}; name every axis")
    sharding = NamedSharding(mesh, partition_spec(names, rules, name))
    check_divides(name, value.shape, sharding)
    return sharding


def parameter_shardings(boxed_abstract_params: Any, mesh: Mesh | AbstractMesh, rules: AxisRules) -> Any:
    """Returns the tree of shardings of the parameters (unboxed structure).

    Args:
      boxed_abstract_params: parameters or their shapes, boxed by `nn.with_logical_partitioning`; unboxed leaves are
        replicated.
      mesh: the mesh.
      rules: the table of axis rules.

    Raises:
      UserError: an axis does not divide or has no rule; the message names the leaf.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _leaf_sharding(path_names(path), leaf, mesh, rules), boxed_abstract_params, is_leaf=_is_box
    )


def state_shardings(
    abstract_state: Any, boxed_abstract_params: Any, mesh: Mesh | AbstractMesh, rules: AxisRules
) -> Any:
    """Returns the tree of shardings of a train state.

    A leaf whose path ends in a parameter's path and whose shape is that parameter's is split like it: the parameters
    themselves, and every optimizer moment. Everything else is replicated; a matrix among it is logged.

    Raises:
      UserError: a parameter does not divide; the message names the leaf.
    """
    parameters = {
        path: (tuple(_value_of(leaf).shape), _leaf_sharding(path, leaf, mesh, rules))
        for path, leaf in _named_leaves(boxed_abstract_params).items()
    }

    def sharding_of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = path_names(path)
        shape = tuple(getattr(leaf, "shape", ()))
        for start in range(len(names)):
            mirrored = parameters.get(names[start:])
            if mirrored is not None and mirrored[0] == shape:
                return mirrored[1]
        if len(shape) > 1:
            _log.warning("%s %s mirrors no parameter: it is kept whole on every device", "/".join(names), shape)
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding_of, unbox(abstract_state))


def with_shardings(abstract_tree: Any, shardings: Any) -> Any:
    """Returns a tree of `ShapeDtypeStruct` with their shardings: what a checkpoint is restored onto."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        unbox(abstract_tree),
        shardings,
    )


def partition_table(boxed_abstract_params: Any, mesh: Mesh | AbstractMesh, rules: AxisRules) -> Table:
    """Returns a table for people: each parameter's shape, axis names, partition and size per device."""
    sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    table = Table(title=f"Parameters on the mesh {sizes}")
    for column in ("parameter", "shape", "axes", "split over"):
        table.add_column(column, overflow="fold")
    table.add_column("MiB per device", justify="right")
    total = 0
    for path, leaf in _named_leaves(boxed_abstract_params).items():
        sharding = _leaf_sharding(path, leaf, mesh, rules)
        value = _value_of(leaf)
        size = math.prod(sharding.shard_shape(tuple(value.shape))) * jax.numpy.dtype(value.dtype).itemsize
        total += size
        axes = ", ".join(str(name) for name in leaf.names) if _is_box(leaf) else "(unnamed)"
        parts = ["·" if part is None else part if isinstance(part, str) else "×".join(part) for part in sharding.spec]
        table.add_row("/".join(path), str(tuple(value.shape)), axes, ", ".join(parts), f"{size / 2**20:.2f}")
    table.add_section()
    table.add_row("all", "", "", "", f"{total / 2**20:.2f}")
    return table

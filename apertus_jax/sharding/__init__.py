"""Sharding: the device mesh, the table of axis rules, and the shardings that follow from them."""

from apertus_jax.sharding.mesh import (
    MeshConfig,
    batch_sharding,
    check_batch,
    logical_axis_rules,
    make_mesh,
    mesh_shape,
    replicated,
    rows_of_process,
    use_mesh,
)
from apertus_jax.sharding.partition import (
    check_divides,
    parameter_shardings,
    partition_spec,
    partition_table,
    path_names,
    state_shardings,
    unbox,
    with_shardings,
)
from apertus_jax.sharding.rules import BATCH_AXES, MESH_AXES, PRESETS, AxisRules, override_rules, resolve_rules

__all__ = [
    "BATCH_AXES",
    "MESH_AXES",
    "PRESETS",
    "AxisRules",
    "MeshConfig",
    "batch_sharding",
    "check_batch",
    "check_divides",
    "logical_axis_rules",
    "make_mesh",
    "mesh_shape",
    "override_rules",
    "parameter_shardings",
    "partition_spec",
    "partition_table",
    "path_names",
    "replicated",
    "resolve_rules",
    "rows_of_process",
    "state_shardings",
    "unbox",
    "use_mesh",
    "with_shardings",
]

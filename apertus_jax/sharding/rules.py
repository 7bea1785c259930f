"""Axis rules: one table of the mesh axes along which each logical axis is split.

Modules name the axes of their parameters and activations; only this table knows the mesh. A preset is a whole table;
`MeshConfig.rules` takes a preset's name or a table of its own, and `rule_overrides` changes single entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apertus_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor", "context")
BATCH_AXES = ("data", "fsdp")

MeshAxes = str | tuple[str, ...] | None
AxisRules = tuple[tuple[str, MeshAxes], ...]

_ACTIVATIONS: AxisRules = (
    ("activation_batch", BATCH_AXES),
    ("activation_length", "context"),
    ("activation_embed", None),
    ("activation_heads", "tensor"),
    ("activation_kv_heads", "tensor"),
    ("activation_mlp", "tensor"),
    ("activation_vocab", "tensor"),
)
_UNSPLIT_PARAMETERS: AxisRules = (
    ("vocab", None),
    ("embed", None),
    ("heads", None),
    ("kv_heads", None),
    ("head_dim", None),
    ("mlp", None),
    ("layers", None),
    ("norm", None),
)


def override_rules(rules: Iterable[tuple[str, MeshAxes]], overrides: Iterable[tuple[str, MeshAxes]]) -> AxisRules:
    """Returns `rules` with the entries of the array axes named in `overrides` replaced.

    Raises:
      UserError: an override names an array axis that the table does not have.
    """
    table = [(name, _as_mesh_axes(axes)) for name, axes in rules]
    known = {name for name, _ in table}
    changed = [(name, _as_mesh_axes(axes)) for name, axes in overrides]
    for name, _ in changed:
        if name not in known:
            raise UserError(f"MeshConfig.rule_overrides names the axis {name!r}; known axes are {sorted(known)}")
    replaced = {name for name, _ in changed}
    return tuple(changed + [entry for entry in table if entry[0] not in replaced])


def _as_mesh_axes(axes: str | Sequence[str] | None) -> MeshAxes:
    return axes if axes is None or isinstance(axes, str) else tuple(axes)


_FSDP: AxisRules = (("embed", "fsdp"),)
_TENSOR: AxisRules = (("vocab", "tensor"), ("heads", "tensor"), ("kv_heads", "tensor"), ("mlp", "tensor"))
_NO_TENSOR_ACTIVATIONS: AxisRules = (
    ("activation_heads", None),
    ("activation_kv_heads", None),
    ("activation_mlp", None),
    ("activation_vocab", None),
)
_EVERYTHING = override_rules(_UNSPLIT_PARAMETERS + _ACTIVATIONS, _TENSOR + _FSDP)
# Tokens are looked up in a table split by rows: with columns over `fsdp`, XLA gathers the embedded batch of the whole
# mesh onto every device before it splits it by sequences. First in the table, so that it has `fsdp` before "embed".
_WHOLE_ROWS = override_rules(_EVERYTHING, (("vocab", ("tensor", "fsdp")),))

PRESETS: dict[str, AxisRules] = {
    # Parameters whole on every device, only the batch is split.
    "data": override_rules(_UNSPLIT_PARAMETERS + _ACTIVATIONS, _NO_TENSOR_ACTIVATIONS),
    "fsdp": override_rules(_UNSPLIT_PARAMETERS + _ACTIVATIONS, _FSDP + _NO_TENSOR_ACTIVATIONS),
    "tensor": override_rules(_UNSPLIT_PARAMETERS + _ACTIVATIONS, _TENSOR),
    "cpu": _WHOLE_ROWS,
    "gpu": _WHOLE_ROWS,
    # The residual stream is split too: what the backward pass keeps of each layer shrinks by the size of `tensor`, and
    # the extra gathers ride on the fast links of the torus. Here it is columns of the table that XLA splits well.
    "tpu": override_rules(_EVERYTHING, (("activation_embed", "tensor"),)),
}


def resolve_rules(
    rules: str | Iterable[tuple[str, MeshAxes]], platform: str, overrides: Iterable[tuple[str, MeshAxes]] = ()
) -> AxisRules:
    """Returns the table for a preset's name, for "auto" (the preset of `platform`), or for a table given in full.

    Raises:
      UserError: unknown preset, or a rule that names a mesh axis that does not exist.
    """
    if isinstance(rules, str):
        name = (platform if platform in PRESETS else "gpu") if rules == "auto" else rules
        if name not in PRESETS:
            raise UserError(f"MeshConfig.rules={rules!r} is not a preset; choose 'auto' or one of {sorted(PRESETS)}")
        table = PRESETS[name]
    else:
        table = tuple((name, _as_mesh_axes(axes)) for name, axes in rules)
    table = override_rules(table, overrides)
    for name, axes in table:
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if axis not in MESH_AXES:
                raise UserError(f"the axis rule {name!r} → {axes!r} names no mesh axis; mesh axes are {MESH_AXES}")
    return table

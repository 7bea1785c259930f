"""Shard tasks of `prepare`: the list of them, and doing one.

A task is one unit in one stage. It writes one folder, which is committed with digests, and does nothing when that
folder is complete already; two processes never write the same one at once. Launchers only decide who does which.
"""

from __future__ import annotations

from typing import Any

from etils import epath

from apertus_jax.storage import artifacts
from apertus_jax.storage.lease import acquire_lease

LEASES = ".leases"


def unit_folder(stage_folder: epath.PathLike, number: int) -> epath.Path:
    """Returns the folder of one unit in a stage."""
    return epath.Path(stage_folder) / f"{number:06d}"


def is_done(stage_folder: epath.PathLike, number: int) -> bool:
    """Returns whether a unit's folder in a stage is committed."""
    return artifacts.is_complete(unit_folder(stage_folder, number))


def missing_units(stage_folder: epath.PathLike, total: int) -> list[int]:
    """Returns the units of a stage that are not committed yet."""
    return [number for number in range(total) if not is_done(stage_folder, number)]


def do_unit(stage: Any, number: int) -> bool:
    """Does one unit of a stage unless it is done; returns whether there was work.

    Args:
      stage: has `folder`, `kind`, `inputs` and `write(number, build)`.
      number: the unit.

    Raises:
      UserError: the folder was written from other inputs, or another process is at work on it.
    """
    place = unit_folder(stage.folder, number)
    if artifacts.already_built(place, stage.kind, stage.inputs):
        return False
    with acquire_lease(epath.Path(stage.folder) / LEASES / f"{number:06d}"):
        if artifacts.already_built(place, stage.kind, stage.inputs):
            return False
        with artifacts.build(place, stage.kind, stage.inputs) as build:
            build.summary.update(stage.write(number, build.path))
    return True


def read_summaries(stage_folder: epath.PathLike, kind: str, total: int) -> list[dict[str, Any]]:
    """Returns the summaries that the units of a finished stage left, in order.

    Raises:
      UserError: a unit is missing.
    """
    return [artifacts.read_manifest(unit_folder(stage_folder, number), kind)["summary"] for number in range(total)]

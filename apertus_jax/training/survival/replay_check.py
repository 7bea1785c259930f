"""Replay check: a step computed twice from the same state has the same bits, or a device computes wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from apertus_jax.errors import TemporaryFailure
from apertus_jax.sharding import replicated
from apertus_jax.training.program import Program
from apertus_jax.training.state import TrainState

Result = tuple[TrainState, dict[str, jax.Array]]
ARRAYS_NAMED = 3


def bits(array: jax.Array) -> jax.Array:
    """Returns the bits of an array as unsigned integers of the same width; booleans as they are."""
    if array.dtype == jnp.bool_:
        return array
    return lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}"))


def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _differs(first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.any(bits(a) != bits(b)), first, second)


def checked_step(program: Program, state: TrainState, batch: Mapping[str, jax.Array], step: int) -> Result:
    """Runs a step twice from the same state, by the same executable, and compares every bit on the devices.

    The devices hold the state twice meanwhile. `state` is donated, as by `Program.step`, whose result this is.

    Args:
      program: the compiled step.
      state: the state before.
      batch: the batch.
      step: the number of the step, counted from 1, for the message.

    Raises:
      TemporaryFailure: the results differ; the arrays and the devices of this process are named.
    """
    first = program.step(jax.jit(_copied, out_shardings=program.state_shardings)(state), batch)
    second = program.step(state, batch)
    # Replicated, so that every process of a job reads the same and all raise or none does.
    flags = jax.device_get(jax.jit(_differs, out_shardings=replicated(program.mesh))(first, second))
    found = [path for path, flag in jax.tree_util.tree_leaves_with_path(flags) if flag]
    if not found:
        return second
    pairs = zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True)
    differing = {_spelled(path): (left, right) for (path, left), right in pairs if path in found}
    devices = {device for left, right in differing.values() for device in _differing_devices(left, right)}
    names = ", ".join(list(differing)[:ARRAYS_NAMED])
    more = f" and {len(differing) - ARRAYS_NAMED} more" if len(differing) > ARRAYS_NAMED else ""
    where = ", ".join(sorted(map(str, devices))) or f"none of process {jax.process_index()}"
    raise TemporaryFailure(
        f"step {step}, computed twice from one state, gave different bits in {names}{more}, on the devices {where}; "
        "a device or its memory computes wrongly: take its machine out, and start again from the last checkpoint"
    )


def _spelled(path: Any) -> str:
    """Returns the path of a leaf of `(state, metrics)` below either."""
    return jax.tree_util.keystr(path[1:], simple=True, separator="/")


def _differing_devices(left: jax.Array, right: jax.Array) -> list[jax.Device]:
    """Returns the devices of this process whose parts of two arrays differ."""
    shards = zip(left.addressable_shards, right.addressable_shards, strict=True)
    return [a.device for a, b in shards if np.asarray(a.data).tobytes() != np.asarray(b.data).tobytes()]

"""First state of a start: restored from the run's own checkpoint, made of weights of before, or drawn at random."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax

from apertus_jax.checkpoints import Checkpointer
from apertus_jax.errors import UserError
from apertus_jax.process.agreement import first_says
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.training.program import Program
from apertus_jax.training.records import run_record
from apertus_jax.training.records.run_history import config_before, read_changes
from apertus_jax.training.records.telemetry import MetricsLog
from apertus_jax.training.starting.origin import Origin
from apertus_jax.training.starting.parent_weights import errors_name_the_setting
from apertus_jax.training.state import TrainState
from apertus_jax.training.survival.step_guard import initial_values

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """State that a run begins with, read of its parent, and the metadata of the step that it goes on from."""

    state: TrainState
    metadata: Mapping[str, Any]


def load_parent(program: Program, origin: Origin) -> Loaded | None:
    """Reads the weights that a run starts from onto the mesh, shard by shard; None when it starts from none.

    Raises:
      UserError: damaged files, values that are not finite, or a state of another optimizer.
    """
    weights = origin.weights
    if weights is None:
        return None
    with errors_name_the_setting(origin.asked):
        if weights.record.with_optimizer:
            with Checkpointer(RunFolder(weights.record.path).checkpoints) as theirs:
                state, metadata, _ = restore(program, theirs, weights.record.step)
            return Loaded(state, metadata)
        params = weights.load(program.state_shardings.params)
    return Loaded(program.state_of_parameters(params), {})


def restore(program: Program, checkpoints: Checkpointer, step: int | None = None) -> tuple[Any, dict[str, Any], int]:
    """Returns `(state, metadata, step)` of a step, default the newest valid one; a guard may be switched on or off.

    Raises:
      UserError: the step is damaged, there is no valid one, or its state is another program's.
    """
    abstract, saved_guard = program.abstract_state, checkpoints.newest_has_leaves("running")
    if program.guard.is_on and not saved_guard:  # it was switched on here
        state, metadata, step = checkpoints.restore(dataclasses.replace(abstract, running=None), step)
        running = jax.device_put(initial_values(), program.state_shardings.running)
        return dataclasses.replace(state, running=running), metadata, step
    return checkpoints.restore(abstract, step, partial=saved_guard and not program.guard.is_on)


def begin_branch(folder: RunFolder, checkpoints: Checkpointer, origin: Origin, loaded: Loaded) -> None:
    """Makes a run folder what it would be had the parent's run gone to that step in it; then it is resumed.

    The checkpoint comes last: until it is committed the next start does all of this again.
    """
    parent = origin.parent
    assert parent is not None and parent.step is not None  # a branch is of a step
    step = parent.step
    first_says(lambda: _copy_records(folder, RunFolder(parent.path), step, origin))
    checkpoints.save(step, loaded.state, loaded.metadata, wait=True)
    _log.info("goes on from step %d of %s, weights and optimizer", step, parent.path)


def _copy_records(folder: RunFolder, theirs: RunFolder, step: int, origin: Origin) -> None:
    """Writes configuration, orders of samples and metrics of the steps before `step`, as the parent recorded them."""
    record = run_record.read_run_record(theirs.path)
    data = run_record.read_data_record(theirs.path)
    if record is None or data is None:
        raise UserError(f"{theirs.path} has lost its records since this start looked at it; restore them")
    changes = read_changes(record)
    config = config_before(record["config"], changes, step)
    before = [change for change in changes if change.step < step]
    run_record.write_json(folder.mixture, run_record.data_record_until(data, step))
    if theirs.metrics.exists():
        theirs.metrics.copy(folder.metrics, overwrite=True)
        MetricsLog(folder.path, step).close()
    run_record.write_record(
        folder.path, record["identity"], config, record.get("tombstones"), before, parent=origin.record
    )


def restore_or_initialize(
    program: Program, checkpoints: Checkpointer, seed: int, loaded: Loaded | None = None
) -> tuple[Any, dict[str, Any], int]:
    """Returns `(state, metadata, step)`: 1 of the newest valid checkpoint, 2 of weights of before, 3 drawn at random.

    Raises:
      UserError: there are checkpoints but none is valid; starting over silently would hide the loss.
    """
    if checkpoints.committed_steps():
        state, metadata, step = restore(program, checkpoints)
        _log.info("resumed at step %d", step)
        return state, metadata, step
    if loaded is not None:
        _log.info("no checkpoint yet: starting from the weights that were given")
        return loaded.state, {}, 0
    _log.info("no checkpoint yet: starting from random parameters (seed %d)", seed)
    return program.initial_state(seed), {}, 0

"""Replay of a recorded run, with each of its changes at the step where it happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.run_parent import read_parent
from apertus_jax.terminal.terminal_text import printable
from apertus_jax.training import tombstones
from apertus_jax.training.records import run_length
from apertus_jax.training.records.run_history import (
    DATA_FIELDS,
    config_before,
    read_changes,
    schedule_bindings,
    steps_of_changes,
)
from apertus_jax.training.records.run_record import read_run_record
from apertus_jax.training.starting import origin

# What stands in the record of a run and is no binding: it follows from the others.
DERIVED = (run_length.BINDING, origin.BINDING)
# What the chain binds itself, when it does the run again; a record that says otherwise was changed by hand.
SAID_BY_THE_CHAIN = ("pretrain.output", "pretrain.store", "RunSchedule.stop_step", "pretrain.allow_config_change")


def replay_pretrain(
    original: epath.PathLike, command: Callable[[], Any], bind: Callable[[Mapping[str, str]], None]
) -> Any:
    """Calls `pretrain` once for each stretch of the original run that had one configuration.

    Args:
      original: the run folder that is done again.
      command: calls `pretrain` with what is bound, into another folder.
      bind: binds names to values as run.json spells them; what is bound already is the newest configuration.

    Returns:
      What the last call returned.

    Raises:
      UserError: the record is damaged, or has a change that cannot be made again.
    """
    record = read_run_record(epath.Path(original)) or {"config": {}}
    parent = read_parent(original)
    # What changed before a run went on from the parent's step is the parent's to do again.
    begin = parent.step or 0 if parent is not None and parent.with_optimizer else 0
    changes = [change for change in read_changes(record) if change.step > begin or not begin]
    names = {change.binding for change in changes} - set(DERIVED)
    for change in changes:
        if change.binding == tombstones.BINDING:
            raise UserError(
                f"{original} went on under other tombstones at step {change.step}; the ones of before are not on "
                "record, so this run cannot be done again"
            )
        if change.binding.rpartition("/")[2] in SAID_BY_THE_CHAIN or change.step < 1:
            raise UserError(
                f"{original} says that {printable(change.binding)} changed at step {change.step}, which no run "
                "records; restore its run.json"
            )
        if change.binding in DATA_FIELDS:
            raise UserError(
                f"{original} was not started by the command line, and changed {change.binding} at step {change.step}; "
                "do it again with the program that started it"
            )
    for step in steps_of_changes(changes):
        config = config_before(record["config"], changes, step)
        values = {name: config[name] for name in names if name in config}
        stop = dict.fromkeys(schedule_bindings(config, "stop_step"), repr(step))
        bind({**values, **stop, "pretrain.allow_config_change": "True"})
        command()
    if changes:
        values = {name: record["config"][name] for name in names if name in record["config"]}
        bind({**values, **dict.fromkeys(schedule_bindings(record["config"], "stop_step"), "None")})
    return command()

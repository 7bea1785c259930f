"""Run history: changes in the middle of a run, as a dated list of step, binding, old and new value.

A step that is done again under other settings, after a crash or from an earlier checkpoint, has the settings under
which it counts. So the list is read backwards: undoing every change at or after a step gives what held before it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apertus_jax import clock
from apertus_jax.errors import UserError

HISTORY = "history"
# What the data are read by, for runs whose configuration is not gin's: fields of mixture.json.
DATA_FIELDS = ("batch_schedule", "sequence_length", "seed", "mixture", "sample_index")


@dataclasses.dataclass(frozen=True)
class Change:
    """From step `step` on, which begins with sample `sample`, `binding` is `new`; before it was `old`. None: absent."""

    step: int
    sample: int
    date: str
    binding: str
    old: str | None
    new: str | None


def read_changes(record: Mapping[str, Any]) -> list[Change]:
    """Returns the changes that a run.json lists, in the order of their steps.

    Raises:
      UserError: the list is damaged.
    """
    try:
        changes = [Change(**entry) for entry in record.get(HISTORY, [])]
        if not all(isinstance(change.step, int) and isinstance(change.binding, str) for change in changes):
            raise TypeError("a step or binding of another kind")
        if not all(isinstance(value, str | None) for change in changes for value in (change.old, change.new)):
            raise TypeError("a value of another kind")
    except TypeError as error:
        raise UserError(f"the history in run.json is damaged ({error}); restore it") from error
    return sorted(changes, key=lambda change: change.step)


def config_before(config: Mapping[str, str], changes: Iterable[Change], step: int) -> dict[str, str]:
    """Returns the configuration of the steps right before `step`, from the newest one."""
    before = dict(config)
    for change in sorted(changes, key=lambda change: change.step, reverse=True):
        if change.step < step:
            break
        if change.old is None:
            before.pop(change.binding, None)
        else:
            before[change.binding] = change.old
    return before


def changes_at(
    step: int, sample: int, old: Mapping[str, str], new: Mapping[str, str], names: Iterable[str]
) -> list[Change]:
    """Returns the changes of the bindings `names` that a start at `step` makes, dated now (UTC)."""
    date = clock.now().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return [
        Change(step, sample, date, name, old.get(name), new.get(name))
        for name in sorted(names)
        if old.get(name) != new.get(name)
    ]


def extended_history(
    before: Sequence[Change], made: Sequence[Change], step: int, last_known: Sequence[Change]
) -> list[Change]:
    """Returns the changes up to `step`, and those that the start at `step` makes; one made before keeps its date."""
    dated = {(c.step, c.sample, c.binding, c.old, c.new): c for c in last_known}
    kept = [change for change in before if change.step < step]
    return kept + [dated.get((c.step, c.sample, c.binding, c.old, c.new), c) for c in made]


def data_settings(description: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a phase of mixture.json was made from, spelled, by field."""
    made_from = description.get("made_from", {})
    values = {name: description.get(name, made_from.get(name)) for name in DATA_FIELDS}
    return {name: json.dumps(value, sort_keys=True) for name, value in values.items()}


def schedule_bindings(config: Mapping[str, str], field: str) -> list[str]:
    """Returns the names under which a configuration binds a field of its `RunSchedule`, whatever the scope."""
    return [name for name in config if name.rpartition("/")[2] == f"RunSchedule.{field}"]


def steps_of_changes(changes: Iterable[Change]) -> list[int]:
    """Returns the steps at which something changed, each once, ascending."""
    return sorted({change.step for change in changes})

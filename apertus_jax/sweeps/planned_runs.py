"""Planned runs of a sweep: each one's configuration, checked before any starts, and the record of the plan."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax import configuration
from apertus_jax.data import TokenStore
from apertus_jax.errors import UserError
from apertus_jax.sweeps.sweep_folder import OWN_NAMES
from apertus_jax.sweeps.variations import Variation
from apertus_jax.terminal.terminal_text import one_line
from apertus_jax.training.pretrain import check_vocabulary
from apertus_jax.training.records.run_length import chain_of_run
from apertus_jax.training.records.run_record import read_finished

COMMAND = "pretrain"
FLAGS = {
    "pretrain.store": "store",
    "pretrain.output": "output",
    "RunSchedule.total_steps": "steps",
    "RemovalOptions.tombstones": "tombstones",
    "RemovalOptions.date": "date",
}
# What the sweep decides for each run.
DECIDED = ("pretrain.output", "pretrain.distributed")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
      name: of the run and its folder.
      folder: where it is trained.
      varied: gin name → value as in a flag, what sets it apart.
      given: gin files and bindings that all runs have.
      plain: what has a flag of its own: gin name → value.
      total_steps: of the whole run.
    """

    name: str
    folder: epath.Path
    varied: Mapping[str, str]
    given: configuration.GivenConfiguration
    plain: Mapping[str, Any]
    total_steps: int = 0

    def configure(self) -> None:
        """Makes this run's configuration the one in effect, in place of whatever was read before."""
        own = [f"{name} = {value}" for name, value in self.varied.items()]
        read = configuration.parse(self.given.gin_files, [*self.given.bindings, *own])
        for name, value in self.plain.items():
            if name not in self.varied:
                configuration.bind_in_every_scope(name, value, read)
        configuration.refer_to_options(COMMAND)

    def is_finished(self) -> bool:
        """Returns whether the run has ended after as many steps as it is to have."""
        return (read_finished(self.folder) or {}).get("step") == self.total_steps

    def command_line(self, modules: Sequence[str]) -> str:
        """Returns the command that trains this run alone, quoted for a shell."""
        flags = [f"--import={module}" for module in modules]
        flags += [f"--gin_file={file}" for file in self.given.gin_files]
        flags += [f"--gin.{binding.replace(' = ', '=', 1)}" for binding in self.given.bindings]
        flags += [f"--gin.{name}={value}" for name, value in self.varied.items()]
        # A flag would win over a variation of the same name.
        flags += [f"--{FLAGS[name]}={value}" for name, value in self.plain.items() if name not in self.varied]
        return shlex.join(["apertus", COMMAND, *flags])


def plan_runs(
    root: epath.Path, found: Sequence[Variation], given: configuration.GivenConfiguration, plain: Mapping[str, Any]
) -> list[PlannedRun]:
    """Returns the runs, every one's configuration read and built once, so that no value is wrong in the tenth hour.

    Args:
      root: folder of the sweep.
      found: what varies.
      given: gin files and bindings that all runs have.
      plain: gin name → value of what was given by a flag of its own.

    Raises:
      UserError: a name or value is not what it must be, the sweep decides it, or no run uses it; the run is named.
    """
    varied = list(found[0].bindings)
    if decided := [name for name in varied if _bare(name) in DECIDED]:
        raise UserError(f"--vary names {decided[0]}, which the sweep itself decides; vary something else")
    configuration.name_flags(COMMAND, {name.removeprefix(f"{COMMAND}."): flag for name, flag in FLAGS.items()})
    runs, used = [], set()
    stores: dict[str, TokenStore] = {}
    for each in found:
        if each.name in OWN_NAMES:
            raise UserError(f"a run cannot be called {each.name!r}, which the sweep writes; choose another name")
        flags = {**plain, "pretrain.output": str(root / each.name)}
        run = PlannedRun(each.name, root / each.name, each.bindings, given, flags)
        try:
            run.configure()
            total_steps = check_configured(stores)
        except UserError as error:
            raise UserError(f"run {run.name}: {one_line(error)}") from error
        used |= {_bare(name) for name in configuration.resolved_bindings(COMMAND)}
        runs.append(dataclasses.replace(run, total_steps=total_steps))
    for name in varied:
        if not any(each == _bare(name) or each.endswith(f"/{_bare(name)}") for each in used):
            raise UserError(f"--vary names {name}, and nothing in these runs uses it; bind what does, or leave it out")
    return runs


def check_configured(stores: dict[str, TokenStore]) -> int:
    """Builds everything that the configured run is made of, and returns its steps.

    Args:
      stores: token stores that are open already, by folder; those of this run are added.

    Raises:
      UserError: a value is missing or refused, the store cannot be read, or it has more token ids than the model.
    """
    arguments = configuration.built_arguments(COMMAND)
    training, store, schedule = arguments["training"], arguments["store"], arguments["schedule"]
    # Settings of optimizer and schedule are checked when they are made.
    chain_of_run(arguments["optimizer"], schedule.from_start(training.sequence_length), training)
    if store not in stores:
        stores[store] = TokenStore.open(store, checked_blocks=training.checked_blocks, seed=training.seed)
    check_vocabulary(stores[store], arguments["model"], store)
    return schedule.total_steps


def _bare(name: str) -> str:
    return name.replace("apertus.", "")

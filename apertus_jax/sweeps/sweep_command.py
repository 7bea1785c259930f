"""The `sweep` command: every combination of some values of a configuration, each trained as a run of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax import configuration
from apertus_jax.errors import UserError
from apertus_jax.process.share_of_work import Share
from apertus_jax.sweeps.local_runs import FAILED, NOT_BEGUN, STOPPED, Outcome, perform
from apertus_jax.sweeps.planned_runs import plan_runs
from apertus_jax.sweeps.sweep_folder import check_sweep_folder, record_plan
from apertus_jax.sweeps.variations import variations
from apertus_jax.terminal.screen import Screen
from apertus_jax.terminal.tables import show_line, show_table
from apertus_jax.training.compiled_steps import CompiledSteps


def sweep(
    output: str,
    vary: Sequence[str] = (),
    store: str | None = None,
    total_steps: int | None = None,
    tombstones: str | None = None,
    tombstones_date: str | None = None,
    task: str = "",
    list_commands: bool = False,
) -> dict[str, Any]:
    """Trains a run for every combination of the values given, each in a folder of its own below `output`.

    Everything else is configured as for `pretrain`, and every folder is an ordinary run: it resumes, and `evaluate`,
    `generate` and `export` read it. All values are checked before the first run begins. Runs that differ in nothing
    that is compiled, such as the seed, share one compiled program. The same command again goes on where it was
    interrupted: finished runs return at once, others resume from their newest checkpoint. A run that fails does not
    stop the others; it is named at the end, and tried again by the next start.

    Args:
      output: folder of the whole sweep; RUN_NAME/ below it for each run, and sweep.json, the plan.
      vary: what varies, each "NAME=VALUE,VALUE" with values as gin takes them. Several make every combination, the
        last changing fastest. "NAME=V1,V2; OTHER=W1,W2" varies both together, and "name=A,B; NAME=V1,V2" says what
        the runs are called.
      store: folder of the token store, in place of pretrain.store.
      total_steps: steps of each run, in place of RunSchedule.total_steps.
      tombstones: folder that `remove` wrote, in place of RemovalOptions.tombstones.
      tombstones_date: YYYY-MM-DD, in place of RemovalOptions.date.
      task: INDEX/COUNT, only this share of the runs, for arrays of jobs; empty for all.
      list_commands: print the command of every run that is not finished, one a line, and train nothing.

    Returns:
      The outcome of each run by name.

    Raises:
      UserError: a value is refused (nothing was begun), or runs failed (the others are finished).
    """
    given = configuration.given_configuration()
    flags = {
        "pretrain.store": store,
        "RunSchedule.total_steps": total_steps,
        "RemovalOptions.tombstones": tombstones,
        "RemovalOptions.date": tombstones_date,
    }
    plain = {name: value for name, value in flags.items() if value is not None}
    root = epath.Path(output)
    check_sweep_folder(root)
    runs = plan_runs(root, variations(vary), given, plain)
    chosen = [runs[number] for number in Share.parse(task).block(len(runs))]
    if list_commands:
        for run in chosen:
            if not run.is_finished():
                sys.stdout.write(run.command_line(configuration.imported_names()) + "\n")
        return {}
    record_plan(root, {run.name: run.varied for run in runs}, given.gin_files, given.bindings)
    programs = CompiledSteps()
    outcomes = perform(chosen, root, programs)
    show(outcomes, root, programs)
    failed = [each for each in outcomes if each.state == FAILED]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(outcomes)} runs of {root} failed, first {failed[0].name}: {failed[0].error}; "
            "mend it and give the same command again, finished runs stay"
        )
    return {each.name: {"state": each.state, **each.summary} for each in outcomes}


def show(outcomes: Sequence[Outcome], root: epath.Path, programs: CompiledSteps) -> None:
    """Prints how each run ended, and one line of what the sweep did and what to do next."""
    rows = []
    for each in outcomes:
        loss = each.summary.get("loss")
        shown = f"{loss:.4f}" if isinstance(loss, float) else "–"
        rows.append((each.name, each.summary.get("step", "–"), shown, f"{each.seconds:.1f}", each.state))
    show_table(("run", "steps", "loss", "seconds", "state"), rows, right=("steps", "loss", "seconds"))
    for each in outcomes:
        if each.error:
            show_line(f"{each.name}: {each.error}")
    ended = sum(bool(each.summary.get("finished")) for each in outcomes)
    compiled = f"{programs.compiled} programs compiled, {programs.reused} times one was there already"
    line = f"sweep: {ended} of {len(outcomes)} runs finished in {root}; {compiled}"
    if any(each.state in (STOPPED, NOT_BEGUN) for each in outcomes):
        line += "; give the same command again to go on"
    Screen().print(line, markup=False, highlight=False, soft_wrap=True)

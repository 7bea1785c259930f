"""Sweep folder: a folder for each run, the plan, and what failed.

SWEEP/RUN_NAME/…          a run, see storage/run_folder.py
     /sweep.json          the plan: what sets each run apart, gin files and bindings that all have
     /failures/NAME.json  error of a run that failed; gone once it has succeeded
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import write_atomically
from apertus_jax.storage.json_reader import JSONError, read_json_object
from apertus_jax.storage.run_folder import RunFolder, check_folder_of_outputs
from apertus_jax.storage.verification import Notes

PLAN_FILE = "sweep.json"
FAILURES_FOLDER = "failures"
OWN_NAMES = (PLAN_FILE, FAILURES_FOLDER)


def check_sweep_folder(root: epath.Path) -> None:
    """Checks that a folder may hold a sweep: it does already, or holds nothing but runs, or is not there.

    Raises:
      UserError: it is something else; nothing was touched.
    """

    def is_known(path: epath.Path) -> bool:
        # Runs by themselves: those of listed commands.
        return RunFolder(path).is_run() or path.name.startswith(f".{PLAN_FILE}.")

    check_folder_of_outputs(root, "sweep.output", "sweep", (root / PLAN_FILE).exists(), is_known)


def read_plan(root: epath.Path) -> dict[str, Any] | None:
    """Returns what sweep.json says: under "runs" the variation of each run by name; None where there is none.

    Raises:
      UserError: it is damaged.
    """
    path = root / PLAN_FILE
    if not path.exists():
        return None
    try:
        plan = read_json_object(path)
    except JSONError as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or start in a new folder") from error
    runs = plan.get("runs")
    if not isinstance(runs, dict) or not all(isinstance(each, dict) for each in runs.values()):
        raise UserError(f"{path} is not the plan of a sweep; restore it, or start in a new folder")
    return plan


def record_plan(
    root: epath.Path, runs: Mapping[str, Mapping[str, str]], gin_files: Sequence[str], bindings: Sequence[str]
) -> None:
    """Writes sweep.json: runs of an earlier start stay in it, and these (name → variation) are added.

    Raises:
      UserError: a run of the same name was another one.
    """
    known = (read_plan(root) or {"runs": {}})["runs"]
    for name, varied in runs.items():
        if known.get(name, varied) != varied:
            raise UserError(f"{root} has another run called {name}; give a name of its own, or another folder")
        known[name] = dict(varied)
    plan = {
        "runs": known,
        "gin_files": list(gin_files),
        "bindings": list(bindings),
        "code_version": __version__,
    }
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
    path = root / PLAN_FILE
    if not (path.exists() and path.read_text() == text):  # tasks of one sweep all come here
        write_atomically(path, text)


def verify_sweep(folder: epath.Path, manifest: dict[str, Any] | None, notes: Notes) -> None:
    """Checks the plan of a sweep; its runs are verified apart. Raises UserError when it is damaged."""
    del manifest
    plan = read_plan(folder)
    assert plan is not None  # by which the folder is known for a sweep
    notes.add(folder, "plan", f"{len(plan['runs']):,} runs")

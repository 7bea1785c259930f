"""Compared runs: folders found, and what each one's records say of configuration, curves and final figures."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.artifacts import digest_json
from apertus_jax.storage.run_folder import RunFolder
from apertus_jax.sweeps.sweep_folder import PLAN_FILE, read_plan
from apertus_jax.terminal.terminal_text import printable
from apertus_jax.training.records.run_record import decides_the_result, read_finished, read_run_record
from apertus_jax.training.records.telemetry import read_evaluations, read_metrics

TRAIN_LOSS = "train/loss"
STORE = "token store"
NAME = "TrainingConfig.name"
# It may change within one run, and still tells runs apart.
TOTAL_STEPS = "RunSchedule.total_steps"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Values of one metric: after `tokens[i]` trained tokens it was `values[i]`."""

    tokens: Sequence[int]
    values: Sequence[float]


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Attributes:
      name: unique among those compared.
      folder: where it lies.
      settings: binding → value, of every binding on which its result depends, and of the token store's digest.
      varied: what a sweep varied, in its order; empty for a run by itself.
      finished: whether it has ended.
      step, tokens: how far it has come.
      curves: metric → its curve: `train/loss`, and `EVALUATOR/METRIC` for every evaluator.
      figures: metric → the last value of its curve.
      digest: of everything above.
    """

    name: str
    folder: epath.Path
    settings: Mapping[str, str]
    varied: Mapping[str, str]
    finished: bool
    step: int
    tokens: int
    curves: Mapping[str, Curve]
    figures: Mapping[str, float]
    digest: str


def find_runs(places: Sequence[str]) -> list[epath.Path]:
    """Returns the run folders among places: runs themselves, and those right below any other folder, by plan or name.

    Raises:
      UserError: a place is not there, or holds no run.
    """
    found: list[epath.Path] = []
    for place in places:
        root = epath.Path(place)
        if not root.is_dir():
            raise UserError(f"{root} {'is a file' if root.exists() else 'does not exist'}; give folders of runs")
        if RunFolder(root).is_run():
            found.append(root)
            continue
        planned = list((read_plan(root) or {"runs": {}})["runs"])
        others = sorted(path.name for path in root.iterdir() if path.name not in planned)
        runs = [root / name for name in (*planned, *others) if RunFolder(root / name).is_run()]
        if not runs:
            raise UserError(f"{root} holds no run; give folders that `apertus pretrain` or `apertus sweep` wrote")
        found += runs
    unique = {str(path.resolve()): path for path in found}
    return list(unique.values())


def read_runs(folders: Sequence[epath.Path]) -> list[ComparedRun]:
    """Returns what the records of these runs say, each under a name of its own.

    Raises:
      UserError: a record is damaged.
    """
    chosen = [chosen_name(path) for path in folders]
    short = [name or path.name for path, name in zip(folders, chosen, strict=True)]
    longer = [
        name if short.count(name) == 1 else f"{path.parent.name}/{path.name}"
        for path, name in zip(folders, short, strict=True)
    ]
    unique = [str(path) if longer.count(name) > 1 else name for path, name in zip(folders, longer, strict=True)]
    return [read_run(path, name) for path, name in zip(folders, unique, strict=True)]


def chosen_name(folder: epath.Path) -> str:
    """Returns the name that a person gave to a run; empty where it has none, or was named by a sweep."""
    if (folder.parent / PLAN_FILE).exists():
        return ""
    try:
        name = ast.literal_eval((read_run_record(folder) or {"config": {}})["config"].get(NAME, "''"))
    except (ValueError, SyntaxError):
        return ""
    return printable(name) if isinstance(name, str) else ""


def read_run(folder: epath.Path, name: str) -> ComparedRun:
    """Returns what the records of one run say, which may still be training.

    Raises:
      UserError: a record is damaged.
    """
    record = read_run_record(folder) or {"config": {}, "identity": {}}
    config, finished = record["config"], read_finished(folder)
    settings = {key: value for key, value in config.items() if decides_the_result(key) or key == TOTAL_STEPS}
    settings[STORE] = record["identity"].get("store", "")
    plan = read_plan(folder.parent) if (folder.parent / PLAN_FILE).exists() else None
    rows, evaluations = read_metrics(folder), read_evaluations(folder)
    curves = {TRAIN_LOSS: _curve(rows, "loss")} | _evaluation_curves(evaluations)
    figures = {metric: curve.values[-1] for metric, curve in curves.items() if curve.values}
    last = rows[-1] if rows else {"step": 0, "tokens": 0}
    return ComparedRun(
        name=name,
        folder=folder,
        settings=settings,
        varied=(plan or {"runs": {}})["runs"].get(folder.name, {}),
        finished=finished is not None,
        step=last["step"],
        tokens=last["tokens"],
        curves=curves,
        figures=figures,
        digest=digest_json([name, str(folder), config, finished, [str(row) for row in rows + evaluations]]),
    )


def _curve(rows: Sequence[Mapping[str, Any]], key: str) -> Curve:
    return Curve([row["tokens"] for row in rows], [float(row[key]) for row in rows])


def _evaluation_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Returns a curve for each pooled metric of each evaluator; parts such as `loss/Latn` are for the run's report."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for metric, value in row["metrics"].items():
            if "/" not in metric and isinstance(value, float):
                points.setdefault(f"{row['evaluator']}/{metric}", []).append((row["tokens"], value))
    return {name: Curve([tokens for tokens, _ in each], [value for _, value in each]) for name, each in points.items()}

"""Arms of a comparison: runs that differ in the seed alone, what sets arms apart, and which learning rate is best."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from apertus_jax.errors import UserError
from apertus_jax.sweeps.comparison.compared_runs import TRAIN_LOSS, ComparedRun
from apertus_jax.sweeps.comparison.seed_statistics import Difference, Mean, difference_over_seeds, mean_over_seeds
from apertus_jax.sweeps.variations import readable, short_names

ABSENT = "–"
SETTINGS_IN_A_NAME = 3


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs of the same settings but for the seed.

    Attributes:
      name: made of the names of its runs, or of its settings.
      settings: binding → value, of those that are not the same in all arms.
      runs: in the order given.
      over: of each run, the values of what is averaged over, as one text.
    """

    name: str
    settings: Mapping[str, str]
    runs: Sequence[ComparedRun]
    over: Sequence[str]

    @property
    def finished(self) -> list[ComparedRun]:
        """The runs that have ended: only they have final figures."""
        return [run for run in self.runs if run.finished]

    def figures_of(self, metric: str) -> dict[str, float]:
        """Returns seed → final figure, of the finished runs that have it."""
        return {
            seed: run.figures[metric]
            for seed, run in zip(self.over, self.runs, strict=True)
            if run.finished and metric in run.figures
        }

    def mean_of(self, metric: str) -> Mean | None:
        """Returns the mean of a final figure over seeds, None where no finished run has it."""
        values = list(self.figures_of(metric).values())
        return mean_over_seeds(values) if values else None

    def difference_to(self, other: Arm, metric: str) -> Difference | None:
        """Returns how much more a final figure is than that of another arm, None where one of them has none."""
        ours, theirs = self.figures_of(metric), other.figures_of(metric)
        return difference_over_seeds(ours, theirs) if ours and theirs else None


def make_arms(runs: Sequence[ComparedRun], over: Sequence[str]) -> list[Arm]:
    """Groups runs by their settings, those named in `over` left out.

    Raises:
      UserError: two runs are the same in everything, the seed included.
    """
    differing = differing_settings(runs, over)
    grouped: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in runs:
        grouped.setdefault(tuple(run.settings.get(name, ABSENT) for name in differing), []).append(run)
    arms = []
    for values, members in grouped.items():
        seeds = [", ".join(run.settings.get(name, ABSENT) for name in over) for run in members]
        _check_told_apart(members, seeds, over)
        settings = dict(zip(differing, values, strict=True))
        arms.append(Arm(_name(members, settings, over), settings, members, seeds))
    return _with_names_of_their_own(arms)


def _check_told_apart(members: Sequence[ComparedRun], seeds: Sequence[str], over: Sequence[str]) -> None:
    for seed in seeds:
        same = [run.name for run, own in zip(members, seeds, strict=True) if own == seed]
        if len(same) > 1:
            told = f" and {', '.join(over)} = {seed}" if over else ""
            raise UserError(
                f"runs {same[0]} and {same[1]} have the same configuration{told}; leave one out, or give compare.over "
                "what tells them apart"
            )


def differing_settings(runs: Sequence[ComparedRun], over: Sequence[str]) -> list[str]:
    """Returns the settings that are not the same in all runs, those named in `over` left out."""
    names = sorted({name for run in runs for name in run.settings} - set(over))
    return [name for name in names if len({run.settings.get(name, ABSENT) for run in runs}) > 1]


def _name(members: Sequence[ComparedRun], settings: Mapping[str, str], over: Sequence[str]) -> str:
    """Returns what the names of all runs of an arm have in common once the seed is taken out of them."""
    if len(members) == 1 and not members[0].varied:
        return members[0].name
    stems = {_without_seed(run, over) for run in members}
    if len(stems) == 1 and (stem := stems.pop()):
        return stem
    labels = short_names(list(settings))
    told = [f"{labels[name]}={readable(value)}" for name, value in settings.items() if value != ABSENT]
    return ",".join(told[:SETTINGS_IN_A_NAME]) or "all"


def _without_seed(run: ComparedRun, over: Sequence[str]) -> str:
    labels = short_names(list(run.varied))
    seeds = {f"{labels[name]}={readable(value)}" for name, value in run.varied.items() if name in over}
    return ",".join(part for part in run.name.split(",") if part not in seeds) if seeds else ""


def _with_names_of_their_own(arms: Sequence[Arm]) -> list[Arm]:
    names = [arm.name for arm in arms]
    return [
        dataclasses.replace(arm, name=f"{arm.name} ({names[: number + 1].count(arm.name)})")
        if names.count(arm.name) > 1
        else arm
        for number, arm in enumerate(arms)
    ]


def metrics_of(runs: Sequence[ComparedRun]) -> list[str]:
    """Returns the metrics that some run has, the training loss first."""
    found = dict.fromkeys(metric for run in runs for metric in run.curves)
    return [TRAIN_LOSS, *(metric for metric in found if metric != TRAIN_LOSS)]


def main_metric(runs: Sequence[ComparedRun], asked: str) -> str:
    """Returns the metric that arms are ranked by: the one asked for, or the first evaluator's loss that all have.

    Raises:
      UserError: no run has the one that was asked for.
    """
    known = metrics_of(runs)
    if asked:
        if asked not in known:
            raise UserError(f"compare.metric = {asked!r} is in no run; known are {', '.join(known)}")
        return asked
    losses = [metric for metric in known[1:] if metric.endswith("/loss")]
    finished = [run for run in runs if run.finished]
    return next((metric for metric in losses if all(metric in run.figures for run in finished)), TRAIN_LOSS)


def best_of_each(arms: Sequence[Arm], tuned: Sequence[str], metric: str) -> list[Arm]:
    """Returns, of arms that differ in the settings `tuned` alone, the one whose mean metric is lowest.

    Raises:
      UserError: a tuned setting is the same in all arms.
    """
    for name in tuned:
        if arms and name not in arms[0].settings:
            raise UserError(f"compare.best_of names {name}, which does not differ between the runs; leave it out")
    rivals: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
    for arm in arms:
        fixed = tuple((name, value) for name, value in arm.settings.items() if name not in tuned)
        rivals.setdefault(fixed, []).append(arm)
    chosen = []
    for group in rivals.values():
        measured = [(mean.mean, number) for number, arm in enumerate(group) if (mean := arm.mean_of(metric))]
        chosen.append(group[min(measured)[1]] if measured else group[0])
    return chosen


def baseline_of(arms: Sequence[Arm], asked: str) -> Arm:
    """Returns the arm that the others are measured against: the one of this name or beginning, or the first.

    Raises:
      UserError: no arm, or more than one, is called so.
    """
    if not asked:
        return arms[0]
    named = [arm for arm in arms if arm.name == asked] or [arm for arm in arms if arm.name.startswith(asked)]
    if len(named) != 1:
        fault = "is the beginning of several arms" if named else "is no arm"
        raise UserError(f"compare.baseline = {asked!r} {fault}; give one of {', '.join(arm.name for arm in arms)}")
    return named[0]

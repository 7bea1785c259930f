"""Tables of a comparison: JSON and CSV for scripts, and what stands in report and terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apertus_jax.sweeps.comparison.arms import ABSENT, Arm
from apertus_jax.sweeps.comparison.compared_runs import ComparedRun
from apertus_jax.sweeps.comparison.seed_statistics import Difference, Mean


def arm_record(arm: Arm, metrics: Sequence[str], baseline: Arm, chosen: bool) -> dict[str, Any]:
    """Returns what results.json says of an arm; numbers that are not known are null."""
    means = {metric: arm.mean_of(metric) for metric in metrics}
    return {
        "name": arm.name,
        "compared": chosen,
        "settings": dict(arm.settings),
        "figures": {
            metric: {
                "mean": _number(mean.mean),
                "lower": _number(mean.lower),
                "upper": _number(mean.upper),
                "deviation": _number(mean.deviation),
                "seeds": mean.count,
            }
            for metric, mean in means.items()
            if mean
        },
        "against_baseline": {
            metric: {
                "difference": _number(each.difference),
                "lower": _number(each.lower),
                "upper": _number(each.upper),
                "paired": each.paired,
                "seeds": each.count,
            }
            for metric in metrics
            if arm is not baseline and (each := arm.difference_to(baseline, metric))
        },
        "runs": [run_record(run, seed) for run, seed in zip(arm.runs, arm.over, strict=True)],
    }


def run_record(run: ComparedRun, over: str) -> dict[str, Any]:
    """Returns what results.json says of a run."""
    return {
        "name": run.name,
        "folder": str(run.folder),
        "over": over,
        "finished": run.finished,
        "step": run.step,
        "tokens": run.tokens,
        "figures": {metric: _number(value) for metric, value in run.figures.items()},
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def runs_csv(arms: Iterable[Arm], metrics: Sequence[str]) -> str:
    """Returns one line for each run: what sets it apart, how far it came, its last figures."""
    arms = list(arms)
    settings = list(arms[0].settings) if arms else []
    rows = [
        [arm.name, run.name, seed, run.finished, run.step, run.tokens]
        + [run.figures.get(metric, "") for metric in metrics]
        + [arm.settings[name] for name in settings]
        for arm in arms
        for run, seed in zip(arm.runs, arm.over, strict=True)
    ]
    return _csv(["arm", "run", "over", "finished", "step", "tokens", *metrics, *settings], rows)


def curves_csv(arms: Iterable[Arm]) -> str:
    """Returns one line for each point of each curve of each run."""
    rows = (
        [arm.name, run.name, seed, metric, tokens, value]
        for arm in arms
        for run, seed in zip(arm.runs, arm.over, strict=True)
        for metric, curve in run.curves.items()
        for tokens, value in zip(curve.tokens, curve.values, strict=True)
    )
    return _csv(["arm", "run", "over", "metric", "tokens", "value"], rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def spelled_mean(mean: Mean | None) -> str:
    """Returns a mean and half of its interval: `3.214 ± 0.012`."""
    if mean is None:
        return ABSENT
    half = mean.upper - mean.mean
    return f"{mean.mean:.4f}" if math.isnan(half) else f"{mean.mean:.4f} ± {half:.4f}"


def spelled_difference(difference: Difference | None) -> str:
    """Returns a difference and its interval: `-0.021 [-0.030, -0.012]`."""
    if difference is None:
        return ABSENT
    if math.isnan(difference.lower):
        return f"{difference.difference:+.4f}"
    return f"{difference.difference:+.4f} [{difference.lower:+.4f}, {difference.upper:+.4f}]"


def settings_rows(arms: Sequence[Arm]) -> list[tuple[str, ...]]:
    """Returns a row for each setting that these arms differ in: its name and its value in each."""
    names: Mapping[str, str] = arms[0].settings if arms else {}
    rows = [(name, *(arm.settings[name] for arm in arms)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]

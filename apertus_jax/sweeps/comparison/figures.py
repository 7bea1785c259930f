"""Figures of a comparison: curves of arms over each other with a band over seeds, and final figures with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from apertus_jax.reports.axes import Axis
from apertus_jax.reports.chart import Chart
from apertus_jax.reports.line_chart import Line, line_chart
from apertus_jax.reports.row_charts import interval_chart
from apertus_jax.reports.units import COUNT
from apertus_jax.sweeps.comparison.arms import Arm
from apertus_jax.sweeps.comparison.compared_runs import Curve

ARMS_DRAWN = 12
UNITS = {"loss": "nats per token", "bits_per_byte": "bits per byte"}


def curves_chart(arms: Sequence[Arm], metric: str) -> Chart:
    """Returns curves over trained tokens: of each arm the mean of its runs, with a band from the least to the most."""
    lines = []
    for arm in arms[:ARMS_DRAWN]:
        curves = [run.curves[metric] for run in arm.runs if metric in run.curves]
        tokens, rows = at_common_tokens(curves)
        band = len(rows) > 1
        lines.append(
            Line(
                arm.name,
                tokens,
                [sum(values) / len(values) for values in zip(*rows, strict=True)],
                [min(values) for values in zip(*rows, strict=True)] if band else None,
                [max(values) for values in zip(*rows, strict=True)] if band else None,
            )
        )
    left_out = len(arms) - ARMS_DRAWN
    note = f"The first {ARMS_DRAWN} of {len(arms)} arms are drawn; all are in curves.csv." if left_out > 0 else ""
    return line_chart(metric, lines, Axis("tokens", COUNT), Axis(unit_of(metric)), note=note)


def at_common_tokens(curves: Sequence[Curve]) -> tuple[list[int], list[list[float]]]:
    """Returns the tokens at which every curve has a value, and the values of each curve there."""
    tables = [dict(zip(curve.tokens, curve.values, strict=True)) for curve in curves]
    tokens = [each for each in (tables[0] if tables else {}) if all(each in table for table in tables)]
    return tokens, [[table[each] for each in tokens] for table in tables]


def final_chart(arms: Sequence[Arm], metric: str) -> Chart:
    """Returns the final figure of each arm with its 95 % interval over seeds."""
    means = [(arm.name, mean) for arm in arms if (mean := arm.mean_of(metric))]
    rows = [(name, mean.mean, mean.lower, mean.upper) for name, mean in means]
    return _interval_chart(f"{metric}, last value", rows, unit_of(metric))


def differences_chart(arms: Sequence[Arm], baseline: Arm, metric: str) -> Chart:
    """Returns how much more each arm's final figure is than the baseline's, with its 95 % interval."""
    others = [arm for arm in arms if arm is not baseline]
    found = [(arm.name, difference) for arm in others if (difference := arm.difference_to(baseline, metric))]
    rows = [(name, each.difference, each.lower, each.upper) for name, each in found]
    return _interval_chart(f"{metric}, difference to {baseline.name}", rows, f"{unit_of(metric)}, less is better")


def _interval_chart(title: str, rows: Sequence[tuple[str, float, float, float]], unit: str) -> Chart:
    """Returns a row for each (name, value, lower and upper end)."""
    names, values, lower, upper = zip(*rows, strict=True) if rows else ((), (), (), ())
    return interval_chart(title, names, values, [*map(_known, lower)], [*map(_known, upper)], Axis(unit))


def unit_of(metric: str) -> str:
    """Returns what a metric is counted in, or its own name."""
    last = metric.rpartition("/")[2]
    return UNITS.get(last, last)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

"""Charts with a row for each name: bars, intervals, and the funnel of what rules take away."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

from apertus_jax.reports.axes import Axis, Scale, Tick, fitted
from apertus_jax.reports.chart import CHARACTER, RIGHT, Chart, Hover, Key
from apertus_jax.reports.units import COUNT, readable

ROW, NARROW_ROW = 24, 40  # pixels; in a narrow chart the name stands above what is drawn
DWARFS = 5  # times the second: the others are then as good as invisible
LONGEST_NAME = 26  # characters beside the plot; the whole name is shown on hover


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of such a chart.

    Attributes:
      name: what it is about.
      bars: (from, to, style) in per cent.
      interval: (low, high) in per cent, None for none.
      point: in per cent, None for none.
      label: the value as text, beside the row.
      label_at: where it stands, in per cent.
      hover: what is shown on hover, below the name.
    """

    name: str
    bars: Sequence[tuple[float, float, str]] = ()
    interval: tuple[float, float] | None = None
    point: float | None = None
    label: str = ""
    label_at: float = 0.0
    hover: str = ""


def bar_chart(title: str, names: Sequence[str], values: Sequence[float], x: Axis, note: str = "") -> Chart:
    """Returns horizontal bars from zero, first one on top, each with its value."""
    across = fitted(x, [0.0, *values])
    rows = []
    for name, value in zip(names, values, strict=True):
        place, label = across.place(value), readable(value, x.unit)
        bars = () if place is None else ((0.0, place, "area c0"),)
        rows.append(Row(name, bars, label=label, label_at=place or 0.0, hover=f"{x.label}: {label}"))
    return _chart(title, across, rows, note=note)


def bar_charts(title: str, names: Sequence[str], values: Sequence[float], x: Axis) -> list[Chart]:
    """Returns the bars of `bar_chart`; where the first dwarfs all others, once more without it."""
    charts = [bar_chart(title, names, values, x)]
    if len(values) > 2 and values[0] > DWARFS * max(values[1:]):
        charts.append(bar_chart(f"{title}, without {names[0]}", names[1:], values[1:], x))
    return charts


def interval_chart(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    lower: Sequence[float | None],
    upper: Sequence[float | None],
    x: Axis,
    note: str = "",
) -> Chart:
    """Returns one horizontal interval for each name, first one on top; a value without an interval is a ring."""
    across = fitted(x, [*values, *lower, *upper], 0.04)
    rows = []
    for name, value, low, high in zip(names, values, lower, upper, strict=True):
        start, end = across.place(low), across.place(high)
        interval = None if start is None or end is None else (start, end)
        told = ", no interval" if interval is None else f" ({across.text(low)} to {across.text(high)})"
        hover = f"{x.label}: {across.text(value)}{told}"
        rows.append(Row(name, interval=interval, point=across.place(value), hover=hover))
    return _chart(title, across, rows, note=note, grid="x")


def funnel_chart(title: str, removed: Sequence[tuple[str, int]], total: int, noun: str, note: str = "") -> Chart:
    """Returns what is left after each rule in turn, and what it took, of `total` things called `noun`.

    Args:
      title: the headline.
      removed: (rule, how many it took), in the order in which they were asked.
      total: how many came in.
      noun: what is counted: "documents".
      note: a sentence below.
    """
    across = fitted(Axis(noun, COUNT, low=0.0, high=float(max(total, 1))), ())
    rows = [Row("input", ((0.0, across.place(total) or 0.0, "area c0"),), label=f"{total:,}", label_at=100.0)]
    left = total
    for name, count in removed:
        before, left = left, left - count
        start, end = across.place(left) or 0.0, across.place(before) or 0.0
        taken = f"−{count:,} ({100 * count / max(total, 1):.1f} %)" if count else "−0"
        hover = f"took {count:,} of {before:,} {noun}\nleft: {left:,}"
        rows.append(
            Row(name, ((0.0, start, "area c0"), (start, end, "area c1")), label=taken, label_at=100, hover=hover)
        )
    keys = (Key(f"{noun} left", 0, shape="area"), Key("taken by this rule", 1, shape="area"))
    return _chart(title, across, rows, keys, note)


def shortened(name: str) -> str:
    """Returns a name that fits beside a plot, with its middle left out where it is long."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[: LONGEST_NAME - 1 - half]}…{name[-half:]}"


def _chart(
    title: str, across: Scale, rows: Sequence[Row], keys: Sequence[Key] = (), note: str = "", grid: str = ""
) -> Chart:
    """Returns the chart with names beside the plot, and with them above each row where there is little width."""
    count = max(len(rows), 1)
    names = [Tick(100 - 100 * (n + 0.5) / count, shortened(row.name)) for n, row in enumerate(rows)]
    hovers = [
        Hover(0.0, 100 * n / count, f"{row.name}\n{row.hover}".rstrip(), 100.0, 100 / count)
        for n, row in enumerate(rows)
    ]
    longest = max((len(row.label) for row in rows), default=0)
    wide = Chart(
        title,
        across,
        Scale(Axis(""), 0.0, 1.0, tuple(names)),
        "".join(_drawn(row, n, count, 0.14, 0.72) + _label(row, n, count) for n, row in enumerate(rows)),
        hovers,
        keys,
        note,
        ROW * count,
        grid,
        right=14 + math.ceil(CHARACTER * longest) if longest else RIGHT,
    )
    narrow = dataclasses.replace(
        wide,
        y=Scale(Axis(""), 0.0, 1.0, ()),
        drawing="".join(_drawn(row, n, count, 0.54, 0.34) + _heading(row, n, count) for n, row in enumerate(rows)),
        height=NARROW_ROW * count,
        left=4,
        right=14,
    )
    return dataclasses.replace(wide, narrow=narrow)


def _drawn(row: Row, number: int, count: int, start: float, height: float) -> str:
    """Returns bars, interval and point of a row, in its part from `start` on that is `height` high."""
    top, middle = 100 * (number + start) / count, 100 * (number + start + height / 2) / count
    parts = [
        f'<rect class="{style}" x="{low:.2f}%" y="{top:.2f}%" width="{max(high - low, 0.0):.2f}%" '
        f'height="{100 * height / count:.2f}%"/>'
        for low, high, style in row.bars
        if high > low
    ]
    if row.interval is not None:
        low, high = row.interval
        ends = f'x1="{low:.2f}%" x2="{high:.2f}%" y1="{middle:.2f}%" y2="{middle:.2f}%"'
        parts.append(f'<line class="line c0" {ends}/>')
    if row.point is not None:
        shape = "ring" if row.interval is None else "dot"
        parts.append(f'<circle class="{shape} c0" cx="{row.point:.2f}%" cy="{middle:.2f}%" r="4"/>')
    return "".join(parts)


def _label(row: Row, number: int, count: int) -> str:
    if not row.label:
        return ""
    y = 100 * (number + 0.5) / count
    return f'<text class="tick" x="{row.label_at:.2f}%" y="{y:.2f}%" dx="6" dy=".35em">{html.escape(row.label)}</text>'


def _heading(row: Row, number: int, count: int) -> str:
    y = f"{100 * (number + 0.42) / count:.2f}%"
    label = (
        f'<text class="tick" x="100%" y="{y}" text-anchor="end">{html.escape(row.label)}</text>' if row.label else ""
    )
    return f'<text y="{y}">{html.escape(shortened(row.name))}</text>{label}'

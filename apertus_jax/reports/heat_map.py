"""Heat map: a field for each pair of names, coloured by its value, which stands in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from apertus_jax.reports.axes import Axis, Scale, Tick
from apertus_jax.reports.chart import Chart, Hover
from apertus_jax.reports.units import readable

ROW = 34  # pixels
# Of the greatest colour: from there on ink is less legible than its opposite, in dark and in light.
MIDDLE_FROM, STRONG_FROM = 0.58, 0.78


def heat_map(
    title: str,
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float | None]],
    x_label: str,
    y_label: str,
    value_label: str,
    high: float | None = None,
    digits: int = 2,
    note: str = "",
) -> Chart:
    """Returns a heat map; zero and less have no colour, and fields without a value are empty.

    Args:
      title: the headline.
      columns, rows: names from left to right and from top to bottom.
      values: [rows][columns]; None or NaN where there is none.
      x_label, y_label, value_label: what the names and the values are.
      high: the value of the full colour; None for the next round number above the greatest.
      digits: behind the point of the numbers shown.
      note: a sentence below.
    """
    known = [value for row in values for value in row if value is not None and math.isfinite(value)]
    top = _round_above(max(known, default=1.0)) if high is None else high
    drawing, hovers = [], []
    for row, (row_name, cells) in enumerate(zip(rows, values, strict=True)):
        for column, (name, value) in enumerate(zip(columns, cells, strict=True)):
            left, upper = 100 * column / len(columns), 100 * row / len(rows)
            width, height = 100 / len(columns), 100 / len(rows)
            box = f'x="{left:.2f}%" y="{upper:.2f}%" width="{width:.2f}%" height="{height:.2f}%"'
            drawing.append(f'<rect class="hollow" {box}/>')
            shown = "–"
            if value is not None and math.isfinite(value):
                share = min(max(value / top, 0.0), 1.0)
                shown = f"{value:.{digits}f}".replace("-", "−") if abs(value) < 1e4 else readable(value)
                ink = ' class="strong"' if share > STRONG_FROM else ' class="middle"' if share > MIDDLE_FROM else ""
                drawing.append(f'<rect class="cell" fill-opacity="{share:.3f}" {box}/>')
                place = f'x="{left + width / 2:.2f}%" y="{upper + height / 2:.2f}%"'
                drawing.append(f'<text{ink} {place} dy=".35em" text-anchor="middle">{shown}</text>')
            text = f"{y_label}: {row_name}\n{x_label}: {name}\n{value_label}: {shown}"
            hovers.append(Hover(left, upper, text, width, height))
    across = Scale(Axis(x_label), 0.0, 1.0, _places(columns))
    upright = Scale(Axis(y_label), 0.0, 1.0, tuple(Tick(100 - tick.place, tick.label) for tick in _places(rows)))
    scale = f"Colour: {value_label}, from 0 (none) to {top:g} (full)."
    note = f"{scale} {note}" if note else scale
    return Chart(title, across, upright, "".join(drawing), hovers, (), note, ROW * max(len(rows), 1), grid="")


def _places(names: Sequence[str]) -> tuple[Tick, ...]:
    return tuple(Tick(100 * (number + 0.5) / len(names), name) for number, name in enumerate(names))


def _round_above(value: float) -> float:
    """Returns the least round number that is not below a positive value; 1 for others."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{n * power:.12g}") for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * (1 - 1e-9))

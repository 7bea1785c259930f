"""Scatter chart: a point for each thing, coloured by the group that it belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from apertus_jax.reports.axes import Axis, fitted
from apertus_jax.reports.chart import COLORS, Chart, Hover, Key


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of one group.

    Attributes:
      name: of the group; "" for none in the legend.
      x, y: places.
      names: what each is called on hover.
      color: number of the colour; None for the next one, `GREY` for what is no series.
      hollow: rings in place of full points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    names: Sequence[str]
    color: int | None = None
    hollow: bool = False


def scatter_chart(title: str, groups: Sequence[Points], x: Axis, y: Axis, note: str = "", height: int = 320) -> Chart:
    """Returns a scatter chart; points that an axis cannot show are left out."""
    across = fitted(x, [value for group in groups for value in group.x], 0.03)
    upright = fitted(y, [value for group in groups for value in group.y], 0.05)
    drawing, hovers, keys = [], [], []
    for number, group in enumerate(groups):
        color = number % COLORS if group.color is None else group.color
        shape = "ring" if group.hollow else "dot"
        if group.name:
            keys.append(Key(group.name, color, shape=shape))
        for name, a, b in zip(group.names, group.x, group.y, strict=True):
            left, up = across.place(a), upright.place(b)
            if left is not None and up is not None:
                drawing.append(f'<circle class="{shape} c{color}" cx="{left:.2f}%" cy="{100 - up:.2f}%" r="3.5"/>')
                lines = (name, f"{x.label}: {across.text(a)}", f"{y.label}: {upright.text(b)}")
                hovers.append(Hover(left, 100 - up, "\n".join(line for line in lines if line)))
    return Chart(title, across, upright, "".join(drawing), hovers, keys, note, height, grid="xy")

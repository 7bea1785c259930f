"""Line charts: curves with bands, points and a smoothed line over a noisy one, over numbers or named places."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from apertus_jax.reports.axes import Axis, Scale, fitted
from apertus_jax.reports.chart import COLORS, DASHES, GREY, Chart, Hover, Key, dash_of

POINTS_DRAWN = 400  # of a line: more than a screen has pixels for a chart, two for each place
PLACES_HOVERED = 120
POINTS_MARKED = 40  # a line with at most so many points shows them
SMOOTHED_FROM = 60  # points; fewer are shown as they are
SMOOTHED_OVER = 1 / 25  # of all points
POINTS_SMOOTHED = 4000


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
      name: in the legend and on hover.
      x, y: places and values, in order of x; y that is not finite leaves a gap.
      lower, upper: the ends of its interval at each x, None for no band; None or NaN within for no interval there.
      color: number of its colour; None for the next one. Lines that belong together share one.
      dash: number of its dashes; None for those that tell it from others of its colour.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    lower: Sequence[float | None] | None = None
    upper: Sequence[float | None] | None = None
    color: int | None = None
    dash: int | None = None


def line_chart(
    title: str,
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    marks: Sequence[float] = (),
    levels: Mapping[str, float] | None = None,
    smooth: bool = False,
    note: str = "",
    height: int = 240,
) -> Chart:
    """Returns a chart of curves.

    Args:
      title: the headline.
      lines: the curves; the first eight have colours of their own, later ones dashes too.
      x, y: the axes; a named `x` holds positions 0, 1, ….
      marks: each x where something happened, as an upright dashed line.
      levels: name → y of a level that is the same everywhere, as a grey line.
      smooth: draw a centred mean over long lines, and the values themselves faint.
      note: a sentence below.
      height: of the plot, pixels.
    """
    lines = [_styled(line, number) for number, line in enumerate(lines)]
    levels = dict(levels or {})
    across = fitted(x, [value for line in lines for value in line.x])
    upright = fitted(y, [*_heights(lines), *levels.values()], 0.05)
    smoothed = [smooth and len(line.x) >= SMOOTHED_FROM for line in lines]
    drawing = [_level(upright, value, number) for number, value in enumerate(levels.values())]
    drawing += [_band(line, across, upright) for line in lines]
    drawing += [_curve(line, across, upright, faint) for line, faint in zip(lines, smoothed, strict=True)]
    drawing += [_mark(across, value) for value in marks]
    keys = [Key(line.name, line.color or 0, line.dash or 0) for line in lines]
    keys += [Key(name, GREY, number + 1) for number, name in enumerate(levels)]
    if any(smoothed):
        told = "Bold: centred mean; faint: as logged."
        note = f"{note} {told}" if note else told
    hovers = _hovers(lines, across, upright)
    return Chart(title, across, upright, "".join(drawing), hovers, keys, note, height)


def smoothed_values(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns the centred mean of float[N] over a window with soft ends, `SMOOTHED_OVER` of N wide at half height.

    Near an end the window is as wide as leaves it centred, so that a steep beginning is not flattened. Values that are
    not finite have no weight; where all within reach are such, the mean is NaN.
    """
    array = np.asarray(values, np.float64)
    known, count = np.isfinite(array), len(array)
    filled = np.where(known, array, 0.0)
    half = max(int(count * SMOOTHED_OVER), 1)
    window = np.hanning(2 * half + 3)[1:-1]
    sums, weights = np.convolve(filled, window, "same"), np.convolve(known, window, "same")
    for number in {*range(min(half, count)), *range(max(count - half, 0), count)}:
        reach = min(number, count - 1 - number)
        window = np.hanning(2 * reach + 3)[1:-1]
        near = slice(number - reach, number + reach + 1)
        sums[number], weights[number] = window @ filled[near], window @ known[near]
    return np.divide(sums, weights, out=np.full(count, math.nan), where=weights > 1e-9)


def _smoothed(values: Sequence[float], logarithmic: bool) -> np.ndarray:
    """Returns the centred mean as it looks on the axis: that of the logarithms on a logarithmic one."""
    if not logarithmic:
        return smoothed_values(values)
    array = np.asarray(values, np.float64)
    return np.exp(smoothed_values(np.log(array, out=np.full(len(array), math.nan), where=array > 0)))


def _condensed(line: Line) -> Line:
    """Returns a line of at most `POINTS_SMOOTHED` points, means of neighbours."""
    if len(line.x) <= POINTS_SMOOTHED:
        return line
    parts = np.array_split(np.arange(len(line.x)), POINTS_SMOOTHED)
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    known = np.isfinite(y)
    means = [float(y[part][known[part]].mean()) if known[part].any() else math.nan for part in parts]
    return dataclasses.replace(line, x=[float(x[part].mean()) for part in parts], y=means)


def _styled(line: Line, number: int) -> Line:
    color = number % COLORS if line.color is None else line.color
    dash = (number // COLORS) % len(DASHES) if line.dash is None else line.dash
    return dataclasses.replace(line, color=color, dash=dash)


def _heights(lines: Sequence[Line]) -> list[float | None]:
    ends = [value for line in lines for end in (line.lower, line.upper) if end is not None for value in end]
    return [value for line in lines for value in line.y] + ends


def _points(x: Iterable[float], y: Iterable[float | None], across: Scale, upright: Scale) -> list[tuple | None]:
    """Returns (x, y) in thousandths of the plot from its upper left corner; None for a gap."""
    points: list[tuple | None] = []
    for each, value in zip(x, y, strict=True):
        left, up = across.place(each), upright.place(value)
        points.append(None if left is None or up is None else (10 * left, 1000 - 10 * up))
    return points


def _thinned(x: Sequence[float], y: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `POINTS_DRAWN` points of a curve: of each stretch the lowest and the highest, or its gap."""
    places, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(values) <= POINTS_DRAWN:
        return places, values
    kept: list[int] = []
    for part in np.array_split(np.arange(len(values)), POINTS_DRAWN // 2):
        known = part[np.isfinite(values[part])]
        ends = {known[np.argmin(values[known])], known[np.argmax(values[known])]} if len(known) else {part[0]}
        kept += sorted(ends)
    return places[kept], values[kept]


def _path(points: Sequence[tuple | None]) -> str:
    """Returns the commands of a path through points; one that stands alone between gaps is a dot."""
    parts = []
    previous = None
    for number, point in enumerate(points):
        if point is not None:
            following = points[number + 1] if number + 1 < len(points) else None
            parts.append(f"{'L' if previous is not None else 'M'}{point[0]:.1f} {point[1]:.1f}")
            if previous is None and following is None:
                parts.append("h0")
        previous = point
    return "".join(parts)


def _stretched(content: str) -> str:
    """Returns drawing in thousandths of the plot, stretched to it."""
    return f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" overflow="visible">{content}</svg>'  # noqa: E501


def _curve(line: Line, across: Scale, upright: Scale, faint: bool) -> str:
    points = _points(*_thinned(line.x, line.y), across, upright)
    color, dash = f"c{line.color}", dash_of(line.dash or 0)
    if faint:
        short = _condensed(line)
        smooth = _smoothed(short.y, upright.axis.scale == "log")
        mean = _points(*_thinned(short.x, smooth), across, upright)
        drawn = f'<path class="line raw {color}" d="{_path(points)}"/>'
        return _stretched(f'{drawn}<path class="line {color}"{dash} d="{_path(mean)}"/>')
    curve = _stretched(f'<path class="line {color}"{dash} d="{_path(points)}"/>')
    if len(points) > POINTS_MARKED:
        return curve
    shown = [point for point in points if point is not None]
    return curve + "".join(
        f'<circle class="dot {color}" cx="{x / 10:.2f}%" cy="{y / 10:.2f}%" r="3"/>' for x, y in shown
    )


def _band(line: Line, across: Scale, upright: Scale) -> str:
    if line.lower is None or line.upper is None:
        return ""
    # None is NaN from here on.
    x, lower, upper = (np.asarray(values, np.float64) for values in (line.x, line.lower, line.upper))
    chosen = np.flatnonzero(np.isfinite(lower) & np.isfinite(upper))
    if len(chosen) > POINTS_DRAWN:
        chosen = chosen[np.linspace(0, len(chosen) - 1, POINTS_DRAWN).astype(int)]
    ends = zip(*(_points(x[chosen], end[chosen], across, upright) for end in (lower, upper)), strict=True)
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    around = [low for low, _ in known] + [high for _, high in reversed(known)]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
    return _stretched(f'<polygon class="band c{line.color}" points="{corners}"/>') if len(known) > 1 else ""


def _level(upright: Scale, value: float, number: int) -> str:
    place = upright.place(value)
    if place is None:
        return ""
    y = f"{100 - place:.2f}%"
    return f'<line class="line thin c{GREY}" x2="100%" y1="{y}" y2="{y}"{dash_of(number + 1)}/>'


def _mark(across: Scale, value: float) -> str:
    place = across.place(value)
    if place is None:
        return ""
    x = f"{place:.2f}%"
    return f'<line class="mark change_at_{value:g}" x1="{x}" x2="{x}" y2="100%"/>'


def _hovers(lines: Sequence[Line], across: Scale, upright: Scale) -> list[Hover]:
    """Returns upright strips, each with the values of all lines at its x: of their nearest points."""
    found = np.unique(np.concatenate([np.empty(0), *(np.asarray(line.x, np.float64) for line in lines)]))
    found = found[np.isfinite(found) & ((found > 0) | (across.axis.scale != "log"))]
    if not len(found):
        return []
    if len(found) > PLACES_HOVERED:
        found = found[np.linspace(0, len(found) - 1, PLACES_HOVERED).astype(int)]
    places = found.tolist()
    shown = [across.place(place) or 0.0 for place in places]
    edges = [0.0, *((a + b) / 2 for a, b in zip(shown, shown[1:], strict=False)), 100.0]
    xs = [np.asarray(line.x, np.float64) for line in lines]
    hovers = []
    for place, left, right, rule in zip(places, edges[:-1], edges[1:], shown, strict=True):
        reach = (right - left) / 2 + 1e-6
        texts = [f"{across.axis.label}: {across.text(place)}" if across.axis.label else across.text(place)]
        for line, x in zip(lines, xs, strict=True):
            nearest = int(np.argmin(np.abs(x - place))) if len(x) else -1
            if nearest >= 0 and abs((across.place(float(x[nearest])) or 0.0) - rule) <= reach:
                texts.append(f"{line.name}: {upright.text(float(line.y[nearest]))}{_ends(line, nearest, upright)}")
        hovers.append(Hover(left, 0.0, "\n".join(texts), right - left, 100.0, rule))
    return hovers


def _ends(line: Line, number: int, upright: Scale) -> str:
    if line.lower is None or line.upper is None:
        return ""
    low, high = line.lower[number], line.upper[number]
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f" ({upright.text(low)} to {upright.text(high)})"

"""Chart as vector graphics: a frame with axes, what is drawn in it, a legend, values on hover; inline or as a file.

Everything is placed in per cent of the plot, and lines do not scale with it: text keeps its size on a phone and a wide
screen. Colours are variables of `chart.css`, which know dark and light. No script: hovering is style.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import math
import pathlib
import urllib.parse
from collections.abc import Sequence

from etils import epath

from apertus_jax.reports.axes import Scale
from apertus_jax.storage.artifacts import write_atomically

WIDE = 20.0  # per cent of the plot: the text of a wider field stands below it
COLORS = 8
GREY = COLORS  # the colour of what is not a series: baselines, everything else
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # of the first eight series, of the next eight, …
CHARACTER, LINE = 6.7, 18  # pixels of a character and of a line of small text
TOP, BOTTOM, RIGHT, EDGE = 30, 46, 22, 14


@dataclasses.dataclass(frozen=True)
class Key:
    """An entry of a legend; `shape` is line, area, dot or ring."""

    name: str
    color: int
    dash: int = 0
    shape: str = "line"


@dataclasses.dataclass(frozen=True)
class Hover:
    """A place of the plot that tells its values when it is pointed at; all places in per cent.

    Attributes:
      left, top, width, height: a field; one without width is a point.
      text: what is shown, in lines.
      rule: where an upright line stands meanwhile; None for none.
    """

    left: float
    top: float
    text: str
    width: float = 0.0
    height: float = 0.0
    rule: float | None = None


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart that is ready to be shown.

    Attributes:
      title: what it shows, as a headline.
      x, y: the axes; their ticks are drawn.
      drawing: SVG elements, placed in per cent of the plot.
      hovers: what is shown on hover; a later one lies above an earlier one.
      keys: the legend; one that has a single entry is not shown.
      note: a sentence below.
      height: of the plot, pixels.
      grid: which ticks have lines: "x", "y", "xy" or "".
      left, right: pixels beside the plot for labels; None for what the ticks of `y` need.
      narrow: the same chart for little width, None where this one fits; of the page alone.
    """

    title: str
    x: Scale
    y: Scale
    drawing: str
    hovers: Sequence[Hover] = ()
    keys: Sequence[Key] = ()
    note: str = ""
    height: int = 240
    grid: str = "y"
    left: int | None = None
    right: int = RIGHT
    narrow: Chart | None = None

    @property
    def left_margin(self) -> int:
        """Pixels left of the plot."""
        if self.left is not None:
            return self.left
        return 14 + math.ceil(CHARACTER * max((len(tick.label) for tick in self.y.ticks), default=0))

    @property
    def legend(self) -> Sequence[Key]:
        """The entries that are shown."""
        return self.keys if len(self.keys) > 1 else ()


def figure_html(chart: Chart) -> str:
    """Returns a chart as an HTML figure with a link that saves it as a file of its own."""
    legend = "".join(
        f'<span><svg class="key" viewBox="0 0 22 10">{_key(key)}</svg>{html.escape(key.name)}</span>'
        for key in chart.legend
    )
    name = "".join(c if c.isalnum() else "_" for c in chart.title.lower())
    file = "data:image/svg+xml," + urllib.parse.quote(svg_document([chart], 720), safe=" =:/;,(){}'!")
    plots = _plot(chart) if chart.narrow is None else _plot(chart, " wide") + _plot(chart.narrow, " narrow")
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(chart.title)}</b>'
        f'<a href="{html.escape(file)}" download="{html.escape(name)}.svg">save SVG</a></figcaption>'
        + (f'<div class="legend">{legend}</div>' if legend else "")
        + plots
        + (f'<p class="note">{html.escape(chart.note)}</p>' if chart.note else "")
        + "</figure>"
    )


def _plot(chart: Chart, style: str = "") -> str:
    """Returns the plot with its hovers."""
    margins = f"{TOP if chart.y.axis.label else 12}px {chart.right}px {BOTTOM}px {chart.left_margin}px"
    return (
        f'<div class="plot{style}" style="height:{chart.height}px;margin:{margins}">'
        f'<svg role="img" aria-label="{html.escape(chart.title)}">{_frame(chart)}{chart.drawing}</svg>'
        f'<div class="hovers">{"".join(map(_hover, chart.hovers))}</div></div>'
    )


def svg_document(charts: Sequence[Chart], width: int, columns: int = 1) -> str:
    """Returns charts as one SVG document of `width` pixels, in dark where its reader prefers that.

    For papers and READMEs: it holds its style and needs nothing else. Values on hover are not in it.
    """
    each = width / columns
    pieces: list[str] = []
    top = 0.0
    for first in range(0, len(charts), columns):
        row = charts[first : first + columns]
        heads = [_head(chart, number * each + EDGE, top, each - EDGE) for number, chart in enumerate(row)]
        above = max(bottom for _, bottom in heads)
        pieces += [drawing for drawing, _ in heads]
        for number, chart in enumerate(row):
            left, inner = number * each + EDGE + chart.left_margin, each - EDGE - chart.left_margin - chart.right
            pieces.append(
                f'<svg x="{left:.0f}" y="{above:.0f}" width="{inner:.0f}" height="{chart.height}" overflow="visible">'
                f"{_frame(chart)}{chart.drawing}</svg>"
            )
        top = above + max(chart.height for chart in row) + BOTTOM + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top:.0f}" viewBox="0 0 {width} {top:.0f}">'
        f'<style>{chart_style()}</style><rect class="paper" width="100%" height="100%"/>{"".join(pieces)}</svg>\n'
    )


def write_svg(path: epath.PathLike, charts: Sequence[Chart], width: int = 720, columns: int = 1) -> None:
    """Writes charts as one SVG file, see `svg_document`."""
    write_atomically(path, svg_document(charts, width, columns))


@functools.cache
def chart_style() -> str:
    """Returns the style of charts, for pages and for files of their own."""
    return pathlib.Path(__file__).with_name("chart.css").read_text()


def _head(chart: Chart, left: float, top: float, width: float) -> tuple[str, float]:
    """Returns title and legend of a chart at a place of a document, and where its plot begins, in pixels."""
    pieces = [f'<text class="title" x="{left:.0f}" y="{top + 24:.0f}">{html.escape(chart.title)}</text>']
    x, y = left, top + 44
    for key in chart.legend:
        length = 30 + CHARACTER * len(key.name) + 12
        if x > left and x + length > left + width:
            x, y = left, y + LINE
        pieces.append(f'<g transform="translate({x:.0f} {y - 9:.0f})">{_key(key)}</g>')
        pieces.append(f'<text x="{x + 28:.0f}" y="{y:.0f}">{html.escape(key.name)}</text>')
        x += length
    return "".join(pieces), (y if chart.legend else top + 26) + (TOP if chart.y.axis.label else 12)


def _frame(chart: Chart) -> str:
    """Returns the lines of the grid, the ticks and the names of the axes."""
    pieces = []
    for tick in chart.y.ticks:
        place, label = f"{100 - tick.place:.2f}%", html.escape(tick.label)
        if "y" in chart.grid:
            pieces.append(f'<line class="grid" x2="100%" y1="{place}" y2="{place}"/>')
        pieces.append(f'<text class="tick" y="{place}" dx="-8" dy=".35em" text-anchor="end">{label}</text>')
    for tick in chart.x.ticks:
        place, label = f"{tick.place:.2f}%", html.escape(tick.label)
        fine = " fine" if tick.fine else ""
        if "x" in chart.grid:
            pieces.append(f'<line class="grid{fine}" x1="{place}" x2="{place}" y2="100%"/>')
        pieces.append(f'<text class="tick{fine}" x="{place}" y="100%" dy="19" text-anchor="middle">{label}</text>')
    pieces.append('<line class="axis" x2="100%" y1="100%" y2="100%"/>')
    if chart.y.axis.label:
        label = html.escape(chart.y.axis.label)
        pieces.append(f'<text class="label" x="0" dx="{-chart.left_margin}" y="-13">{label}</text>')
    if chart.x.axis.label:
        label = html.escape(chart.x.axis.label)
        pieces.append(f'<text class="label" x="100%" y="100%" dy="38" text-anchor="end">{label}</text>')
    return "".join(pieces)


def _key(key: Key) -> str:
    """Returns the sign of a legend's entry, 22 × 10 pixels."""
    if key.shape == "line":
        return f'<line class="line c{key.color}" x2="22" y1="5" y2="5"{dash_of(key.dash)}/>'
    if key.shape == "area":
        return f'<rect class="area c{key.color}" x="5" width="12" height="10" rx="2"/>'
    return f'<circle class="{key.shape} c{key.color}" cx="11" cy="5" r="4"/>'


def dash_of(number: int) -> str:
    """Returns the attribute of the dashes with this number, empty for a whole line."""
    return f' stroke-dasharray="{DASHES[number % len(DASHES)]}"' if number % len(DASHES) else ""


def _hover(hover: Hover) -> str:
    """Returns the element that is pointed at; its text opens towards the middle."""
    middle = hover.left + hover.width / 2 if hover.rule is None else hover.rule
    side = " r" if middle > 50 else ""
    text = f"<b>{html.escape(hover.text)}</b></i>"
    if not hover.width:
        return f'<i class="p{side}" style="left:{hover.left:.2f}%;top:{hover.top:.2f}%">{text}'
    rule = ""
    if hover.rule is not None:
        side += " s"
        rule = f";--x:{100 * (hover.rule - hover.left) / hover.width:.0f}%"
    elif hover.width > WIDE:
        side += " w"
    box = f"left:{hover.left:.2f}%;width:{hover.width:.2f}%"
    if hover.height < 100:
        box += f";top:{hover.top:.2f}%;height:{hover.height:.2f}%"
    return f'<i class="f{side}" style="{box}{rule}">{text}'

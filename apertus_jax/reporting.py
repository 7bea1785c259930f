"""Self-contained HTML reports: headings, tables and inline plots, no script and no network."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from etils import epath

from apertus_jax.artifacts import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --accent: #2563eb; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.note { color: var(--soft); } pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); }
pre.text { white-space: pre-wrap; } svg { max-width: 100%; height: auto; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.number, th.number { text-align: right; }
table.bars td { border: 0; padding: .1rem .7rem; } td.bar { width: 30rem; } td.bar i { display: block; height: .8rem; }
td.bar i { background: var(--accent); }
details summary { cursor: pointer; color: var(--accent); }
"""


class HtmlReport:
    """Builds one HTML page piece by piece; every text is escaped, so documents cannot inject markup."""

    def __init__(self, title: str, subtitle: str = ""):
        self._title = title
        self._pieces = [f"<h1>{html.escape(title)}</h1>"]
        if subtitle:
            self.note(subtitle)

    def heading(self, text: str) -> None:
        """Adds a section heading."""
        self._pieces.append(f"<h2>{html.escape(text)}</h2>")

    def note(self, text: str) -> None:
        """Adds a quiet paragraph."""
        self._pieces.append(f'<p class="note">{html.escape(text)}</p>')

    def text(self, text: str, summary: str | None = None) -> None:
        """Adds preformatted text, folded behind `summary` when that is given."""
        block = f'<pre class="text">{html.escape(text)}</pre>'
        if summary is not None:
            block = f"<details><summary>{html.escape(summary)}</summary>{block}</details>"
        self._pieces.append(block)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Adds a table; numbers align right."""
        body = []
        for row in rows:
            cells = []
            for value in row:
                numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
                shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if numeric else str(value)
                cells.append(f'<td class="number">{shown}</td>' if numeric else f"<td>{html.escape(shown)}</td>")
            body.append("<tr>" + "".join(cells) + "</tr>")
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        self._pieces.append(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>")

    def bars(self, rows: Iterable[tuple[str, float]]) -> None:
        """Adds horizontal bars, first one on top; drawn by the page itself, so that no plotting library is loaded."""
        rows = list(rows)
        largest = max((value for _, value in rows), default=0) or 1
        body = "".join(
            f'<tr><td>{html.escape(name)}</td><td class="bar"><i style="width:{100 * value / largest:.2f}%"></i></td>'
            f'<td class="number">{value:,}</td></tr>'
            for name, value in rows
        )
        self._pieces.append(f'<table class="bars"><tbody>{body}</tbody></table>')

    def figure(self, figure: Figure) -> None:
        """Adds a matplotlib figure as inline SVG."""
        import matplotlib

        buffer = io.StringIO()
        # Without a salt the names inside the drawing are random, and the same report would never have the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": self._title}):
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        svg = buffer.getvalue()
        self._pieces.append(svg[svg.index("<svg") :])

    def render(self) -> str:
        """Returns the page."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self._title)}</title><style>{STYLE}</style></head>"
            f"<body>{''.join(self._pieces)}</body></html>\n"
        )

    def write(self, path: epath.PathLike) -> None:
        """Writes the page in one piece."""
        write_atomically(path, self.render())


def line_plot(
    series: dict[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, log_y: bool = False
) -> Figure:
    """Draws named `(x, y)` lines into one figure."""
    from matplotlib.figure import Figure  # a quarter second of start-up that only reports need

    figure = Figure(figsize=(8, 3.2))
    axes = figure.subplots()
    for name, (x, y) in series.items():
        axes.plot(x, y, label=name, linewidth=1.3)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if log_y and any(value > 0 for _, y in series.values() for value in y):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(frameon=False)
    return figure


def interval_plot(
    names: Sequence[str], values: Sequence[float], lower: Sequence[float], upper: Sequence[float], x_label: str
) -> Figure:
    """Draws one horizontal interval per name, first name on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, max(2.0, 0.17 * len(names) + 0.8)))
    axes = figure.subplots()
    rows = range(len(names))
    below = [value - low for value, low in zip(values, lower, strict=True)]
    above = [high - value for value, high in zip(values, upper, strict=True)]
    axes.errorbar(values, rows, xerr=[below, above], fmt="o", markersize=3, linewidth=1)
    axes.set_yticks(list(rows), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    axes.grid(axis="x", alpha=0.3)
    return figure


def bar_plot(names: Sequence[str], values: Sequence[float], x_label: str) -> Figure:
    """Draws one horizontal bar per name, first name on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, max(2.0, 0.17 * len(names) + 0.8)))
    axes = figure.subplots()
    rows = range(len(names))
    axes.barh(list(rows), values)
    axes.set_yticks(list(rows), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    axes.grid(axis="x", alpha=0.3)
    return figure

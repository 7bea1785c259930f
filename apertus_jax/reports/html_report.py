"""Self-contained HTML report: headings, tables and inline charts in one file, without script and network."""

from __future__ import annotations

import functools
import html
import pathlib
from collections.abc import Iterable, Sequence

from etils import epath

from apertus_jax.reports.chart import Chart, chart_style, figure_html
from apertus_jax.reports.table import facts_html, shown_value, table_html
from apertus_jax.storage.artifacts import write_atomically

LINKED_FROM = 4  # headings
# Nothing is loaded, whatever a page holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class HtmlReport:
    """Builds one HTML page piece by piece; every text is escaped, so documents cannot inject markup."""

    def __init__(self, title: str, subtitle: str = ""):
        self._title = title
        self._subtitle = subtitle
        self._headings: list[str] = []
        self._pieces: list[str] = []
        self._charts: list[str] = []  # that follow each other and stand side by side where there is width

    def heading(self, text: str) -> None:
        """Adds a section heading."""
        self._headings.append(text)
        self._add(f'<h2 id="s{len(self._headings)}">{html.escape(text)}</h2>')

    def note(self, text: str) -> None:
        """Adds a quiet paragraph."""
        self._add(f'<p class="note">{html.escape(text)}</p>')

    def statement(self, text: str) -> None:
        """Adds the sentence that the page is about, set apart."""
        self._add(f'<p class="statement">{html.escape(text)}</p>')

    def text(self, text: str, summary: str | None = None) -> None:
        """Adds preformatted text, folded behind `summary` when that is given."""
        self._add(_folded(f'<pre class="text">{html.escape(text)}</pre>', summary))

    def tiles(self, rows: Iterable[tuple[str, object]]) -> None:
        """Adds the few figures that matter most, as (name, value), large."""
        tiles = "".join(
            f"<div><b>{html.escape(shown_value(value))}</b><span>{html.escape(name)}</span></div>"
            for name, value in rows
        )
        self._add(f'<div class="tiles">{tiles}</div>')

    def facts(self, rows: Iterable[tuple[str, object]]) -> None:
        """Adds names and values of many kinds, as a list."""
        self._add(facts_html(rows))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], summary: str | None = None) -> None:
        """Adds a table, folded behind `summary` when that is given; columns of numbers align right."""
        self._add(_folded(table_html(columns, rows), summary))

    def figure(self, chart: Chart) -> None:
        """Adds a chart; those that follow each other stand side by side where there is width."""
        self._charts.append(figure_html(chart))

    def render(self) -> str:
        """Returns the page."""
        self._end_charts()
        links = "".join(f'<a href="#s{n}">{html.escape(text)}</a>' for n, text in enumerate(self._headings, 1))
        subtitle = f'<p class="note">{html.escape(self._subtitle)}</p>' if self._subtitle else ""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self._title)}</title><style>{chart_style()}{page_style()}</style></head>"
            f"<body><header><h1>{html.escape(self._title)}</h1>{subtitle}"
            + (f"<nav>{links}</nav>" if len(self._headings) >= LINKED_FROM else "")
            + f"</header><main>{''.join(self._pieces)}</main></body></html>\n"
        )

    def write(self, path: epath.PathLike) -> None:
        """Writes the page in one piece."""
        write_atomically(path, self.render())

    def _add(self, piece: str) -> None:
        self._end_charts()
        self._pieces.append(piece)

    def _end_charts(self) -> None:
        if self._charts:
            self._pieces.append(f'<div class="charts">{"".join(self._charts)}</div>')
            self._charts = []


@functools.cache
def page_style() -> str:
    """Returns the style of pages, without that of charts."""
    return pathlib.Path(__file__).with_name("page.css").read_text()


def _folded(block: str, summary: str | None) -> str:
    return block if summary is None else f"<details><summary>{html.escape(summary)}</summary>{block}</details>"

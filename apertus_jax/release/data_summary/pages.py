"""Summary pages: Markdown and one self-contained HTML page, from the same filled template.

Names of sources and declared texts may hold anything: they are shown, never obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from apertus_jax.release.data_summary.answers.template import NotAvailable, num_available
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.row_charts import bar_chart
from apertus_jax.reports.units import BYTES, COUNT, readable
from apertus_jax.terminal.terminal_text import OBEYED

# Controls, separators of lines and paragraphs, and what turns the direction of writing.
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~$&])")
NOT_AVAILABLE = "not_available"
BARS = 25
LONGEST_TABLE = 40  # rows; longer ones stand at the end of the page


class Report(Protocol):
    """Protocol of both kinds of pages."""

    def heading(self, text: str) -> None:
        """Adds a section heading."""

    def note(self, text: str) -> None:
        """Adds a paragraph."""

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Adds a table."""


class MarkdownReport:
    """Builds one Markdown page piece by piece; every text is escaped."""

    def __init__(self, title: str, subtitle: str = ""):
        self._pieces = [f"# {escape_markdown(title)}\n"]
        if subtitle:
            self.note(subtitle)

    def heading(self, text: str) -> None:
        """Adds a section heading."""
        self._pieces.append(f"## {escape_markdown(text)}\n")

    def note(self, text: str) -> None:
        """Adds a paragraph."""
        self._pieces.append(f"{escape_markdown(text)}\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Adds a table."""
        lines = [columns, ["---"] * len(columns)]
        head = [_line(map(escape_markdown, lines[0])), _line(lines[1])]
        body = [
            _line(f"{cell:,}" if isinstance(cell, int) else escape_markdown(str(cell)) for cell in row) for row in rows
        ]
        self._pieces.append("\n".join([*head, *body]) + "\n")

    def render(self) -> str:
        """Returns the page."""
        return "\n".join(self._pieces)


def escape_markdown(text: str) -> str:
    """Returns a text on one line in which Markdown and HTML mean nothing."""
    return _MARKDOWN.sub(r"\\\1", plain(text)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def plain(text: str) -> str:
    """Returns a text on one line without characters that a page would obey rather than show."""
    return " ".join(OBEYED.sub(" ", text).split())


def public_summary(report: Report, summary: Mapping[str, Any]) -> None:
    """Writes the filled template and the figures behind it into a page."""
    template = summary["template"]
    count = sum(len(section["fields"]) for section in template.values())
    report.note(
        f"Article 53(1)(d) of Regulation (EU) 2024/1689. {num_available(template)} of {count} fields have a value; the "
        "others say why not. Figures are counted from the ledger of the prepared corpus, the rest is declared."
    )
    annex: list[tuple[str, Sequence[Mapping[str, Any]]]] = []
    for number, section in template.items():
        report.heading(f"{number} {section['title']}")
        annex += _fields(report, section["fields"].values())
    _figures(report, summary["figures"])
    for title, rows in annex:
        report.heading(title)
        _rows(report, rows)


def _fields(report: Report, fields: Iterable[Mapping[str, Any]]) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Writes short answers as one table, and those that are tables after it; returns what is too long for here."""
    short, tables = [], []
    annex: list[tuple[str, Sequence[Mapping[str, Any]]]] = []
    for field in fields:
        value = field.get("value")
        if not (isinstance(value, list) and value and isinstance(value[0], dict)):
            short.append((field["title"], shown(value if "value" in field else field)))
        elif len(value) > LONGEST_TABLE:
            short.append((field["title"], f"{len(value):,} rows at the end"))
            annex.append((field["title"], value))
        else:
            short.append((field["title"], f"{len(value):,} rows below" if len(value) > 1 else "below"))
            tables.append((field["title"], value))
    report.table(("field", "answer"), short)
    for title, rows in tables:
        report.note(f"{title}:")
        _rows(report, rows)
    return annex


def _rows(report: Report, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the same names as a table."""
    names = list(rows[0])
    report.table([plain(name) for name in names], [[shown(row[name]) for name in names] for row in rows])


def _figures(report: Report, figures: Mapping[str, Any]) -> None:
    """Writes the counts behind the answers."""
    report.heading("Figures of the corpus")
    report.table(("", "rows"), list(figures["balance"].items()))
    report.note("Every row that came in was kept, dropped for one reason, or set aside as unreadable.")
    titles = {
        "sources": "Sources:",
        "decisions": "Documents dropped, by the first rule that decided:",
        "quarantine": "Rows set aside:",
        "licences": "Licence classes of what was kept:",
        "months": "What was kept, by month of acquisition:",
    }
    for name, title in titles.items():
        report.note(title if figures[name] else f"{title} none")
        if figures[name]:
            _rows(report, figures[name])
    report.heading("Provenance")
    report.table(("", ""), [(name, shown(value)) for name, value in figures["provenance"].items()])


def _glance(report: HtmlReport, figures: Mapping[str, Any]) -> None:
    """Draws the figures that say most of a corpus."""
    report.tiles((name, readable(count, COUNT)) for name, count in figures["balance"].items())
    drawn = (
        ("Text kept by source", figures["sources"], "source", "bytes", Axis("bytes kept", BYTES)),
        ("Licence classes of what was kept", figures["licences"], "class", "bytes", Axis("bytes kept", BYTES)),
        ("Why documents were dropped", figures["decisions"], "decision", "documents", Axis("documents", COUNT)),
    )
    for title, rows, name, size, axis in drawn:
        largest = sorted(rows, key=lambda row: -row[size])[:BARS]
        if largest:
            report.figure(bar_chart(title, [plain(row[name]) for row in largest], [row[size] for row in largest], axis))


def shown(value: Any) -> Any:
    """Returns a JSON value as a cell: whole numbers stay numbers, everything else is text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        if NOT_AVAILABLE in value:
            return plain(str(NotAvailable(value[NOT_AVAILABLE])))
        return "; ".join(f"{plain(name)}: {_within(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(_within(each) for each in value)
    return plain(str(value))


def _within(value: Any) -> str:
    """Returns a value as part of a longer text."""
    cell = shown(value)
    text = f"{cell:,}" if isinstance(cell, int) else cell
    return f"({text})" if isinstance(value, Mapping) and NOT_AVAILABLE not in value else text


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown_page(summary: Mapping[str, Any], title: str) -> str:
    """Returns the summary as Markdown."""
    report = MarkdownReport(title)
    public_summary(report, summary)
    return report.render()


def html_page(summary: Mapping[str, Any], title: str) -> str:
    """Returns the summary as one HTML page that loads nothing."""
    report = HtmlReport(plain(title))
    _glance(report, summary["figures"])
    public_summary(report, summary)
    return report.render()

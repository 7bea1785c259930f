"""Tables, pictures and the page of the report by language."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.reporting import HtmlReport, bar_plot, interval_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ESTIMATES = ("bits_per_byte", "fertility", "tokens_per_character", "bytes_per_token")
LABELS = {
    "bits_per_byte": "bits per byte",
    "fertility": "tokens per whitespace word",
    "tokens_per_character": "tokens per character",
    "bytes_per_token": "bytes per token",
    "language": "languages",
    "script": "means of scripts",
    "resource_class": "means of resource classes",
}
PARITY_ESTIMATES = ("premium", "information_parity", "bits_per_byte")
SCRIPTS_COLOURED = 9
SCRIPTS_DRAWN = 60
ROWS_IN_TERMINAL = 10


def write_tables(folder: epath.Path, results: Mapping[str, Any]) -> None:
    """Writes languages.csv, groups.csv and, with parallel texts, parity.csv; intervals have columns of their own."""
    plain = ("language", "script", "resource_class", "share", "passages", "tokens", "utf8_bytes", "interval_unit")
    texts = sorted({text for row in results["languages"] for text in row["bits_per_byte_by_text"]})
    rows = [
        {name: row[name] for name in (*plain, "text")}
        | _flat(row, ESTIMATES)
        | {f"bits_per_byte on {text} text": row["bits_per_byte_by_text"].get(text) for text in texts}
        for row in results["languages"]
    ]
    (folder / "languages.csv").write_text(_csv(rows))
    rows = [
        {"grouped_by": kind} | {name: row[name] for name in ("name", "languages", "share")} | _flat(row, ESTIMATES[:3])
        for kind in ("scripts", "resource_classes")
        for row in results[kind]
    ]
    (folder / "groups.csv").write_text(_csv(rows))
    if results["parallel"]:
        rows = [
            {name: row[name] for name in ("language", "tokens", "cost")} | _flat(row, PARITY_ESTIMATES)
            for row in results["parallel"]["languages"]
        ]
        (folder / "parity.csv").write_text(_csv(rows))


def _flat(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns each estimate as columns: its value under its name, the rest under NAME_lower and so on."""
    columns: dict[str, Any] = {}
    for name in names:
        for part, value in (row[name] or {"value": None, "lower": None, "upper": None}).items():
            columns[name if part == "value" else f"{name}_{part}"] = value
    return columns


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def figure_text(estimate: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Returns `value (lower – upper)`, a dash for what is undefined."""
    if estimate is None:
        return "–"
    if estimate["lower"] is None:
        return f"{estimate['value']:.{digits}f}"
    return f"{estimate['value']:.{digits}f} ({estimate['lower']:.{digits}f} – {estimate['upper']:.{digits}f})"


def summary_lines(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the summary as (name, value)."""
    summary, parallel = results["summary"], results["parallel"]
    lines = [
        ("languages", f"{summary['languages']:,} in {summary['scripts']:,} scripts"),
        ("tokens measured", f"{summary['tokens']:,}"),
        ("vocabulary used", f"{summary['vocabulary_utilisation']:.1%}"),
    ]
    lines += [(f"{LABELS[name]}, mean over languages", figure_text(summary[name])) for name in ESTIMATES]
    if "worst_decile" in summary:
        lines.append(("bits per byte, worst decile", figure_text(summary["worst_decile"])))
        for text, estimate in summary["bits_per_byte_by_text"].items():
            lines.append((f"bits per byte on {text} text, {estimate['languages']} languages", figure_text(estimate)))
    if "held_out_minus_training" in summary:
        difference = summary["held_out_minus_training"]
        lines.append((f"held out − training, {difference['languages']} languages", figure_text(difference)))
    if summary.get("rank_correlation_with_share") is not None:
        lines.append(("rank correlation with share of training", f"{summary['rank_correlation_with_share']:.3f}"))
    for cost, found in results["inequality"].items():
        lines.append((f"Gini of {LABELS[cost]}, over languages", figure_text(found["language"])))
    if parallel:
        fairness = parallel["fairness"]
        name = f"tokenizer-fairness Gini, tokens per {fairness['unit']}, {fairness['languages']} languages"
        lines.append((name, figure_text(fairness["gini"])))
        lines.append(("dearest over cheapest language", f"{fairness['greatest_over_least']:.2f} ×"))
    return lines


def print_summary(results: Mapping[str, Any]) -> None:
    """Shows the summary, the resource classes and the largest scripts in the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Languages (95 % intervals)", show_header=False)
    for name, value in summary_lines(results):
        table.add_row(name, value)
    console.print(table)
    groups = Table(title="Groups, means over languages")
    for name in ("", "languages", "share", "bits per byte", "fertility", "Gini of bits per byte"):
        groups.add_column(name, justify="right" if name else "left")
    for entry in [*results["resource_classes"], *results["scripts"][:ROWS_IN_TERMINAL]]:
        cost, fertility = entry["bits_per_byte"], entry["fertility"]
        groups.add_row(
            entry["name"],
            f"{entry['languages']:,}",
            "–" if entry["share"] is None else f"{entry['share']:.2%}",
            f"{cost['value']:.3f}" if cost else "–",
            f"{fertility['value']:.2f}" if fertility else "–",
            f"{cost['gini']:.3f}" if cost else "–",
        )
    console.print(groups)
    for note in results["notes"][:-1]:
        console.print(note, highlight=False)


def write_report(path: epath.PathLike, results: Mapping[str, Any], subject: str) -> None:
    """Writes the page: summary, pictures, groups, parity, and every language folded away."""
    page = HtmlReport("Languages", f"measured: {subject}")
    for note in results["notes"]:
        page.note(note)
    page.table(("figure", "value"), summary_lines(results))
    _add_share(page, results)
    _add_groups(page, results)
    if results["parallel"]:
        _add_parity(page, results["parallel"])
    page.heading("Every language")
    columns = ("language", "text", "class", "share", "tokens", *(LABELS[name] for name in ESTIMATES))
    rows = [
        (
            row["language"],
            row["text"],
            row["resource_class"],
            "–" if row["share"] is None else f"{row['share']:.4%}",
            f"{row['tokens']:,}",
            *(figure_text(row[name]) for name in ESTIMATES),
        )
        for row in sorted(results["languages"], key=_worst_first)
    ]
    page.text(aligned_text(columns, rows), summary=f"{len(rows)} languages, the most bits per byte first")
    page.write(path)


def _worst_first(row: Mapping[str, Any]) -> tuple[float, str]:
    estimate = row["bits_per_byte"] or row["tokens_per_character"]
    return (-estimate["value"] if estimate else 0.0, row["language"])


def _add_share(page: HtmlReport, results: Mapping[str, Any]) -> None:
    rows = [row for row in results["languages"] if row["bits_per_byte"] and row["share"]]
    if not rows:
        return
    page.heading("Bits per byte against the share of training tokens")
    page.note(
        "One point per language, coloured by script; full points are held-out text, hollow ones text of the training "
        "sources. The axis is logarithmic; languages without training text are not on it."
    )
    largest = [entry["name"] for entry in results["scripts"]][:SCRIPTS_COLOURED]
    page.figure(share_plot(rows, largest))
    page.text("\n".join(results["summary"]["worst_decile"]["languages"]), summary="the worst decile, worst first")


def _add_groups(page: HtmlReport, results: Mapping[str, Any]) -> None:
    page.heading("Inequality")
    page.note("Gini coefficients: 0 when all pay the same. Between languages with an interval over languages.")
    names = ("language", "script", "resource_class")
    page.table(
        ("cost", *(f"between {LABELS[name]}" for name in names)),
        [
            (LABELS[cost], figure_text(found["language"]), *(found[name] for name in names[1:]))
            for cost, found in results["inequality"].items()
        ],
    )
    columns = ("", "languages", "share of training", *(LABELS[name] for name in ESTIMATES[:3]), "Gini of bits per byte")
    for kind, title in (("resource_classes", "By resource class"), ("scripts", "By script")):
        entries = results[kind]
        page.heading(title)
        rows = [
            (
                entry["name"],
                entry["languages"],
                "–" if entry["share"] is None else f"{entry['share']:.3%}",
                *(figure_text(entry[name]) for name in ESTIMATES[:3]),
                entry["bits_per_byte"]["gini"] if entry["bits_per_byte"] else "–",
            )
            for entry in entries
        ]
        drawn = [entry for entry in entries if entry["bits_per_byte"]][:SCRIPTS_DRAWN]
        if drawn:
            parts = [[entry["bits_per_byte"][part] for entry in drawn] for part in ("value", "lower", "upper")]
            names_drawn = [f"{entry['name']} ({entry['languages']})" for entry in drawn]
            page.figure(interval_plot(names_drawn, *parts, x_label="bits per byte, mean over languages"))
        if kind == "scripts":
            page.text(aligned_text(columns, [tuple(map(_cell, row)) for row in rows]), summary=f"{len(rows)} scripts")
        else:
            page.table(columns, rows)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _add_parity(page: HtmlReport, parallel: Mapping[str, Any]) -> None:
    fairness = parallel["fairness"]
    page.heading("Parity: what the same sentences cost")
    page.note(
        f"Texts: {parallel['texts']}, {fairness['lines']} lines in {fairness['languages']} languages. "
        f"{parallel['note']}"
    )
    page.table(
        ("figure", "value"),
        [
            (f"tokenizer-fairness Gini (tokens per {fairness['unit']})", figure_text(fairness["gini"])),
            ("between means of scripts", fairness["gini_between_scripts"]),
            ("cheapest", f"{fairness['least']['language']} {fairness['least']['cost']:.3f}"),
            ("dearest", f"{fairness['greatest']['language']} {fairness['greatest']['cost']:.3f}"),
            ("dearest over cheapest", fairness["greatest_over_least"]),
        ],
    )
    rows = sorted(parallel["languages"], key=lambda row: -row["premium"]["value"])
    names = [row["language"] for row in rows[:SCRIPTS_DRAWN]]
    premiums = [row["premium"]["value"] for row in rows[:SCRIPTS_DRAWN]]
    page.figure(bar_plot(names, premiums, f"tokens over those of {parallel['baseline']}"))
    page.figure(lorenz_plot(fairness["lorenz"]))
    columns = ("language", "tokens", f"per {fairness['unit']}", "premium", "information parity", "bits per byte")
    table = [
        (
            row["language"],
            f"{row['tokens']:,}",
            f"{row['cost']:.3f}",
            *(figure_text(row[name]) for name in PARITY_ESTIMATES),
        )
        for row in rows
    ]
    page.text(aligned_text(columns, table), summary=f"{len(table)} languages, the dearest first")


def aligned_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in characters, the first column to the left, the others to the right."""
    widths = [max(map(len, each)) for each in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join((row[0].ljust(widths[0]), *cells[1:])))
    return "\n".join(lines)


def share_plot(rows: Sequence[Mapping[str, Any]], scripts: Sequence[str]) -> Figure:
    """Draws bits per byte against the share of training tokens; the given scripts have colours, the others are grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    for place, script in enumerate([*scripts, None]):
        colour = "#bbbbbb" if script is None else f"C{place}"
        chosen = [row for row in rows if (row["script"] not in scripts if script is None else row["script"] == script)]
        for seen in (True, False):
            points = [row for row in chosen if (row["text"] == "training") == seen]
            axes.scatter(
                [row["share"] for row in points],
                [row["bits_per_byte"]["value"] for row in points],
                s=14,
                facecolors="none" if seen else colour,
                edgecolors=colour,
                linewidths=0.8,
            )
        axes.scatter([], [], s=14, color=colour, label=script or "other scripts")
    axes.set_xscale("log")
    axes.set_xlabel("share of training tokens")
    axes.set_ylabel("bits per byte")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=7, ncols=math.ceil((len(scripts) + 1) / 5))
    return figure


def lorenz_plot(curve: Sequence[Sequence[float]]) -> Figure:
    """Draws (share of languages, share of the cost) beside the line of equality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.2))
    axes = figure.subplots()
    axes.plot(*curve, linewidth=1.3)
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle="dotted")
    axes.set_xlabel("share of languages, cheapest first")
    axes.set_ylabel("share of all tokens")
    axes.grid(alpha=0.3)
    return figure

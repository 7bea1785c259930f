"""Language report: tables, plots and the HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.reports.axes import Axis
from apertus_jax.reports.chart import GREY, Chart
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.line_chart import Line, line_chart
from apertus_jax.reports.row_charts import bar_chart, interval_chart
from apertus_jax.reports.scatter_chart import Points, scatter_chart
from apertus_jax.reports.units import SHARE
from apertus_jax.terminal.tables import show_fields, show_line, show_table

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
SCRIPTS_COLORED = 8
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
    show_fields([(f"  {name}", value) for name, value in summary_lines(results)], "Languages (95 % intervals)")
    columns = ("", "languages", "share", "bits per byte", "fertility", "Gini of bits per byte")
    rows = []
    for entry in [*results["resource_classes"], *results["scripts"][:ROWS_IN_TERMINAL]]:
        cost, fertility = entry["bits_per_byte"], entry["fertility"]
        rows.append(
            (
                entry["name"],
                f"{entry['languages']:,}",
                "–" if entry["share"] is None else f"{entry['share']:.2%}",
                f"{cost['value']:.3f}" if cost else "–",
                f"{fertility['value']:.2f}" if fertility else "–",
                f"{cost['gini']:.3f}" if cost else "–",
            )
        )
    show_table(columns, rows, "Groups, means over languages", right=columns[1:])
    for note in results["notes"][:-1]:
        show_line(note)


def write_report(path: epath.PathLike, results: Mapping[str, Any], subject: str) -> None:
    """Writes the page: summary, pictures, groups, parity, and every language folded away."""
    page = HtmlReport("Languages", f"measured: {subject}")
    for note in results["notes"]:
        page.note(note)
    page.note(f"Bits per byte: {results['bits_per_byte_is']}.")
    page.facts(summary_lines(results))
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
    page.table(columns, rows, summary=f"{len(rows)} languages, the most bits per byte first")
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
        "One point for each language, coloured by script; full points are held-out text, hollow ones text of the "
        "training sources. Languages without training text are not shown."
    )
    largest = [entry["name"] for entry in results["scripts"]][:SCRIPTS_COLORED]
    page.figure(share_chart(rows, largest))
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
            values, lower, upper = (
                [entry["bits_per_byte"][part] for entry in drawn] for part in ("value", "lower", "upper")
            )
            names_drawn = [f"{entry['name'] or 'unknown'} ({entry['languages']})" for entry in drawn]
            label = Axis("bits per byte, mean over languages")
            page.figure(interval_chart(f"Bits per byte {title.lower()}", names_drawn, values, lower, upper, x=label))
        page.table(columns, rows, summary=f"{len(rows)} scripts" if kind == "scripts" else None)


def _add_parity(page: HtmlReport, parallel: Mapping[str, Any]) -> None:
    fairness = parallel["fairness"]
    page.heading("Parity: what the same sentences cost")
    page.note(
        f"Texts: {parallel['texts']}, {fairness['lines']} lines in {fairness['languages']} languages. "
        f"{parallel['note']}"
    )
    page.facts(
        [
            (f"tokenizer-fairness Gini (tokens per {fairness['unit']})", figure_text(fairness["gini"])),
            ("between means of scripts", fairness["gini_between_scripts"]),
            ("cheapest", f"{fairness['least']['language']} {fairness['least']['cost']:.3f}"),
            ("dearest", f"{fairness['greatest']['language']} {fairness['greatest']['cost']:.3f}"),
            ("dearest over cheapest", fairness["greatest_over_least"]),
        ]
    )
    rows = sorted(parallel["languages"], key=lambda row: -row["premium"]["value"])
    names = [row["language"] for row in rows[:SCRIPTS_DRAWN]]
    premiums = [row["premium"]["value"] for row in rows[:SCRIPTS_DRAWN]]
    baseline = Axis(f"tokens over those of {parallel['baseline']}")
    page.figure(bar_chart("Price of the same sentences", names, premiums, baseline))
    page.figure(lorenz_chart(fairness["lorenz"]))
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
    page.table(columns, table, summary=f"{len(table)} languages, the dearest first")


def share_chart(rows: Sequence[Mapping[str, Any]], scripts: Sequence[str]) -> Chart:
    """Draws bits per byte against the share of training tokens; the given scripts have colours, the others are grey."""
    groups = []
    for place, script in enumerate([None, *scripts]):
        color = GREY if script is None else place - 1
        chosen = [row for row in rows if (row["script"] not in scripts if script is None else row["script"] == script)]
        name = "other scripts" if script is None else script or "unknown script"
        for seen in (True, False):
            points = [row for row in chosen if (row["text"] == "training") == seen]
            if points:
                groups.append(
                    Points(
                        name,
                        [row["share"] for row in points],
                        [row["bits_per_byte"]["value"] for row in points],
                        [row["language"] for row in points],
                        color,
                        hollow=seen,
                    )
                )
                name = ""  # once in the legend
    return scatter_chart(
        "Bits per byte by language",
        groups,
        Axis("share of training tokens", SHARE, scale="log"),
        Axis("bits per byte"),
        height=360,
    )


def lorenz_chart(curve: Sequence[Sequence[float]]) -> Chart:
    """Draws (share of languages, share of the cost) beside the line of equality."""
    x, y = curve
    return line_chart(
        "Who pays how much (Lorenz curve)",
        [Line("this tokenizer", x, y), Line("all pay the same", [0.0, 1.0], [0.0, 1.0], color=GREY, dash=1)],
        Axis("share of languages, cheapest first", SHARE, low=0.0, high=1.0),
        Axis("share of all tokens", SHARE, low=0.0, high=1.0),
    )

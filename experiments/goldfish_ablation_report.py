"""The report of the ablation: curves, heat map, tables, and the passages that were recited best."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
from goldfish_ablation_data import Planted, Texts
from goldfish_ablation_settings import RESTARTED, STANDARD, GoldfishAblation
from goldfish_ablation_summary import EVERYTHING, Figures
from rich.console import Console
from rich.table import Table

from apertus_jax.evaluation.intervals import interval_text
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.chart import GREY, Chart
from apertus_jax.reports.heat_map import heat_map
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.line_chart import Line, line_chart

DIFFS_SHOWN = 2
DIFF_STYLE = {"same": "background:#16a34a33", "other": "background:#dc262633;text-decoration:line-through"}


class ReportWithDiffs(HtmlReport):
    """A report that can also show a passage beside what was generated."""

    def diff(self, title: str, reference: Sequence[str], generated: Sequence[str], same: np.ndarray) -> None:
        """Adds the generated pieces, coloured by `same` bool[S], above the reference, folded behind `title`."""
        shown = "".join(
            f'<span style="{DIFF_STYLE["same" if hit else "other"]}">{html.escape(piece)}</span>'
            for piece, hit in zip(generated, same, strict=True)
        )
        self._pieces.append(
            f"<details><summary>{html.escape(title)}</summary>"
            f'<pre class="text">{shown}</pre><pre class="text">{html.escape("".join(reference))}</pre></details>'
        )


def write_report(
    path: Path,
    settings: GoldfishAblation,
    summary: Mapping[str, Any],
    results: Sequence[Figures],
    generated: Mapping[tuple[str, int], np.ndarray],
    material: Mapping[int, Planted],
    texts: Texts,
) -> None:
    """Writes report.html."""
    report = ReportWithDiffs(
        "Goldfish ablation",
        f"{summary['parameters']:,} parameters, {summary['tokens_per_training']:,} tokens per training, "
        f"{len(settings.arms)} arms × {len(settings.seeds)} seeds; prefix {settings.prefix}, suffix {settings.suffix} "
        f"tokens, greedy; {settings.probes} probes per bucket and seed; 95 % bootstrap intervals over probes",
    )
    report.heading("Claims")
    claims = [
        (
            row["claim"],
            "–" if row["found"] is None else f"{row['found']:.4f}",
            f"{row['verdict']}: {row['reason']}" if row["reason"] else row["verdict"],
        )
        for row in summary["claims"]
    ]
    report.table(("claim", "found", "verdict"), claims)
    report.heading("Recall against exposure")
    report.note("Rouge-L of the greedy continuation; a probe that was never read gives the level of unrelated text.")
    for chart in recall_charts(settings.exposures, summary["arms"]):
        report.figure(chart)
    report.heading("At the highest exposure")
    report.table(*_excess_table(settings, summary))
    report.heading("What the twins know of the labels that left the loss")
    report.note(
        "Teacher forcing on the suffixes at the highest exposure: the right word comes first for so many of the labels "
        "that were in the loss, and of those that were not. Where the first error of the continuation lies in a hole, "
        "the mask is what stopped it."
    )
    report.table(*_hole_table(settings, summary))
    report.heading("Held-out loss")
    report.note(
        f"Relative difference from the twin without a mask on the same documents, with the interval of two one-sided "
        f"tests at 5 %; equal means within ± {settings.margin:.1%}. How far {RESTARTED} lies off is chance alone."
    )
    report.table(*_held_out_table(summary))
    if settings.clusters:
        report.heading("Near-duplicate copies")
        report.note(
            f"Each text is planted as several copies that differ in line ends, spaces, one word or their tokens, each "
            f"read {settings.copy_exposures} times. A hole is revealed when some copy asks for it."
        )
        report.table(*_copies_table(settings, summary))
    report.heading("Recited best")
    report.note("Green is also in the true text, in this order; below it the true text.")
    _add_diffs(report, settings, results, generated, material, texts)
    report.write(path)


def recall_charts(exposures: Sequence[int], arms: Mapping[str, Any]) -> list[Chart]:
    """Returns what the twins recall: Rouge-L and the first error against exposure, and a heat map of Rouge-L."""
    names = [str(exposure) for exposure in exposures]
    charts = []
    for title, metric, label in (
        ("Recall against exposure", "rouge_l", "Rouge-L"),
        ("Where the first error is", "prefix_match", "tokens before the first error"),
    ):
        curves = {arm: [found["recall"][name][metric] for name in names] for arm, found in arms.items()}
        charts.append(exposure_chart(title, names, curves, label))
    values = [[found["recall"][name]["rouge_l"]["value"] for name in names] for found in arms.values()]
    return [*charts, heat_map("Rouge-L of each twin", names, list(arms), values, "times read", "twin", "Rouge-L")]


def exposure_chart(
    title: str,
    exposures: Sequence[str],
    arms: Mapping[str, Sequence[Mapping[str, float | None]]],
    label: str,
    shown: Mapping[str, str] | None = None,
) -> Chart:
    """Returns a curve for each twin over exposures.

    The twin without a mask is grey, its copy with other initial weights grey and dashed: the others are held to them.

    Args:
      title: of the chart.
      exposures: how often probes were read.
      arms: name of a twin → value, lower and upper of each exposure.
      label: of the values.
      shown: how twins are called in the legend, where not by their name.
    """
    lines: list[Line] = []
    for arm, rows in arms.items():
        ends = ([row[end] for row in rows] for end in ("value", "lower", "upper"))
        style = {STANDARD: {"color": GREY, "dash": 0}, RESTARTED: {"color": GREY, "dash": 1}}.get(arm)
        own = style or {"color": sum(line.color != GREY for line in lines), "dash": 0}
        lines.append(Line((shown or {}).get(arm, arm), range(len(exposures)), *ends, **own))
    return line_chart(title, lines, Axis("times read", scale="named", names=exposures), Axis(label))


def _interval(row: Mapping[str, float], form: str = ".3f") -> str:
    if row["value"] is None:
        return "–"
    ends = interval_text(row["lower"], row["upper"], form, ", ")
    return f"{row['value']:{form}}" + (" (no interval)" if ends == "–" else f" [{ends}]")


def _excess_table(settings: GoldfishAblation, summary: Mapping[str, Any]):
    highest = str(max(settings.exposures))
    columns = (
        "arm",
        "labels dropped",
        "Rouge-L",
        "unseen",
        "excess",
        "of the standard arm's",
        "LCCS",
        "exact",
        "first error",
    )
    rows = []
    for arm, found in summary["arms"].items():
        top, unseen = found["recall"][highest], found["recall"]["0"]
        rows.append(
            (
                arm,
                f"{found['drop_rate']['background']:.2%} / {found['drop_rate']['probes']:.2%}",
                _interval(top["rouge_l"]),
                f"{unseen['rouge_l']['value']:.3f}",
                _interval(found["excess"]),
                "" if arm == STANDARD else _interval(found["excess_over_standard"], ".2f"),
                f"{top['lccs']['value']:.3f}",
                f"{top['exact_match']['value']:.0%}",
                f"{top['prefix_match']['value']:.0f}",
            )
        )
    return columns, rows


def _hole_table(settings: GoldfishAblation, summary: Mapping[str, Any]):
    highest = str(max(settings.exposures))
    columns = (
        "arm",
        "holes in a suffix",
        "right, in the loss",
        "right, in holes",
        "the same, unseen probes",
        "first error in a hole",
    )
    rows = []
    for arm, found in summary["arms"].items():
        top, unseen = found["recall"][highest], found["recall"]["0"]
        cells = [
            top["accuracy_kept"],
            top["accuracy_dropped"],
            unseen["accuracy_dropped"],
            top["first_error_at_a_hole"],
        ]
        rows.append((arm, f"{top['holes']:.1f}", *("–" if cell is None else f"{cell:.1%}" for cell in cells)))
    return columns, rows


def _held_out_table(summary: Mapping[str, Any]):
    groups = next(iter(summary["arms"].values()))["held_out"]
    rows = []
    for arm, found in summary["arms"].items():
        for group in groups:
            test = found["held_out"][group]
            unknown = f"{test['verdict']}: {test['reason']}"
            verdict = {True: "equal", False: "not shown equal"}.get(test["equivalent"], unknown)
            shown = ("", "") if arm == STANDARD else (_difference(test), verdict)
            rows.append((arm, group, test["documents"], test["loss"], *shown))
    return ("arm", "language group", "documents × seeds", "nats per label", "difference", "verdict"), rows


def _difference(test: Mapping[str, float]) -> str:
    return f"{test['difference']:+.2%} [{interval_text(test['lower'], test['upper'], '+.2%', ', ')}]"


def _copies_table(settings: GoldfishAblation, summary: Mapping[str, Any]):
    highest = str(max(settings.exposures))
    columns = (
        *("arm", "masked in the first copy", "masked in every copy", "holes revealed"),
        *("Rouge-L, words", "Rouge-L, tokens", f"the same, exact copies × {highest}"),
    )
    rows = []
    for arm, found in summary["arms"].items():
        copies = found["copies"]
        revealed = copies["holes_revealed"]
        rows.append(
            (
                arm,
                f"{copies['masked_in_the_first_copy']:.2%}",
                f"{copies['masked_in_every_copy']:.2%}",
                "–" if revealed is None else f"{revealed:.1%}",
                _interval(copies["words_rouge_l"]),
                _interval(copies["rouge_l"]),
                f"{found['recall'][highest]['rouge_l']['value']:.3f}",
            )
        )
    return columns, rows


def _add_diffs(
    report: ReportWithDiffs,
    settings: GoldfishAblation,
    results: Sequence[Figures],
    generated: Mapping[tuple[str, int], np.ndarray],
    material: Mapping[int, Planted],
    texts: Texts,
) -> None:
    """The strongest recall of each arm, over all seeds."""
    for arm in settings.arms:
        found = [
            (probe["rouge_l"], figures["seed"], number, probe["exposure"])
            for figures in results
            if figures["arm"] == arm
            for number, probe in enumerate(figures["probes"])
        ]
        for rouge, seed, number, exposure in sorted(found, reverse=True)[:DIFFS_SHOWN]:
            reference = material[seed].probes[number][settings.prefix : settings.length].tolist()
            continuation = generated[arm, seed][number].tolist()
            pieces = [[texts.tokenizer.decode([token]) for token in ids] for ids in (reference, continuation)]
            same = np.zeros(len(continuation), bool)
            for block in SequenceMatcher(None, reference, continuation, autojunk=False).get_matching_blocks():
                same[block.b : block.b + block.size] = True
            report.diff(
                f"{arm}: probe {number} of seed {seed}, read {exposure} times, Rouge-L {rouge:.3f}", *pieces, same
            )


def print_summary(settings: GoldfishAblation, summary: Mapping[str, Any]) -> None:
    """Shows the two tables that decide the claims."""
    console = Console(width=160)
    table = Table(title=f"Goldfish twins after {max(settings.exposures)} readings")
    columns, rows = _excess_table(settings, summary)
    for column in (*columns, "held-out loss"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for row in rows:
        test = summary["arms"][row[0]]["held_out"][EVERYTHING]
        table.add_row(*map(str, row), _difference(test))
    console.print(table)
    if settings.clusters:
        columns, rows = _copies_table(settings, summary)
        table = Table(title="Near-duplicate copies")
        for column in columns:
            table.add_column(column, justify="left" if column == "arm" else "right")
        for row in rows:
            table.add_row(*map(str, row))
        console.print(table)

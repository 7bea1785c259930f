"""Task results as a table in the terminal and an HTML page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.reports.axes import Axis
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.row_charts import bar_chart, interval_chart
from apertus_jax.terminal.tables import show_line, show_table

SHOWN_SAMPLES = 5
# Two standard errors on either side: the 95 % interval of a mean of many documents.
STANDARD_ERRORS = 1.96


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: a metric of a task or group."""

    task: str
    metric: str
    filter: str
    shots: int | None
    documents: int | None
    value: float
    error: float | None


def result_rows(results: Mapping[str, Any]) -> list[Row]:
    """Returns every figure of the harness's results, in its order of tasks."""
    rows = []
    for task, metrics in results["results"].items():
        for key, value in metrics.items():
            metric, _, chosen = key.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = metrics.get(f"{metric}_stderr,{chosen}")
            rows.append(
                Row(
                    task=task,
                    metric=metric,
                    filter=chosen,
                    shots=results.get("n-shot", {}).get(task),
                    documents=results.get("n-samples", {}).get(task, {}).get("effective"),
                    value=float(value),
                    error=float(error) if isinstance(error, (int, float)) else None,
                )
            )
    return rows


def print_table(results: Mapping[str, Any]) -> None:
    """Shows the results in the terminal."""
    cells, previous = [], None
    for row in result_rows(results):
        first = row.task != previous
        cells.append(
            (
                row.task if first else "",
                f"{row.documents:,}" if first and row.documents is not None else "",
                str(row.shots) if first and row.shots is not None else "",
                row.metric if row.filter == "none" else f"{row.metric} ({row.filter})",
                f"{row.value:,.4g}",
                "" if row.error is None else f"{row.error:.2g}",
            )
        )
        previous = row.task
    columns = ("task", "documents", "shots", "metric", "value", "±")
    show_table(columns, cells, "Tasks (± standard error)", right=("documents", "shots", "value", "±"))
    for name, metrics in results["macros"]["scores"].items():
        show_line(f"{name}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items()))
    if results.get("consumed_tokens") is not None:
        show_line(f"after {results['consumed_tokens']:,} training tokens")
    if results["config"].get("truncated_requests"):
        show_line(f"{results['config']['truncated_requests']:,} contexts were too long and lost their beginning")


def write_report(path: epath.PathLike, results: Mapping[str, Any], samples: Mapping[str, Any], run: str) -> None:
    """Writes the HTML page: a plot and a table of all figures, macro scores, settings and a few documents."""
    report = HtmlReport("Evaluation on tasks", f"model: {epath.Path(run).name}")
    rows = result_rows(results)
    accuracies = [row for row in rows if row.metric == "acc" and row.error is not None]
    if accuracies:
        report.heading("Accuracy")
        errors = [STANDARD_ERRORS * row.error for row in accuracies if row.error is not None]
        report.figure(
            interval_chart(
                "Accuracy by task",
                [row.task for row in accuracies],
                [row.value for row in accuracies],
                [row.value - error for row, error in zip(accuracies, errors, strict=True)],
                [row.value + error for row, error in zip(accuracies, errors, strict=True)],
                x=Axis("accuracy, with 95 % interval over documents"),
            )
        )
    report.heading("All figures")
    report.table(
        ("task", "documents", "shots", "metric", "filter", "value", "standard error"),
        [
            (
                row.task,
                "" if row.documents is None else row.documents,
                "" if row.shots is None else row.shots,
                row.metric,
                row.filter,
                row.value,
                "" if row.error is None else row.error,
            )
            for row in rows
        ],
    )
    _add_macros(report, results["macros"])
    report.heading("Documents")
    report.note(f"The first {SHOWN_SAMPLES} of each task, with what the model was asked and what it answered.")
    for task, documents in samples.items():
        report.text(_show(documents[:SHOWN_SAMPLES]), summary=f"{task}: {len(documents):,} documents")
    report.heading("Settings")
    facts = {**results["config"], "consumed_tokens": results.get("consumed_tokens")}
    facts["lm_eval"] = results["lm_eval_version"]
    report.facts((name, str(value)) for name, value in facts.items())
    report.write(path)


def _add_macros(report: HtmlReport, macros: Mapping[str, Any]) -> None:
    report.heading("Macro scores")
    scores = macros["scores"]
    if scores:
        named = [(name, metrics["acc"]) for name, metrics in scores.items() if "acc" in metrics]
        if named:
            names, values = [name for name, _ in named], [value for _, value in named]
            report.figure(bar_chart("Macro accuracy", names, values, x=Axis("accuracy", low=0.0, high=1.0)))
        table = [(name, metric, value) for name, metrics in scores.items() for metric, value in metrics.items()]
        report.table(("macro", "metric", "value"), table)
    else:
        report.note("None: a macro score needs every one of its tasks.")
    if macros["withheld"]:
        report.note("Withheld, because these tasks are missing:")
        report.table(("macro", "missing tasks"), [(name, ", ".join(each)) for name, each in macros["withheld"].items()])


def _show(documents: Sequence[Mapping[str, Any]]) -> str:
    blocks = []
    for document in documents:
        lines = [f"document {document['doc_id']}, target {json.dumps(document['target'], ensure_ascii=False)}"]
        for arguments, answers in zip(document["arguments"], document["resps"], strict=True):
            lines.append("  asked    " + json.dumps(arguments, ensure_ascii=False))
            lines.append("  answered " + json.dumps(answers, ensure_ascii=False))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)

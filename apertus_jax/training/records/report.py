"""HTML report of a run: curves, throughput, configuration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from apertus_jax import __version__
from apertus_jax.data.provenance.language_shares import LanguageExposure
from apertus_jax.data.sample_order.batch_history import BatchHistory
from apertus_jax.model import count_parameters
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.chart import Chart
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.line_chart import Line, line_chart
from apertus_jax.reports.row_charts import bar_charts
from apertus_jax.reports.units import COUNT, SHARE, readable
from apertus_jax.storage.run_folder import MIXTURE_FILE, RunFolder
from apertus_jax.training.program import Program
from apertus_jax.training.records.goodput import Goodput, read_goodput
from apertus_jax.training.records.run_history import Change, steps_of_changes
from apertus_jax.training.records.telemetry import read_evaluations, read_metrics
from apertus_jax.training.survival import language_figures

TOKENS = Axis("trained tokens", COUNT, low=0.0)
LANGUAGES_DRAWN = 30
GROUPS_DRAWN = 10


def write_run_report(
    folder: epath.Path,
    name: str,
    program: Program,
    summary: Mapping[str, Any],
    exposure: LanguageExposure,
    config: Mapping[str, str],
    changes: Sequence[Change] = (),
    history: BatchHistory | None = None,
    stages: Sequence[int] = (0,),
) -> None:
    """Writes `report.html` of a run folder from its metrics and records; curves are marked where something changed.

    `stages` are the sample numbers at which the stages of the mixture begin.
    """
    rows = read_metrics(folder)
    marks = [] if history is None else [history.tokens_before(step) for step in steps_of_changes(changes)]
    report = HtmlReport(f"Run {name}", f"apertus_jax {__version__}")
    report.tiles(
        [
            ("parameters", readable(count_parameters(program.abstract_state.params), COUNT)),
            ("trained tokens", readable(summary["tokens"], COUNT)),
            ("last logged loss, nats per token", summary["loss"]),
            ("languages seen", summary["languages"]),
        ]
    )
    if changes:
        report.heading("What changed on the way")
        report.note("Dashed lines in the plots stand where something changed.")
        report.table(
            ("step", "sample", "date", "setting", "before", "from there on"),
            [(c.step, c.sample, c.date, c.binding, c.old or "–", c.new or "–") for c in changes],
        )
    if rows:
        report.heading("Training")
        for chart in training_charts(rows, marks):
            report.figure(chart)
    add_stages(report, rows, stages)
    evaluations = read_evaluations(folder)
    add_evaluations(report, evaluations, marks)
    looked = [row["metrics"] for row in evaluations if row["evaluator"] == language_figures.NAME]
    add_languages(report, exposure, looked)
    report.heading("Facts")
    report.facts(facts(program, summary, rows, read_goodput(folder)))
    if spikes := [spike for row in rows for spike in row.get("spikes", [])]:
        report.heading("Steps skipped as spikes")
        report.table(tuple(spikes[0]), [tuple(spike.values()) for spike in spikes])
    report.text(RunFolder(folder).mixture.read_text(), summary=f"mixture ({MIXTURE_FILE})")
    bindings = "\n".join(f"{name} = {value}" for name, value in sorted(config.items()))
    report.text(bindings, summary="configuration in effect")
    report.write(RunFolder(folder).report)


def facts(
    program: Program, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], goodput: Goodput | None = None
) -> list[tuple[str, Any]]:
    """Returns what is true of the whole run, as (name, value)."""
    timed = [row for row in rows if "model_flops_per_second" in row]
    found: list[tuple[str, Any]] = [
        ("parameters", count_parameters(program.abstract_state.params)),
        ("steps", summary["step"]),
        ("tokens trained", summary["tokens"]),
        ("share of tokens not English", f"{100 * summary['non_english_share']:.1f} %"),
        ("share of tokens of unknown language", f"{100 * summary['unknown_language_share']:.1f} %"),
        ("updates skipped", sum(row["skipped"] for row in rows)),
        ("attention", program.config.attention_implementation),
        ("devices", f"{len(jax.devices())} × {jax.devices()[0].device_kind}"),
        ("mesh", ", ".join(f"{axis} {size}" for axis, size in program.mesh.shape.items())),
        *(("compiler option", f"{name}={value}") for name, value in program.compiler_options.items()),
        ("compiling, this start", f"{program.compile_seconds:.1f} s"),
    ]
    if timed:
        work = statistics.median(row["model_flops_per_second"] for row in timed)
        counted = "forward and backward products, full square attention, no recomputation"
        found.append(("median model FLOP/s", f"{readable(work / 1e9)} GFLOP/s ({counted})"))
    utilization = [row["mfu"] for row in timed if "mfu" in row]
    if utilization:
        found.append(("median MFU", f"{100 * statistics.median(utilization):.1f} %"))
    waits = [row["data_seconds"] * row["tokens_per_second"] for row in timed if "data_seconds" in row]
    if waits and (total := rows[-1]["tokens"]):
        found.append(("time waiting for data", f"{100 * min(1.0, sum(waits) / total):.1f} % of the steps'"))
    peaks = [row["device_memory_peak"] for row in timed if "device_memory_peak" in row]
    if peaks:
        found.append(("most memory of a device", f"{readable(max(peaks), COUNT)}B"))
    if goodput is not None:
        found.append(("goodput", goodput.told()))
    return found


def training_charts(rows: Sequence[Mapping[str, Any]], marks: Sequence[float] = ()) -> list[Chart]:
    """Returns the curves of a run over its tokens; each of `marks` is a number of tokens where something changed."""
    timed = [row for row in rows if "learning_rate" in row]

    def curve(title: str, name: str, y: Axis, rows: Sequence[Mapping[str, Any]] = rows, smooth: bool = False) -> Chart:
        line = Line(name.replace("_", " "), [row["tokens"] for row in rows], [row[name] for row in rows])
        return line_chart(title, [line], TOKENS, y, marks, smooth=smooth)

    return [
        curve("Training loss", "loss", Axis("nats per token"), smooth=True),
        curve("Gradient norm before clipping", "gradient_norm", Axis("norm", scale="log"), smooth=True),
        curve("Learning rate", "learning_rate", Axis("learning rate", low=0.0), timed),
        curve("Labels in the loss", "kept_fraction", Axis("share kept by the masks", SHARE, low=0.0, high=1.0)),
        curve("Throughput", "tokens_per_second", Axis("tokens per second", COUNT, low=0.0), timed, smooth=True),
    ]


def add_evaluations(report: HtmlReport, rows: Sequence[Mapping[str, Any]], marks: Sequence[float] = ()) -> None:
    """Adds a curve for each metric of each evaluator, its first groups as lines of their own, and the last values."""
    for evaluator in dict.fromkeys(row["evaluator"] for row in rows):
        report.heading(f"Evaluation: {evaluator}")
        own = [row for row in rows if row["evaluator"] == evaluator]
        curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for row in own:
            for name, value in row["metrics"].items():
                metric, _, group = name.partition("/")
                lines = curves.setdefault(metric, {})
                if isinstance(value, float) and (group in lines or len(lines) <= GROUPS_DRAWN):
                    x, y = lines.setdefault(group, ([], []))
                    x.append(row["tokens"])
                    y.append(value)
        for metric, lines in curves.items():
            drawn = [Line(group or "all", *line) for group, line in lines.items()]
            report.figure(line_chart(metric.replace("_", " "), drawn, TOKENS, Axis(metric.replace("_", " ")), marks))
        report.table(
            ("metric", "value"),
            list(own[-1]["metrics"].items()),
            summary=f"every value after {own[-1]['tokens']:,} tokens",
        )


def add_stages(report: HtmlReport, rows: Sequence[Mapping[str, Any]], stages: Sequence[int]) -> None:
    """Adds tokens and loss of each stage of the mixture, where there is more than one."""
    if len(stages) > 1 and rows:
        report.heading("Stages of the mixture")
        report.table(("stage", "from sample", "tokens", "mean loss", "last loss"), figures_of_stages(rows, stages))


def figures_of_stages(
    rows: Sequence[Mapping[str, Any]], stages: Sequence[int]
) -> list[tuple[int, int, int, float, float]]:
    """Returns number, first sample, tokens, mean loss by token and last logged loss of each stage that was reached.

    A row that a stage ends in counts for both by its samples.

    Args:
      rows: logged rows, see `read_metrics`.
      stages: sample numbers at which stages begin, ascending.
    """
    ends = [*stages[1:], math.inf]
    tokens, sums, last = [0] * len(stages), [0.0] * len(stages), [math.nan] * len(stages)
    samples_before = tokens_before = 0
    for row in rows:
        samples, length = row["samples"] - samples_before, row["tokens"] - tokens_before
        for number, (first, end) in enumerate(zip(stages, ends, strict=True)):
            own = min(row["samples"], end) - max(samples_before, first)
            if own > 0:
                tokens[number] += (share := round(length * own / samples))
                sums[number] += share * row["loss"]
                last[number] = row["loss"]
        samples_before, tokens_before = row["samples"], row["tokens"]
    reached = [number for number, count in enumerate(tokens) if count]
    return [(number, stages[number], tokens[number], sums[number] / tokens[number], last[number]) for number in reached]


def add_languages(report: HtmlReport, exposure: LanguageExposure, looked: Sequence[Mapping[str, float]] = ()) -> None:
    """Adds the languages that the run was trained on, the largest drawn; `looked` are its language figures."""
    report.heading("Languages")
    counted = "every sample" if exposure.exact else f"{exposure.samples_counted:,} evenly spaced samples, scaled up"
    report.note(f"{exposure.num_languages} languages, counted over {counted}.")
    total = max(sum(exposure.tokens.values()), 1)
    names = list(exposure.tokens)[:LANGUAGES_DRAWN]
    shares = [exposure.tokens[name] / total for name in names]
    if names:
        title = "Largest languages" if len(exposure.tokens) > len(names) else "Languages of the trained tokens"
        for chart in bar_charts(title, names, shares, Axis("share of trained tokens", SHARE)):
            report.figure(chart)
    titles: tuple[str, ...] = ("language", "tokens", "share")
    lines: list[tuple[Any, ...]] = [
        (name, count, f"{100 * count / total:.4f} %") for name, count in exposure.tokens.items()
    ]
    if looked:
        titles = (*titles, "loss when last looked at")
        losses = {name: value for figures in looked for name, value in figures.items()}
        lines = [(*line, losses.get(f"loss/{line[0]}", "–")) for line in lines]
    report.table(titles, lines, summary="every language")

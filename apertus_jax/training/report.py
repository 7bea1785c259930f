"""The HTML page of a run: curves, throughput, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from apertus_jax import __version__
from apertus_jax.data.exposure import LanguageExposure
from apertus_jax.data.recorded_stream import MIXTURE_FILE
from apertus_jax.reporting import HtmlReport, bar_plot, line_plot
from apertus_jax.training.program import Program
from apertus_jax.training.telemetry import read_evaluations, read_metrics

REPORT_FILE = "report.html"
LANGUAGES_DRAWN = 30
GROUPS_DRAWN = 10


def write_run_report(
    folder: epath.Path,
    program: Program,
    summary: Mapping[str, Any],
    exposure: LanguageExposure,
    config: Mapping[str, str],
) -> None:
    """Writes `report.html` of a run folder from its metrics and records."""
    rows = read_metrics(folder)
    report = HtmlReport(f"Run {folder.name}", f"apertus_jax {__version__}")
    model = program.config
    report.table(
        ("", ""),
        [
            ("parameters", model.num_parameters),
            ("steps", summary["step"]),
            ("tokens trained", summary["tokens"]),
            ("last logged loss, nats per token", summary["loss"]),
            ("languages seen", summary["languages"]),
            ("share of tokens not English", summary["non_english_share"]),
            ("updates skipped", sum(row["skipped"] for row in rows)),
            ("attention", model.attention_implementation),
            ("devices", f"{len(jax.devices())} × {jax.devices()[0].device_kind}"),
            ("mesh", ", ".join(f"{axis} {size}" for axis, size in program.mesh.shape.items())),
            ("compiling, this start", f"{program.compile_seconds:.1f} s"),
        ],
    )
    if rows:
        tokens = [row["tokens"] for row in rows]
        report.heading("Loss")
        report.figure(line_plot({"loss": (tokens, [row["loss"] for row in rows])}, "tokens", "nats per token"))
        report.heading("Gradient norm before clipping")
        norms = [row["gradient_norm"] for row in rows]
        report.figure(line_plot({"gradient norm": (tokens, norms)}, "tokens", "norm", log_y=True))
        report.heading("Learning rate")
        rates = [row["learning_rate"] for row in rows]
        report.figure(line_plot({"learning rate": (tokens, rates)}, "tokens", "learning rate"))
        report.heading("Share of labels in the loss")
        kept = [row["kept_fraction"] for row in rows]
        report.figure(line_plot({"kept": (tokens, kept)}, "tokens", "share kept by the masks"))
        report.heading("Throughput")
        rate = [row["tokens_per_second"] for row in rows]
        report.figure(line_plot({"tokens per second": (tokens, rate)}, "tokens", "tokens per second"))
        report.note("Model FLOP/s count forward and backward products, full square attention, no recomputation.")
        rates_of_work = sorted(row["model_flops_per_second"] for row in rows)
        median = rates_of_work[len(rates_of_work) // 2] / 1e9
        report.table(("", ""), [("median model GFLOP/s", median)])
    add_evaluations(report, read_evaluations(folder))
    add_languages(report, exposure)
    report.heading("Mixture")
    report.text((folder / MIXTURE_FILE).read_text(), summary="mixture.json")
    report.heading("Configuration in effect")
    report.text("\n".join(f"{name} = {value}" for name, value in sorted(config.items())), summary="bindings")
    report.write(folder / REPORT_FILE)


def add_evaluations(report: HtmlReport, rows: Sequence[Mapping[str, Any]]) -> None:
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
            report.figure(line_plot({group or "all": line for group, line in lines.items()}, "tokens", metric))
        report.text(
            "\n".join(f"{name}\t{value}" for name, value in own[-1]["metrics"].items()),
            summary=f"every value after {own[-1]['tokens']:,} tokens",
        )


def add_languages(report: HtmlReport, exposure: LanguageExposure) -> None:
    """Adds the languages that the run was trained on, the largest drawn."""
    report.heading("Languages")
    counted = "every sample" if exposure.exact else f"{exposure.samples_counted:,} evenly spaced samples, scaled up"
    report.note(f"{len(exposure.tokens)} languages, counted over {counted}.")
    total = max(sum(exposure.tokens.values()), 1)
    names = list(exposure.tokens)[:LANGUAGES_DRAWN]
    shares = [100 * exposure.tokens[name] / total for name in names]
    report.figure(bar_plot(names, shares, "% of trained tokens"))
    report.text("\n".join(f"{name}\t{count}" for name, count in exposure.tokens.items()), summary="every language")

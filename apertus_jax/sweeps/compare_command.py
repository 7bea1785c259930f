"""The `compare` command: runs side by side, curves over each other and final figures with intervals over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.storage import artifacts
from apertus_jax.sweeps.comparison.arms import Arm, baseline_of, best_of_each, main_metric, make_arms, metrics_of
from apertus_jax.sweeps.comparison.compared_runs import STORE, ComparedRun, find_runs, read_runs
from apertus_jax.sweeps.comparison.figures import curves_chart, differences_chart, final_chart
from apertus_jax.sweeps.comparison.tables import (
    arm_record,
    curves_csv,
    runs_csv,
    settings_rows,
    spelled_difference,
    spelled_mean,
)
from apertus_jax.terminal.screen import Screen
from apertus_jax.terminal.tables import show_table

KIND = "comparison"
RESULTS_FILE, REPORT_FILE, RUNS_FILE, CURVES_FILE = "results.json", "report.html", "runs.csv", "curves.csv"
SEED = "TrainingConfig.seed"
ARMS_SIDE_BY_SIDE = 6  # more settings columns than that no page shows
INTERVALS = (
    "Intervals hold the true mean 95 % of the time if runs scatter normally (Student's t over seeds). A difference is "
    "taken seed by seed where both arms have the same seeds, else between means (Welch). Figures are of finished runs."
)


def compare(
    runs: Sequence[str],
    output: str,
    over: Sequence[str] = (SEED,),
    metric: str = "",
    baseline: str = "",
    best_of: Sequence[str] = (),
) -> dict[str, Any]:
    """Compares runs: curves over each other, what differs in their configuration, final figures with intervals.

    Runs that differ in `over` alone make one arm. Writes report.html, results.json, runs.csv and curves.csv into
    `output`; a comparison that is there already is replaced when its runs have come further.

    Args:
      runs: folders of runs, or of sweeps, whose runs are all taken. They may still be training.
      output: folder of the comparison.
      over: bindings that are averaged over.
      metric: what arms are ranked by, less is better; else the loss of the first evaluator, or the training loss.
      baseline: name of the arm that the others are measured against, or its beginning; else the first.
      best_of: bindings that were tuned, such as a learning rate: of arms that differ in these alone only the one with
        the best mean is drawn and measured against the baseline. All are in the tables.

    Returns:
      The content of results.json.

    Raises:
      UserError: a folder that holds no run, a name that does not exist, or two runs that are the same.
    """
    read = read_runs(find_runs(runs))
    arms = make_arms(read, over)
    ranked_by = main_metric(read, metric)
    chosen = best_of_each(arms, best_of, ranked_by)
    against = baseline_of(chosen, baseline)
    metrics = metrics_of(read)
    results = {
        "metric": ranked_by,
        "baseline": against.name,
        "over": list(over),
        "best_of": list(best_of),
        "intervals": INTERVALS,
        "arms": [arm_record(arm, metrics, against, arm in chosen) for arm in arms],
        "unfinished": [run.name for run in read if not run.finished],
    }
    inputs = {"runs": {run.name: run.digest for run in read}, "asked": [list(over), metric, baseline, list(best_of)]}
    write(output, results, arms, chosen, against, inputs)
    show(arms, chosen, against, ranked_by, read, epath.Path(output))
    return results


def write(
    output: str,
    results: dict[str, Any],
    arms: Sequence[Arm],
    chosen: Sequence[Arm],
    baseline: Arm,
    inputs: dict[str, Any],
) -> None:
    """Writes the folder of a comparison, in place of an earlier one of the same folder."""
    folder = epath.Path(output)
    if artifacts.is_complete(folder) and artifacts.kind_of(folder) == KIND:
        if artifacts.same_inputs(folder, KIND, {**inputs, "version": __version__}):
            return
        folder.rmtree()
    metrics = metrics_of([run for arm in arms for run in arm.runs])
    with artifacts.build(folder, KIND, {**inputs, "version": __version__}) as build:
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
        (build.path / RESULTS_FILE).write_text(text + "\n")
        (build.path / RUNS_FILE).write_text(runs_csv(arms, metrics))
        (build.path / CURVES_FILE).write_text(curves_csv(arms))
        write_report(build.path / REPORT_FILE, results, arms, chosen, baseline, metrics)


def write_report(
    path: epath.PathLike,
    results: dict[str, Any],
    arms: Sequence[Arm],
    chosen: Sequence[Arm],
    baseline: Arm,
    metrics: Sequence[str],
) -> None:
    """Writes the HTML page: final figures, curves, configuration differences, and every run."""
    ranked_by, runs = results["metric"], [run for arm in arms for run in arm.runs]
    report = HtmlReport(
        f"{len(runs)} runs compared", f"{len(arms)} arms, less {ranked_by} is better; apertus_jax {__version__}"
    )
    if results["unfinished"]:
        report.note(f"Still training, or stopped: {', '.join(results['unfinished'])}. Their curves are drawn.")
    if len({run.settings.get(STORE) for run in runs}) > 1:
        report.note("These runs were trained on different token stores: losses count different tokens.")
    report.heading("Final figures")
    report.note(INTERVALS)
    report.table(
        ("arm", "seeds", ranked_by, f"difference to {baseline.name}"),
        [_row(arm, baseline, ranked_by) for arm in chosen],
    )
    report.figure(final_chart(chosen, ranked_by))
    if len(chosen) > 1:
        report.figure(differences_chart(chosen, baseline, ranked_by))
    report.heading("Curves")
    report.note("Of each arm the mean of its runs; the band goes from the least run to the most.")
    for metric in metrics:
        report.figure(curves_chart(chosen, metric))
    report.heading("What differs in the configuration")
    rows = settings_rows(chosen)
    for start in range(0, len(chosen), ARMS_SIDE_BY_SIDE):
        part = slice(start, start + ARMS_SIDE_BY_SIDE)
        columns = ("binding", *(arm.name for arm in chosen[part]))
        report.table(columns, [(name, *values[part]) for name, *values in rows])
    report.heading("Every arm and run")
    others = [metric for metric in metrics if metric != ranked_by]
    report.table(
        ("arm", "seeds", ranked_by, *others),
        [
            (arm.name, len(arm.finished), *(spelled_mean(arm.mean_of(metric)) for metric in (ranked_by, *others)))
            for arm in arms
        ],
    )
    report.table(
        ("run", "finished", "steps", "tokens", *metrics),
        [
            (run.name, "yes" if run.finished else "no", run.step, run.tokens)
            + tuple(run.figures.get(metric, "–") for metric in metrics)
            for run in runs
        ],
        summary="every run",
    )
    report.write(path)


def _row(arm: Arm, baseline: Arm, metric: str) -> tuple[str, int, str, str]:
    difference = "–" if arm is baseline else spelled_difference(arm.difference_to(baseline, metric))
    return arm.name, len(arm.finished), spelled_mean(arm.mean_of(metric)), difference


def show(
    arms: Sequence[Arm],
    chosen: Sequence[Arm],
    baseline: Arm,
    metric: str,
    runs: Sequence[ComparedRun],
    output: epath.Path,
) -> None:
    """Prints the final figures of the arms that are compared, and one line of what was done."""
    ranked = sorted(chosen, key=lambda arm: mean.mean if (mean := arm.mean_of(metric)) else float("inf"))
    rows = [
        (*_row(arm, baseline, metric)[:3], "baseline") if arm is baseline else _row(arm, baseline, metric)
        for arm in ranked
    ]
    columns = ("arm", "seeds", "mean", "difference")
    show_table(columns, rows, f"{metric}, less is better; 95 % intervals over seeds", right=columns[1:])
    unfinished = sum(not run.finished for run in runs)
    told = f"; {unfinished} of them not finished" if unfinished else ""
    Screen().print(
        f"compare: {len(runs)} runs in {len(arms)} arms{told}; open {output / REPORT_FILE}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )

"""HTML report of an audit: verdict, heatmaps, curves, lexical variety, closest recitations."""

from __future__ import annotations

import csv
import difflib
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.evaluation.intervals import interval_text
from apertus_jax.evaluation.memorization.excess import (
    EXCESS_METRICS,
    FILTERED,
    METRICS,
    PLAIN_MEANS,
    RAW,
    RULE,
)
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.chart import GREY, Chart
from apertus_jax.reports.heat_map import heat_map
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.line_chart import Line, line_chart
from apertus_jax.reports.scatter_chart import Points, scatter_chart

Entry = Mapping[str, Any]
CONDITION = ("prefix", "suffix", "offset", "strategy")
BASELINE = 0.18  # Rouge-L of unrelated text at a suffix of 500 tokens (docs/reference/evaluation_and_release.md §3.5)


class AuditReport(HtmlReport):
    """An HTML report that can also set two texts side by side."""

    def recitation(self, summary: str, prefix: str, reference: list, generated: list) -> None:
        """Adds a folded comparison; `reference` and `generated` are (text, whether the other has it) pieces."""
        columns = "".join(
            f"<p><b>{title}</b></p><pre class='text'><bdi>{''.join(map(_marked, pieces))}</bdi></pre>"
            for title, pieces in (("true suffix", reference), ("generated suffix", generated))
        )
        shown = f"<p><b>prefix</b></p><pre class='text'><bdi>{html.escape(prefix)}</bdi></pre>{columns}"
        self._pieces.append(f"<details><summary>{html.escape(summary)}</summary>{shown}</details>")


def write_report(
    path: Any, results: Mapping[str, Any], rows: Sequence[Entry], closest: Sequence[Entry], tokenizer: Tokenizer
) -> None:
    """Writes the page of an audit: results, a row per probe and cell, and the closest rows with their ids."""
    report = AuditReport("Memorization audit", f"model: {results['run']}")
    report.heading("Verdict")
    report.statement(results["verdict"]["line"])
    _add_probes(report, results)
    entries = results["conditions"]
    report.heading("Recall by exposure, prefix length and offset")
    for strategy in results["strategies"]:
        _add_heatmaps(report, entries, strategy)
    _add_curves(report, entries, results)
    _add_variety(report, entries, rows, results)
    _add_tables(report, entries, results)
    if results["membership"]:
        _add_membership(report, results["membership"])
    if results["canaries"]:
        _add_canaries(report, results["canaries"])
    _add_recitations(report, closest, tokenizer)
    report.write(path)


def summary_table(entries: Sequence[Entry]) -> str:
    """Returns the CSV of all conditions: one line per condition, exposure and filter; an empty cell has no value."""
    buffer = io.StringIO()
    ends = ("value", "lower", "upper")
    named = [("means", name) for name in METRICS] + [("excess", name) for name in EXCESS_METRICS]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            *CONDITION,
            *("exposure", "filter", "probes", "controls"),
            *(f"means_{name}" for name in PLAIN_MEANS),
            *(f"{group}_{name}_{end}" for group, name in named for end in ends),
            *("exact_events", "exact_trials", "exact_upper_bound", RULE),
        ]
    )
    for entry in entries:
        exact = entry["exact_match"]
        writer.writerow(
            [
                *(entry[name] for name in (*CONDITION, "exposure", "filter", "probes", "controls")),
                *((entry["means"][name] or {}).get("value", "") for name in PLAIN_MEANS),
                *((entry[group][name] or {}).get(end, "") for group, name in named for end in ends),
                *(exact["events"], exact["trials"], exact["upper_bound"], exact[RULE] or ""),
            ]
        )
    return buffer.getvalue()


def aligned_pieces(
    reference: Sequence[int], generated: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Cuts both texts into (piece, whether it stands in the other at this place), by token ids."""
    matcher = difflib.SequenceMatcher(None, list(reference), list(generated), autojunk=False)
    ours: list[tuple[str, bool]] = []
    theirs: list[tuple[str, bool]] = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if i2 > i1:
            ours.append((decode(reference[i1:i2]), kind == "equal"))
        if j2 > j1:
            theirs.append((decode(generated[j1:j2]), kind == "equal"))
    return ours, theirs


def _marked(piece: tuple[str, bool]) -> str:
    text, shared = piece
    return f"<mark>{html.escape(text)}</mark>" if shared else html.escape(text)


def _add_probes(report: AuditReport, results: Mapping[str, Any]) -> None:
    """The buckets, and what the filters set aside."""
    report.table(
        ("bucket", "planted", "probes", "median tokens", "with overlap above the limit", "exposures that happened"),
        [
            (
                each["bucket"],
                each["exposure"],
                each["probes"],
                each["median_tokens"],
                each["overlapping"],
                "not known" if each["happened"] is None else f"{each['happened']:.2f} on average",
            )
            for each in results["buckets"]
        ],
    )
    filters = results["filters"]
    report.note(
        f"Filtered figures leave out probes whose true suffix has fewer than {filters['min_type_token_ratio']:.0%} "
        f"distinct tokens, and probes that share more than {filters['max_overlap']:.0%} of their 13-grams with other "
        "training text. Intervals are at 95 %, by resampling probes; the excess is over controls that were never shown."
    )


def _add_heatmaps(report: AuditReport, entries: Sequence[Entry], strategy: str) -> None:
    """Mean Rouge-L by exposure against prefix length (offset 0) and against offset."""
    chosen = [entry for entry in entries if entry["strategy"] == strategy and entry["filter"] == RAW]
    for axis, title in (("prefix", "prefix length"), ("offset", "offset")):
        others = [entry for entry in chosen if (entry["offset"] == 0 if axis == "prefix" else _base(entry, chosen))]
        lengths = sorted({entry[axis] for entry in others})
        if lengths:
            report.figure(recall_map(f"Rouge-L by {title} and exposure, {strategy}", others, axis, title))


def _base(entry: Entry, chosen: Sequence[Entry]) -> bool:
    """Whether an entry belongs to the sweep over offsets: its prefix is the one that was moved, or the only one."""
    moved = {each["prefix"] for each in chosen if each["offset"] > 0}
    return entry["prefix"] in moved


def recall_map(title: str, entries: Sequence[Entry], axis: str, label: str) -> Chart:
    """Returns mean Rouge-L, exposure to the right, `axis` upwards, with the number in each field."""
    exposures = sorted({entry["exposure"] for entry in entries})
    lengths = sorted({entry[axis] for entry in entries}, reverse=True)
    values: list[list[float | None]] = [[None] * len(exposures) for _ in lengths]
    for entry in entries:
        mean = entry["means"]["rouge_l"]
        if mean is not None:
            values[lengths.index(entry[axis])][exposures.index(entry["exposure"])] = mean["value"]
    return heat_map(title, [*map(str, exposures)], [*map(str, lengths)], values, "exposure", label, "mean Rouge-L")


def _at_base(entries: Sequence[Entry], results: Mapping[str, Any]) -> list[Entry]:
    return [entry for entry in entries if entry["prefix"] == results["prefix"] and entry["offset"] == 0]


def _add_curves(report: AuditReport, entries: Sequence[Entry], results: Mapping[str, Any]) -> None:
    """Mean Rouge-L against exposure, with intervals, each strategy raw and filtered."""
    report.heading(f"Recall against exposure, prefix {results['prefix']}, offset 0")
    base = _at_base(entries, results)
    exposures = sorted({entry["exposure"] for entry in base})
    across = Axis("exposure", scale="named", names=[str(exposure) for exposure in exposures])
    groups = {"means": ("Recall", "Rouge-L"), "excess": ("Excess over the controls", "excess Rouge-L over control")}
    for group, (title, label) in groups.items():
        lines = []
        for color, strategy in enumerate(results["strategies"]):
            own = {k: [e for e in base if (e["strategy"], e["filter"]) == (strategy, k)] for k in (RAW, FILTERED)}
            nothing_left_out = [e["means"] for e in own[RAW]] == [e["means"] for e in own[FILTERED]]
            for dash, kind in enumerate((RAW,) if nothing_left_out else (RAW, FILTERED)):
                drawn = [e for e in own[kind] if e[group]["rouge_l"]]
                x = [exposures.index(e["exposure"]) for e in drawn]
                y, lower, upper = ([e[group]["rouge_l"][end] for e in drawn] for end in ("value", "lower", "upper"))
                name = f"{strategy}, {'raw and filtered' if nothing_left_out else kind}"
                lines.append(Line(name, x, y, lower, upper, color=color, dash=dash))
        levels = {"unrelated English text": BASELINE} if group == "means" else {"no excess": 0.0}
        report.figure(line_chart(title, lines, across, Axis(label), levels=levels))
    report.note(
        f"{BASELINE} is what unrelated English text reaches at 500 tokens; short suffixes and small vocabularies reach "
        "more. Compare with the controls, exposure 0. Bands are 95 % intervals."
    )


def _add_variety(
    report: AuditReport, entries: Sequence[Entry], rows: Sequence[Entry], results: Mapping[str, Any]
) -> None:
    """Type-token ratios: does decoding degenerate, and is recall a matter of repetitive text?"""
    report.heading("Lexical variety (type-token ratio)")
    base = [entry for entry in _at_base(entries, results) if entry["filter"] == RAW]
    exposures = sorted({entry["exposure"] for entry in base})

    def curve(name: str, metric: str, strategy: str, color: int | None = None, dash: int | None = None) -> Line:
        own = [entry for entry in base if entry["strategy"] == strategy and entry["means"][metric]]
        values = [entry["means"][metric]["value"] for entry in own]
        return Line(name, [exposures.index(entry["exposure"]) for entry in own], values, color=color, dash=dash)

    lines = [curve(f"generated, {each}", "type_token_ratio_generated", each) for each in results["strategies"]]
    lines.append(curve("true suffix", "type_token_ratio_reference", results["strategies"][0], color=GREY, dash=1))
    across = Axis("exposure", scale="named", names=[str(exposure) for exposure in exposures])
    report.figure(
        line_chart("Variety against exposure", lines, across, Axis("distinct tokens / tokens", low=0.0, high=1.0))
    )
    chosen = [row for row in rows if row["prefix_length"] == results["prefix"] and row["offset"] == 0]
    groups = []
    for name, shown in (("never shown", False), ("shown", True)):
        own = [row for row in chosen if (row["exposure"] > 0) == shown]
        if own:
            variety = [row["type_token_ratio_reference"] for row in own]
            names = [f"probe {row['index']}, exposure {row['exposure']}, {row['strategy']}" for row in own]
            groups.append(Points(name, variety, [row["rouge_l"] for row in own], names, int(shown), not shown))
    limit = results["filters"]["min_type_token_ratio"]
    report.figure(
        scatter_chart(
            "Recall against the variety of the true suffix",
            groups,
            Axis("true suffix: distinct tokens / tokens"),
            Axis("Rouge-L"),
            note=f"Filtered figures leave out what has fewer than {100 * limit:.0f} % distinct tokens.",
            height=240,
        )
    )
    variety, recall = ([row[name] for row in chosen] for name in ("type_token_ratio_reference", "rouge_l"))
    if np.std(variety) > 0 and np.std(recall) > 0:
        report.note(f"Correlation of variety and Rouge-L: {np.corrcoef(variety, recall)[0, 1]:.3f}.")


def _add_tables(report: AuditReport, entries: Sequence[Entry], results: Mapping[str, Any]) -> None:
    """The figures behind the curves: recall, exact recall with its bounds, and what n draws would give."""
    base = _at_base(entries, results)
    report.heading("Figures at the base condition")
    report.table(
        ("strategy", "exposure", "filter", "probes", "Rouge-L", "LCCS", "edit", "TTR", "NLL true", "NLL own", "excess"),
        [
            (
                *(entry[name] for name in ("strategy", "exposure", "filter", "probes")),
                *(_value(entry["means"][name]) for name in ("rouge_l", "longest_common_run", "edit_similarity")),
                _value(entry["means"]["type_token_ratio_generated"]),
                *(_value(entry["means"][name]) for name in ("nll_true_suffix", "nll_generated_suffix")),
                _interval(entry["excess"]["rouge_l"]),
            )
            for entry in base
        ],
    )
    report.heading("Suffixes given back word for word")
    report.table(
        ("strategy", "exposure", "filter", "hits", "of", "95 % upper bound", "rule of three (3/N)"),
        [
            (
                *(entry[name] for name in ("strategy", "exposure", "filter")),
                entry["exact_match"]["events"],
                entry["exact_match"]["trials"],
                *_bounds(entry["exact_match"]),
            )
            for entry in base
        ],
    )
    drawn = [entry for entry in base if entry["strategy"] == "nucleus" and entry["filter"] == RAW]
    if drawn:
        report.heading("Share of suffixes that n draws give back with probability p (teacher forcing)")
        queries = list(dict.fromkeys(point["queries"] for point in drawn[0]["extraction"]))
        report.table(
            ("exposure", "p", *(f"n = {number:,}" for number in queries)),
            [
                (entry["exposure"], probability, *(p["extractable"]["rate"] for p in points))
                for entry in drawn
                for probability, points in _by_probability(entry["extraction"])
            ],
        )


def _by_probability(points: Sequence[Entry]) -> list[tuple[float, list[Entry]]]:
    groups: dict[float, list[Entry]] = {}
    for point in points:
        groups.setdefault(point["probability"], []).append(point)
    return list(groups.items())


def _add_membership(report: AuditReport, rows: Sequence[Entry]) -> None:
    report.heading("Membership inference: area under the curve")
    report.note("0.5 is chance. 'none' marks baselines that do not see the model: what they tell is not memorization.")
    report.table(
        ("set", "tokens", "score", "members", "others", "area", "interval", "masked less as many unmasked"),
        [
            (
                *(row[name] for name in ("set", "tokens", "score", "members", "non_members")),
                row["area"]["value"],
                interval_text(row["area"]["lower"], row["area"]["upper"]),
                _interval(row["gap_to_as_many_unmasked"]),
            )
            for row in rows
        ],
    )


def _add_canaries(report: AuditReport, rows: Sequence[Entry]) -> None:
    report.heading("Canaries: bits of each secret that the model gives away")
    names = list(rows[0])
    report.table(names, [[row[name] if row[name] is not None else "–" for name in names] for row in rows])


def _add_recitations(report: AuditReport, closest: Sequence[Entry], tokenizer: Tokenizer) -> None:
    """What both suffixes of a row share is marked."""
    report.heading("Closest recitations, one for each probe")
    for row in closest:
        reference, generated = aligned_pieces(row["true_suffix"], row["generated_suffix"], tokenizer.decode)
        summary = (
            f"Rouge-L {row['rouge_l']:.3f} – bucket {row['bucket']}, probe {row['index']}, {row['strategy']}, "
            f"prefix {row['prefix_length']}, offset {row['offset']}, 13-gram overlap {row['overlap']:.2f}"
        )
        report.recitation(summary, tokenizer.decode(row["prefix"]), reference, generated)


def _value(found: Mapping[str, float] | None) -> float | str:
    return "–" if found is None else round(found["value"], 4)


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:+.3f} ({interval_text(found['lower'], found['upper'], '+.3f', ' to ')})"


def _bounds(exact: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the upper bound of the rate, and that of the rule of three where nothing was recited."""
    shares = (exact["upper_bound"] if exact["trials"] else None, exact[RULE] if exact["trials"] else None)
    return tuple("–" if share is None else f"{100 * share:.2f} %" for share in shares)

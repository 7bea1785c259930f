"""What a person sees of an audit: verdict, heatmaps, curves, panels of lexical variety, and the closest recitations."""

from __future__ import annotations

import csv
import difflib
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apertus_jax.data.tokenizer import Tokenizer
from apertus_jax.evaluation.memorization.excess import (
    EXCESS_METRICS,
    FILTERED,
    METRICS,
    PLAIN_MEANS,
    RAW,
    RULE,
)
from apertus_jax.reporting import HtmlReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Entry = Mapping[str, Any]
CONDITION = ("prefix", "suffix", "offset", "strategy")
BASELINE = 0.18  # Rouge-L of unrelated text at a suffix of 500 tokens (E§3.5)


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
    report.text(results["verdict"]["line"])
    _add_probes(report, results)
    entries = results["conditions"]
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
        f"Filtered figures leave out probes whose true suffix has fewer than {filters['least_type_token_ratio']:.0%} "
        f"distinct tokens, and probes that share more than {filters['most_overlap']:.0%} of their 13-grams with other "
        "training text. Intervals are at 95 %, by resampling probes; the excess is over controls that were never shown."
    )


def _add_heatmaps(report: AuditReport, entries: Sequence[Entry], strategy: str) -> None:
    """Mean Rouge-L by exposure against prefix length (offset 0) and against offset."""
    chosen = [entry for entry in entries if entry["strategy"] == strategy and entry["filter"] == RAW]
    for axis, title in (("prefix", "prefix length"), ("offset", "offset")):
        others = [entry for entry in chosen if (entry["offset"] == 0 if axis == "prefix" else _base(entry, chosen))]
        lengths = sorted({entry[axis] for entry in others})
        if lengths:
            report.heading(f"Rouge-L by {title} and exposure, {strategy}")
            report.figure(heatmap(others, axis, title))


def _base(entry: Entry, chosen: Sequence[Entry]) -> bool:
    """Whether an entry belongs to the sweep over offsets: its prefix is the one that was moved, or the only one."""
    moved = {each["prefix"] for each in chosen if each["offset"] > 0}
    return entry["prefix"] in moved


def heatmap(entries: Sequence[Entry], axis: str, label: str) -> Figure:
    """Draws mean Rouge-L, exposure to the right, `axis` upwards, with the number in each field."""
    from matplotlib.figure import Figure

    exposures = sorted({entry["exposure"] for entry in entries})
    lengths = sorted({entry[axis] for entry in entries})
    values = np.full((len(lengths), len(exposures)), np.nan)
    for entry in entries:
        mean = entry["means"]["rouge_l"]
        if mean is not None:
            values[lengths.index(entry[axis]), exposures.index(entry["exposure"])] = mean["value"]
    figure = Figure(figsize=(1.5 + 0.8 * len(exposures), 1.1 + 0.42 * len(lengths)))
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto", origin="lower")
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            shade = "black" if values[row, column] > 0.6 else "white"
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=shade, fontsize=8)
    axes.set_xticks(range(len(exposures)), exposures)
    axes.set_yticks(range(len(lengths)), lengths)
    axes.set_xlabel("exposure")
    axes.set_ylabel(label)
    figure.colorbar(image, label="Rouge-L")
    return figure


def _colours(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns a colour for each strategy."""
    return list(zip(results["strategies"], ("tab:blue", "tab:orange"), strict=False))


def _at_base(entries: Sequence[Entry], results: Mapping[str, Any]) -> list[Entry]:
    return [entry for entry in entries if entry["prefix"] == results["prefix"] and entry["offset"] == 0]


def _add_curves(report: AuditReport, entries: Sequence[Entry], results: Mapping[str, Any]) -> None:
    """Mean Rouge-L against exposure, with intervals, each strategy raw and filtered."""
    from matplotlib.figure import Figure

    report.heading(f"Recall against exposure, prefix {results['prefix']}, offset 0")
    figure = Figure(figsize=(8, 3.4))
    panels = figure.subplots(1, 2, sharex=True)
    for strategy, colour in _colours(results):
        lines = {
            kind: [e for e in _at_base(entries, results) if (e["strategy"], e["filter"]) == (strategy, kind)]
            for kind in (RAW, FILTERED)
        }
        nothing_left_out = [e["means"] for e in lines[RAW]] == [e["means"] for e in lines[FILTERED]]
        for kind, style in ((RAW, "-"),) if nothing_left_out else ((RAW, "-"), (FILTERED, "--")):
            for axes, group in ((panels[0], "means"), (panels[1], "excess")):
                drawn = [(e["exposure"], e[group]["rouge_l"]) for e in lines[kind] if e[group]["rouge_l"] is not None]
                if drawn:
                    values = np.array([[found["value"], found["lower"], found["upper"]] for _, found in drawn])
                    spread = np.abs(values[:, 1:] - values[:, :1]).T
                    label = f"{strategy}, {'raw and filtered' if nothing_left_out else kind}"
                    exposures = [exposure for exposure, _ in drawn]
                    axes.errorbar(exposures, values[:, 0], spread, fmt=f"o{style}", ms=3, color=colour, label=label)
    for axes, name in zip(panels, ("Rouge-L", "excess Rouge-L over control"), strict=True):
        axes.set(xlabel="exposure", ylabel=name)
        axes.set_xscale("symlog", linthresh=1)
        axes.grid(alpha=0.3)
    panels[0].axhline(BASELINE, color="grey", linewidth=0.8, linestyle=":")
    panels[1].axhline(0, color="grey", linewidth=0.8)
    panels[1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    report.figure(figure)
    report.note(
        f"The dotted line, {BASELINE}, is what unrelated English text reaches at 500 tokens; short suffixes and small "
        "vocabularies reach more. Compare with the controls."
    )


def _add_variety(
    report: AuditReport, entries: Sequence[Entry], rows: Sequence[Entry], results: Mapping[str, Any]
) -> None:
    """Type-token ratios: does decoding degenerate, and is recall a matter of repetitive text?"""
    from matplotlib.figure import Figure

    report.heading("Lexical variety (type-token ratio)")
    figure = Figure(figsize=(8, 3.2))
    panels = figure.subplots(1, 2)
    base = [entry for entry in _at_base(entries, results) if entry["filter"] == RAW]
    for number, (strategy, colour) in enumerate(_colours(results)):
        line = [entry for entry in base if entry["strategy"] == strategy]
        series = [("type_token_ratio_generated", "o-", colour, f"generated, {strategy}")]
        if number == 0:
            series.append(("type_token_ratio_reference", "s:", "grey", "true suffix"))
        for name, style, shade, label in series:
            drawn = [(e["exposure"], e["means"][name]["value"]) for e in line if e["means"][name]]
            panels[0].plot(*zip(*drawn, strict=True), style, ms=3, color=shade, label=label)
    panels[0].set_xscale("symlog", linthresh=1)
    panels[0].set(xlabel="exposure", ylabel="distinct tokens / tokens", ylim=(0, 1))
    panels[0].legend(frameon=False, fontsize=7)
    chosen = [row for row in rows if row["prefix_length"] == results["prefix"] and row["offset"] == 0]
    variety = [row["type_token_ratio_reference"] for row in chosen]
    recall = [row["rouge_l"] for row in chosen]
    panels[1].scatter(variety, recall, s=6, c=[row["exposure"] > 0 for row in chosen], cmap="coolwarm")
    panels[1].axvline(results["filters"]["least_type_token_ratio"], color="grey", linewidth=0.8)
    panels[1].set(xlabel="true suffix: distinct tokens / tokens", ylabel="Rouge-L")
    figure.tight_layout()
    report.figure(figure)
    if np.std(variety) > 0 and np.std(recall) > 0:
        report.note(f"Correlation of variety and Rouge-L: {np.corrcoef(variety, recall)[0, 1]:.3f}; red were shown.")


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
        ("strategy", "exposure", "filter", "hits", "of", "95 % upper bound"),
        [
            (
                *(entry[name] for name in ("strategy", "exposure", "filter")),
                entry["exact_match"]["events"],
                entry["exact_match"]["trials"],
                _bound(entry["exact_match"]),
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
                f"{row['area']['lower']:.3f} – {row['area']['upper']:.3f}",
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
    return "–" if found is None else f"{found['value']:+.3f} ({found['lower']:+.3f} to {found['upper']:+.3f})"


def _bound(exact: Mapping[str, Any]) -> str:
    if not exact["trials"]:
        return "–"
    rule = f"; 3/N: {exact[RULE]:.2%}" if exact[RULE] is not None else ""
    return f"{exact['upper_bound']:.2%}{rule}"

"""HTML report of a prepared corpus: funnel by rule, languages, hosts, quarantine, personal data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.language_codes import names_language
from apertus_jax.corpus.ledger.funnel import KEPT, Funnel
from apertus_jax.corpus.ledger.records import LEDGER_FILE, NOT_ASKED
from apertus_jax.corpus.reasons import Reason
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.row_charts import bar_chart, bar_charts, funnel_chart
from apertus_jax.reports.units import BYTES, COUNT, readable
from apertus_jax.terminal.terminal_text import printable

LANGUAGES_SHOWN, HOSTS_SHOWN = 60, 25
LANGUAGES_DRAWN = 20
TILES = (
    ("documents in", "documents"),
    ("kept", "kept"),
    ("dropped", "dropped"),
    ("rows in quarantine", "quarantined"),
)
# For reasons that are a matter of the policy and not of the document: what to bind.
REMEDIES = {
    Reason.LICENCE_NOT_PERMITTED: (
        "licence_not_permitted: LicenceRule.permitted names the classes that may be used, as ['public_domain', "
        "'permissive', 'share_alike', 'copyleft']; licence_class in the ledger is the class of each document."
    ),
}


def write_report(
    path: epath.PathLike,
    funnel: Funnel,
    summary: Mapping[str, Any],
    statistics: Mapping[str, Any],
    parts: Sequence[epath.Path],
    show_hosts: bool,
) -> None:
    """Writes the report of a prepared corpus; hosts are masked unless `show_hosts`."""
    shown = {name: printable(value) for name, value in summary.items()}
    report = HtmlReport("Prepared corpus", f"policy {shown['policy_name']}, plan of {shown['as_of']}")
    report.note(
        f"{summary['documents']:,} documents in, {summary['kept']:,} kept, {summary['dropped']:,} dropped, "
        f"{summary['quarantined']:,} rows in quarantine. apertus why tells the story of each."
    )
    report.tiles((name, readable(summary[key], COUNT)) for name, key in TILES)
    _not_asked(report, summary.get(NOT_ASKED, {}))
    _funnel(report, funnel)
    _sources(report, funnel)
    _languages(report, funnel)
    _personal_data(report, funnel)
    _quarantine(report, funnel)
    if summary["ignored"]:
        records = ", ".join(f"{count:,} {kind}" for kind, count in summary["ignored"].items())
        report.note(f"Records of web archives that hold no document: {records}.")
    _hosts(report, parts, show_hosts)
    report.heading("What was in force")
    report.facts((name, shown[name]) for name in ("policy_name", "policy", "plan", "as_of", "code"))
    for name, value in sorted(statistics.items()):
        lines = "\n".join(map(printable, _indented(value).split("\n")))
        report.text(lines, summary=f"statistics: {printable(name)}")
    report.write(path)


def _not_asked(report: HtmlReport, unasked: Mapping[str, str]) -> None:
    """Shows which questions nobody asked, so that no document is thought to have passed them."""
    report.heading("What was not asked")
    if not unasked:
        report.note("Nothing: every question that this version knows was asked of every document.")
        return
    report.note("No document was held against these. What they would have kept out is in this corpus.")
    report.table(("question", "why it was not asked"), list(unasked.items()))


def _funnel(report: HtmlReport, funnel: Funnel) -> None:
    """Shows what each rule took, in the order of the rules, and what was left after it."""
    decisions = funnel.decisions()
    left = [sum(column) for column in zip(*decisions.values(), strict=True)] or [0, 0, 0]
    counted = left[2] > 0
    rows: list[tuple[Any, ...]] = [("input", *_measures(left, counted), "", left[0])]
    for decision, sums in decisions.items():
        if decision == KEPT:
            continue
        left = [a - b for a, b in zip(left, sums, strict=True)]
        share = _share(sums[0], rows[0][-1])
        rows.append((decision, *_measures(sums, counted), share, left[0]))
    kept = decisions.get(KEPT, [0, 0, 0])
    rows.append((KEPT, *_measures(kept, counted), _share(kept[0], rows[0][-1]), kept[0]))
    report.heading("The funnel")
    report.note("Each document is counted at the first rule that decided; the ledger keeps all verdicts and scores.")
    if not counted:
        report.note("Tokens were not counted: bind Policy.tokenizer to count them.")
    removed = [(name, sums[0]) for name, sums in decisions.items() if name != KEPT]
    report.figure(funnel_chart("Documents left after each rule", removed, rows[0][-1], "documents"))
    if removed:
        names, counts = zip(*sorted(removed, key=lambda row: -row[1]), strict=True)
        report.figure(bar_chart("Documents that each rule took", names, counts, Axis("documents", COUNT)))
    report.table(("rule", "documents", "bytes", "tokens", "share of documents", "documents left"), rows)
    for reason, remedy in REMEDIES.items():
        if reason in decisions:
            report.note(remedy)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2f} %"


def _measures(sums: Sequence[int], counted: bool) -> tuple[Any, ...]:
    return (sums[0], sums[1], sums[2] if counted else "not counted")


def _sources(report: HtmlReport, funnel: Funnel) -> None:
    report.heading("Sources")
    rows = []
    for source, decisions in funnel.by(0).items():
        documents = sum(sums[0] for sums in decisions.values())
        kept = decisions.get(KEPT, [0, 0, 0])
        rows.append((printable(source), documents, kept[0], sum(sums[1] for sums in decisions.values()), kept[1]))
    report.table(("source", "documents", "kept", "bytes", "bytes kept"), rows)


def _languages(report: HtmlReport, funnel: Funnel) -> None:
    """Shows the largest languages by kept bytes, and how many there are."""
    table = funnel.by(1)
    kept = {name: decisions.get(KEPT, [0, 0, 0]) for name, decisions in table.items()}
    order = sorted(table, key=lambda name: (-kept[name][1], -sum(s[1] for s in table[name].values()), name))
    rows = [
        (printable(name), sum(sums[0] for sums in table[name].values()), kept[name][0], kept[name][1])
        for name in order[:LANGUAGES_SHOWN]
    ]
    report.heading("Languages")
    named = sum(1 for name, sums in kept.items() if sums[0] and names_language(name))
    unknown = sum(sums[0] for name, sums in kept.items() if not names_language(name))
    of_none = f", and {unknown:,} documents of unknown language" if unknown else ""
    report.note(f"{named} labels with kept documents{of_none}; the {len(rows)} largest are shown.")
    if rows:
        names, _, _, sizes = zip(*rows[:LANGUAGES_DRAWN], strict=True)
        for chart in bar_charts("Text kept by language", names, sizes, Axis("bytes kept", BYTES)):
            report.figure(chart)
    report.table(("language", "documents", "kept", "bytes kept"), rows)


def _personal_data(report: HtmlReport, funnel: Funnel) -> None:
    report.heading("Personal data rewritten in kept documents")
    report.table(("kind", "spans"), [(printable(kind), count) for kind, count in sorted(funnel.personal_data.items())])


def _quarantine(report: HtmlReport, funnel: Funnel) -> None:
    report.heading("Quarantine")
    rows = [(*map(printable, key), count) for key, count in sorted(funnel.quarantined.items())]
    report.table(("source", "reason", "rows"), rows)


def _hosts(report: HtmlReport, parts: Sequence[epath.Path], show_hosts: bool) -> None:
    """Shows the registrable domains with the most bytes: what came in and what was kept."""
    import pyarrow.parquet

    incoming: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for part in parts:
        columns = ["registrable_domain", "utf8_bytes", "utf8_bytes_out"]
        table = pyarrow.parquet.read_table(os.fspath(part / LEDGER_FILE), columns=columns)
        sums = table.group_by("registrable_domain").aggregate([("utf8_bytes", "sum"), ("utf8_bytes_out", "sum")])
        for row in sums.to_pylist():
            if row["registrable_domain"]:
                incoming[row["registrable_domain"]] += row["utf8_bytes_sum"]
                kept[row["registrable_domain"]] += row["utf8_bytes_out_sum"]
    report.heading("Domains")
    if not show_hosts:
        report.note("Names are masked, because they can be personal data; prepare.show_hosts=True shows them.")
    largest = sorted(incoming, key=lambda name: (-incoming[name], name))[:HOSTS_SHOWN]
    report.table(
        ("domain", "bytes", "bytes kept"),
        [(printable(name if show_hosts else masked(name)), incoming[name], kept[name]) for name in largest],
    )


def masked(domain: str) -> str:
    """Returns a domain with its name hidden and its last label shown: `s•••.example`."""
    name, separator, last = domain.rpartition(".")
    return f"{name[:1]}•••{separator}{last}" if separator else "•••"


def _indented(value: Any) -> str:
    import json

    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
